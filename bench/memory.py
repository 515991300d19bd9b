#!/usr/bin/env python3
"""Resident memory with the default model loaded, against file + KV in use + 32 MiB.

    bench/memory.py

KV in use is counted in blocks, those kept for prefix reuse included: the pool is reserved as a whole, but
becomes resident block by block.
"""
import os

from common import MIB, MODEL, MODEL_ID, Server, machine, memory, metric

ALLOWANCE = 32 * MIB


def main():
    print(machine())
    size = os.path.getsize(MODEL)
    with Server(preload=MODEL_ID) as s:
        s.wait_for("/readyz", pause=0.02)
        report(s, size, "after loading")
        s.chat("The tide came in and the tide went out. " * 40, 64)
        report(s, size, "after a chat of 450 tokens")
        for i in range(3):
            s.chat(f"{i} The tide came in and the tide went out. " * 200, 8)
        report(s, size, "after three of 2,000 tokens")


def report(server, size, what):
    m = memory(server.process.pid)
    text = server.get("/metrics")[1]
    pool = metric(text, "ashley_model_bytes", model=MODEL_ID, kind="kv")
    total = metric(text, "ashley_kv_blocks", model=MODEL_ID, kind="total")
    blocks = metric(text, "ashley_kv_blocks", model=MODEL_ID, kind="used") + \
        metric(text, "ashley_kv_blocks", model=MODEL_ID, kind="cached")
    kv = pool / total * blocks
    limit = size + kv + ALLOWANCE
    print(f"{what:28} resident {m['rss'] / MIB:6.1f} MiB, peak {m['peak'] / MIB:.1f}; file "
          f"{size / MIB:.1f} + KV {kv / MIB:.1f} + 32 = {limit / MIB:.1f}  "
          f"{'ok' if m['rss'] <= limit else 'OVER'}")


if __name__ == "__main__":
    main()
