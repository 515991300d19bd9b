#!/usr/bin/env python3
"""Start with nothing preloaded: milliseconds from exec to the first 200 of /livez, and resident memory.

    bench/start.py [--runs 20]      target: at most 5 ms and 8 MiB

The clock starts before the fork, so Python's own millisecond or so is in the figure. On a machine that is
busy the processor time of the server (all its threads) tells more than the clock.
"""
import argparse
import os
import time

from common import MIB, Server, machine, memory, spread


def processor_ms(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="utf-8") as f:
            total += int(f.read().split()[0])
    return total / 1e6


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--runs", type=int, default=20)
    o = p.parse_args()
    print(machine())
    times, used, sizes, settled = [], [], [], []
    for _ in range(o.runs):
        with Server() as s:
            times.append(s.wait_for("/livez") * 1000)
            used.append(processor_ms(s.process.pid))
            sizes.append(memory(s.process.pid)["rss"] / MIB)
            time.sleep(0.3)
            s.get("/livez")
            settled.append(memory(s.process.pid)["rss"] / MIB)
    print("median (lowest-highest, runs)")
    print(f"exec to /livez 200, ms     {spread(times)}")
    print(f"processor time then, ms    {spread(used)}")
    print(f"resident then, MiB         {spread(sizes)}")
    print(f"resident after 0.3 s, MiB  {spread(settled)}")


if __name__ == "__main__":
    main()
