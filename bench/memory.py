#!/usr/bin/env python3
"""Resident memory with the default model loaded, against file + KV pool + 32 MiB.

    bench/memory.py
"""
import os
import sys

from common import MIB, MODEL, MODEL_ID, Server, machine, memory, metric

ALLOWANCE = 32 * MIB


def main():
    print(machine())
    size = os.path.getsize(MODEL)
    with Server(preload=MODEL_ID) as s:
        s.wait_for("/readyz", pause=0.02)
        loaded = memory(s.process.pid)
        long_prompt = "The tide came in and the tide went out. " * 40
        s.chat(long_prompt, 64)
        after = memory(s.process.pid)
        kv = metric(s.get("/metrics")[1], "ashley_model_bytes", model=MODEL_ID, kind="kv")
    if kv is None:
        sys.exit('no ashley_model_bytes{kind="kv"} in /metrics')
    limit = size + kv + ALLOWANCE
    print(f"file {size / MIB:.1f} MiB, KV pool {kv / MIB:.1f} MiB, allowed {limit / MIB:.1f} MiB")
    for name, m in [("after loading", loaded), ("after a chat of 450 tokens", after)]:
        print(f"{name:28} resident {m['rss'] / MIB:6.1f} MiB (anonymous {m['anonymous'] / MIB:.1f}), "
              f"peak {m['peak'] / MIB:.1f}  {'ok' if m['rss'] <= limit else 'OVER'}")


if __name__ == "__main__":
    main()
