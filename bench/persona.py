#!/usr/bin/env python3
"""A persona's prompt of 1,000 tokens: what the first user waits for, and what a restart costs.

    bench/persona.py [--runs 15] [--tokens 1000]

Time to first token over HTTP, of a chat with the preloaded persona against a completion of a one-token
prompt, alternated; target: at most 2 times. Then exec to the first token of such a chat, with the prompt's
keys and values on disk (STATE/kv) and without, alternated. Last, chats that were evicted from the KV pool and
go on: their prefix read from disk, and computed again.
"""
import argparse
import glob
import http.client
import json
import os
import shutil
import tempfile
import time

from common import MODEL_ID, Server, machine, spread

WORDS = ("You are a patient guide to the harbour town of Lindwick and answer in short sentences. "
         "Every house there has a story, a number and a colour, and you know all of them by heart. ")


def persona_dir(tokens):
    where = tempfile.mkdtemp(prefix="ashley-personas-")
    text = (WORDS * (tokens // 30 + 1))[:int(tokens * 4.75)]
    with open(os.path.join(where, "guide.json"), "w", encoding="utf-8") as f:
        json.dump({"id": "guide", "name": "Guide", "system_prompt": text, "model": MODEL_ID}, f)
    return where


def first_token_ms(server, path, body):
    """(milliseconds from the request to the first token, prompt tokens, those of them that were cached)"""
    body |= {"stream": True, "max_tokens": 2, "temperature": 0, "ignore_eos": True,
             "stream_options": {"include_usage": True}}
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    first, usage = 0, {}
    c.connect()
    t = time.perf_counter()
    c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    for line in c.getresponse():
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        usage = event.get("usage") or usage
        for choice in event.get("choices", []):
            if choice.get("text") or choice.get("delta", {}).get("content"):
                first = first or time.perf_counter()
    c.close()
    return (first - t) * 1000, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def chat(server, i):
    return first_token_ms(server, "/v1/chat/completions",
                          {"model": "guide", "messages": [{"role": "user", "content": f"{i}?"}]})


def first_tokens(personas, runs):
    with Server(preload=MODEL_ID, ASHLEY_PERSONAS_DIR=personas) as s:
        s.wait_for("/readyz", pause=0.01)
        with_persona, one = [], []
        for i in range(runs):
            ms, prompt, cached = chat(s, i)
            with_persona.append(ms)
            one.append(first_token_ms(s, "/v1/completions", {"model": MODEL_ID, "prompt": chr(65 + i)})[0])
    print(f"time to first token, ms   persona of {prompt} tokens, {cached} cached   {spread(with_persona)}")
    print(f"                          one token                          {spread(one)}")
    print(f"                          ratio                              "
          f"{spread([a / b for a, b in zip(with_persona, one)], 2)}")


def restarts(personas, runs):
    state = tempfile.mkdtemp(prefix="ashley-state-")
    times = {"kept": [], "computed": []}
    for i in range(2 * runs + 1):  # the first one writes packs and prompts
        kept = i % 2 == 0
        if not kept:
            shutil.rmtree(os.path.join(state, "kv"), ignore_errors=True)
        with Server(preload=MODEL_ID, ASHLEY_PERSONAS_DIR=personas, ASHLEY_STATE_DIR=state) as s:
            s.wait_for("/readyz", pause=0.001)
            chat(s, i)
            if i:
                times["kept" if kept else "computed"].append((time.perf_counter() - s.started) * 1000)
            while not glob.glob(os.path.join(state, "kv", "*.kv")):
                time.sleep(0.01)
    shutil.rmtree(state)
    for name, ms in times.items():
        print(f"exec to first token, ms   prompt {name:9} {spread(ms)}")


def evicted(runs):
    """Time to first token of 30 long chats that come round again and outgrow the pool together."""
    state = tempfile.mkdtemp(prefix="ashley-state-")
    times, cached = {"read": [], "computed": []}, {"read": set(), "computed": set()}
    for i in range(3):  # the first start learns what the model's file holds
        keep = {} if i == 2 else {"ASHLEY_STATE_DIR": state}
        if i == 2:  # a share of 1 kB: nothing is kept
            keep = {"ASHLEY_DISK_BUDGET": "4k"}
        with Server(preload=MODEL_ID, **keep) as s:
            s.wait_for("/readyz", pause=0.01)
            while i == 0 and not os.path.exists(os.path.join(state, "packs", "known")):
                time.sleep(0.01)
            for k in range((runs + 1) * 30 if i else 0):
                text = f"{k % 30} " + WORDS * 50
                ms, tokens, hits = first_token_ms(s, "/v1/completions", {"model": MODEL_ID, "prompt": text})
                if k >= 30:
                    times["read" if i == 1 else "computed"].append(ms)
                    cached["read" if i == 1 else "computed"].add(hits)
                time.sleep(0.02)
    shutil.rmtree(state)
    for name, ms in times.items():
        print(f"evicted chat of {tokens} tokens, ms  prefix {name:9} {spread(ms)}  "
              f"cached {min(cached[name])}-{max(cached[name])}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--runs", type=int, default=15)
    p.add_argument("--tokens", type=int, default=1000)
    o = p.parse_args()
    print(machine())
    personas = persona_dir(o.tokens)
    print("median (lowest-highest, runs)")
    first_tokens(personas, o.runs)
    restarts(personas, max(3, o.runs // 3))
    shutil.rmtree(personas)
    evicted(1)


if __name__ == "__main__":
    main()
