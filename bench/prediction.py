#!/usr/bin/env python3
"""Answers with prediction and without, by two servers that take turns: tokens per second of whole requests
(their prompts are cached), whether every text is the same, and how many guesses came true.

    bench/prediction.py [--tokens 160] [--runs 5] [--chats 1] [--model FILE] [--draft FILE]
                                                       target: no text slower by more than 2 %

With --draft a draft model of the same vocabulary guesses too; bench/deepen.py makes pairs.
The texts: prose, an instruction that copies, a list, code, each greedy and drawn; and tokens drawn almost
evenly from the vocabulary, where there is nothing to foresee.
"""
import argparse
import json
import os
import statistics
import tempfile
import threading
import time

from common import MODEL_ID, Server, machine, metric

NOTE = ("The ferry to the islands leaves at half past six in the morning from the northern pier. Passengers "
        "with bicycles board first, through the gate beside the ticket office, and passengers with dogs "
        "board last. The crossing takes forty minutes when the weather is fair and an hour when it is not.")
CODE = ("def area(shape):\n    if shape.kind == 'circle':\n        return 3.14159 * shape.radius ** 2\n"
        "    if shape.kind == 'square':\n        return shape.side ** 2\n    raise ValueError(shape.kind)\n")
TEXTS = [("prose", "Describe a quiet street at night, in detail.", {}),
         ("prose, drawn", "Describe a quiet street at night, in detail.", {"temperature": 0.8, "seed": 5}),
         ("copying", "Repeat this text word for word:\n\n" + NOTE, {}),
         ("copying, drawn", "Repeat this text word for word:\n\n" + NOTE, {"temperature": 0.7, "seed": 5}),
         ("a list", "Write a table of the numbers from 1 to 30 and their squares, one a line.", {}),
         ("code", "Add triangles to this code and show all of it:\n\n" + CODE, {}),
         ("chance", "Say anything.", {"temperature": 20, "top_k": 0, "min_p": 0, "seed": 5})]


def ask(server, prompt, tokens, chats, more):
    """(tokens a second of all, the texts)"""
    answers = [None] * chats

    def one(i):
        own = more | ({"seed": more["seed"] + i} if "seed" in more else {})
        answers[i] = server.chat(prompt + " " * i, tokens, **own)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(chats)]
    began = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    took = time.perf_counter() - began
    return sum(a["tokens"] for a in answers) / took, [a["text"] for a in answers]


def cpu_seconds(server):
    with open(f"/proc/{server.process.pid}/stat", encoding="utf-8") as f:
        times = f.read().rsplit(")", 1)[1].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def guesses(server):
    text = server.get("/metrics")[1]
    return [metric(text, "ashley_guessed_tokens", kind=kind)
            for kind in ("computed", "right", "drafted", "drafted_right")]


def catalogue(folder, model, draft):
    """What to set for a catalogue with that model and draft model, or nothing."""
    if not model:
        return {}
    entries = {MODEL_ID: {"path": os.path.abspath(model), "context": 2048}}
    if draft:
        entries[MODEL_ID]["draft"] = "draft"
        entries["draft"] = {"path": os.path.abspath(draft)}
    path = os.path.join(folder, "models.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(entries, f)
    return {"ASHLEY_MODELS_FILE": path}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--tokens", type=int, default=160)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--chats", type=int, default=1)
    p.add_argument("--model", help="a checkpoint in place of the small one")
    p.add_argument("--draft", help="its draft model; wants --model")
    p.add_argument("--texts", default="", help="only those whose name holds this")
    o = p.parse_args()
    print(machine())
    print(f"{o.chats} chats of {o.tokens} tokens; medians of {o.runs} runs, of the ratios by pairs "
          "(lowest-highest)")
    with tempfile.TemporaryDirectory(prefix="ashley-bench-") as folder, \
            Server(preload=MODEL_ID, **catalogue(folder, o.model, o.draft)) as on, \
            Server(preload=MODEL_ID, ASHLEY_PREDICTION="0", **catalogue(folder, o.model, o.draft)) as off:
        for s in (on, off):
            s.wait_for("/readyz", pause=0.02)
        for name, prompt, more in (t for t in TEXTS if o.texts in t[0]):
            rates, cpu, equal = {on: [], off: []}, {on: [], off: []}, True
            before = guesses(on)
            for run in range(-1, o.runs):
                texts = {}
                for s in (on, off) if run % 2 else (off, on):
                    used = cpu_seconds(s)
                    rate, texts[s] = ask(s, prompt, o.tokens, o.chats, more)
                    if run >= 0:
                        rates[s].append(rate)
                        cpu[s].append(cpu_seconds(s) - used)
                equal &= texts[on] == texts[off]
            pairs = [a / b for a, b in zip(rates[on], rates[off])]
            computed, right, *drafted = (int(a - b) for a, b in zip(guesses(on), before))
            print(f"{name:15} without {statistics.median(rates[off]):6.1f}"
                  f"  with {statistics.median(rates[on]):6.1f}"
                  f"  ratio {statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"
                  f"  CPU time {statistics.median(a / b for a, b in zip(cpu[on], cpu[off])):.2f}"
                  f"  guesses {computed}, right {right}"
                  f"{f' (drafted {drafted[0]}, {drafted[1]})' if o.draft else ''}"
                  f"  texts {'equal' if equal else 'DIFFER'}", flush=True)


if __name__ == "__main__":
    main()
