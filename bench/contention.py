#!/usr/bin/env python3
"""Prefill and decode while another process takes a core, against the undisturbed rate, alternated.

    nice -n -20 bench/contention.py [--runs 5] [--model FILE]      target: at least 45 % on two cores

The other process counts without end: once free to go where it likes, once tied to the first core. On a busy
machine the niceness keeps third parties out; the two sides share it, so they share cores evenly.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

from common import ASHLEY, MODEL, machine, need, spread

WAYS = ["undisturbed", "beside a free one", "beside one on core 0"]


def run(model, way):
    other = None
    if way != WAYS[0]:
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        if way == WAYS[2]:
            os.sched_setaffinity(other.pid, {min(os.sched_getaffinity(0))})
    try:
        out = subprocess.run([ASHLEY, "bench", model, "-p", "512", "-n", "64", "-r", "3", "--json"],
                             capture_output=True, text=True, check=True).stdout
    finally:
        if other:
            other.kill()
            other.wait()
    return {t["test"]: t["median"] for t in json.loads(out)["results"]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--model", default=MODEL)
    o = p.parse_args()
    need(ASHLEY, "run scripts/run --no-serve first")
    print(machine())
    results = {way: [] for way in WAYS}
    for _ in range(o.runs):
        for way in WAYS:
            results[way].append(run(o.model, way))
    for test in results[WAYS[0]][0]:
        base = statistics.median(r[test] for r in results[WAYS[0]])
        for way in WAYS:
            rates = [r[test] for r in results[way]]
            print(f"{test:12} {way:22} {spread(rates)} tokens/s"
                  f"  {100 * statistics.median(rates) / base:.0f} %")


if __name__ == "__main__":
    main()
