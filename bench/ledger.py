#!/usr/bin/env python3
"""What a model is charged, by the headers and as measured, against what the kernel says it takes.

    bench/ledger.py

Resident memory beyond that of a server without a model, against the charge less the part of the KV pool that
is not in use yet: it is reserved as a whole, but becomes resident block by block. The second start takes
its figures from the ledger of the first.
"""
import json
import tempfile

from common import MIB, MODEL_ID, Server, machine, memory, metric


def main():
    print(machine())
    with Server() as s:
        empty = memory(s.process.pid)["rss"]
    print(f"without a model: {empty / MIB:.1f} MiB")
    with tempfile.TemporaryDirectory() as state:
        for start in ("first start", "second start"):
            with Server(preload=MODEL_ID, ASHLEY_STATE_DIR=state) as s:
                s.wait_for("/readyz", pause=0.02)
                report(s, empty, f"{start}, after loading")
                for i in range(8):
                    s.chat(f"{i} The tide came in and the tide went out. " * 400, 8)
                report(s, empty, f"{start}, after eight chats of 4,000 tokens")


def report(server, empty, what):
    taken = memory(server.process.pid)["rss"] - empty
    text = server.get("/metrics")[1]
    pool = metric(text, "ashley_model_bytes", model=MODEL_ID, kind="kv")
    total = metric(text, "ashley_kv_blocks", model=MODEL_ID, kind="total")
    blocks = metric(text, "ashley_kv_blocks", model=MODEL_ID, kind="used") + \
        metric(text, "ashley_kv_blocks", model=MODEL_ID, kind="cached")
    unused = pool - pool / total * blocks
    models = json.loads(server.get("/models")[1])["data"]
    said = next(m for m in models if m["id"] == MODEL_ID)["status"]["memory"]
    line = f"{what:44} takes {taken / MIB:6.1f} MiB"
    for name in ("estimated", "measured", "charged"):
        if said[name]:
            expected = said[name] - unused
            line += f"; {name} {expected / MIB:6.1f} ({(expected / taken - 1) * 100:+.1f} %)"
    print(line)


if __name__ == "__main__":
    main()
