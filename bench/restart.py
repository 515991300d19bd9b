#!/usr/bin/env python3
"""Restart: milliseconds from exec to the first token of a request that is sent as soon as the port answers,
with the packed weights kept by an earlier start and without, alternated; both from the page cache.

    bench/restart.py [--model FILE] [--runs 7]      FILE: a GGUF file or a checkpoint's folder

One token of a model reads all its weights once: their bytes over the machine's read bandwidth (bench/limits)
is the least that any engine takes. The load's stages come from the boot report.
"""
import argparse
import glob
import json
import os
import shutil
import tempfile
import time

from common import MODEL, MODEL_ID, Server, machine, spread

KINDS = {True: "with the pack", False: "without"}


def start(catalogue, state, keep):
    """One start: ms to the first token, and of each stage of the load. keep: waits for the pack file."""
    with Server(preload=MODEL_ID, ASHLEY_STATE_DIR=state, ASHLEY_MODELS_FILE=catalogue) as s:
        s.wait_for("/livez")
        first = (s.chat("Hi", 1)["first"] - s.started) * 1000
        s.wait_for("/readyz", pause=0.01)
        while keep and not glob.glob(os.path.join(state, "packs", "*.pack")):
            time.sleep(0.05)
        s.log.seek(0)
        line = next((l for l in s.log if " pack " in l and "verify" in l), "")
        words = line[line.find("verify"):].split()
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
        firsts, stages = {True: [], False: []}, {True: {}, False: {}}
        for _ in range(o.runs):
            for kept in KINDS:
                ms, load = start(catalogue, state if kept else os.path.join(state, "none"), False)
                firsts[kept].append(ms)
                for name, v in load.items():
                    stages[kept].setdefault(name, []).append(v)
                shutil.rmtree(os.path.join(state, "none"), ignore_errors=True)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    print("median (lowest-highest, runs), ms")
    for kept, name in KINDS.items():
        print(f"{name:14} exec to first token {spread(firsts[kept])}")
        for stage, v in stages[kept].items():
            print(f"{'':14} {stage:8} {spread(v)}")


if __name__ == "__main__":
    main()
