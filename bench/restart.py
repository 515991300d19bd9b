#!/usr/bin/env python3
"""Restart: milliseconds from exec to the first token of a request that is sent as soon as the port answers,
with the packed weights kept by an earlier start and without, alternated; both from the page cache. The
request completes a prompt of one token, or is a chat, whose template makes some thirty tokens of a word.

    bench/restart.py [--model FILE] [--runs 7]      FILE: a GGUF file or a checkpoint's folder

One token of a model reads all its weights once: their bytes over the machine's read bandwidth (bench/limits)
is the least that any engine takes. The load's stages come from the boot report.
"""
import argparse
import glob
import http.client
import json
import os
import shutil
import sys
import tempfile
import time

from common import MODEL, MODEL_ID, Server, machine, spread

KINDS = {(True, False): "pack, one token", (True, True): "pack, chat", (False, True): "without, chat"}


def one_token(s):
    """When the first token after a prompt of one token came."""
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=300)
    c.request("POST", "/v1/completions", json.dumps({"model": MODEL_ID, "prompt": [9906], "max_tokens": 1,
                                                     "temperature": 0, "ignore_eos": True}),
              {"Content-Type": "application/json"})
    r = c.getresponse()
    text = r.read().decode()
    at = time.perf_counter()
    if r.status != 200:
        sys.exit(f"completion: {r.status} {text[:500]}")
    c.close()
    return at


def start(catalogue, state, keep, chat=True):
    """One start: ms to the first token, and of each stage of the load. keep: waits for the pack file."""
    with Server(preload=MODEL_ID, ASHLEY_STATE_DIR=state, ASHLEY_MODELS_FILE=catalogue) as s:
        s.wait_for("/livez")
        first = ((s.chat("Hi", 1)["first"] if chat else one_token(s)) - s.started) * 1000
        s.wait_for("/readyz", pause=0.01)
        while keep and not glob.glob(os.path.join(state, "packs", "*.pack")):
            time.sleep(0.05)
        s.log.seek(0)
        line = next((l for l in s.log if " pack " in l and "verify" in l), "")
        words = line[line.find("verify"):line.find("(over") if "(over" in line else None].split()
    return first, dict(zip(words[::2], map(float, words[1::2])))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--model", default=MODEL)
    p.add_argument("--runs", type=int, default=7)
    o = p.parse_args()
    print(machine())
    state = tempfile.mkdtemp(prefix="ashley-restart-")
    try:
        catalogue = os.path.join(state, "models.json")
        with open(catalogue, "w", encoding="utf-8") as f:
            json.dump({MODEL_ID: {"path": os.path.realpath(o.model)}}, f)
        start(catalogue, state, True)
        firsts, stages = {kind: [] for kind in KINDS}, {kind: {} for kind in KINDS}
        for _ in range(o.runs):
            for kind in KINDS:
                kept, chat = kind
                ms, load = start(catalogue, state if kept else os.path.join(state, "none"), False, chat)
                firsts[kind].append(ms)
                for name, v in load.items():
                    stages[kind].setdefault(name, []).append(v)
                shutil.rmtree(os.path.join(state, "none"), ignore_errors=True)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    print("median (lowest-highest, runs), ms")
    for kind, name in KINDS.items():
        print(f"{name:15} exec to first token {spread(firsts[kind])}")
        for stage, v in stages[kind].items():
            print(f"{'':15} {stage:8} {spread(v)}")


if __name__ == "__main__":
    main()
