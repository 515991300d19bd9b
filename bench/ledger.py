#!/usr/bin/env python3
"""What models are charged, by the headers and as measured, against what the kernel says they take.

    bench/ledger.py [--chats N] [MODEL...]

target: the measured figure within 3 %

MODEL is a checkpoint's file or folder (bench/peer_model.py makes some), or an id of the catalogue; without
any it is SmolLM2. Resident memory beyond that of a server without a model, against the charge less what of
the KV pool and of scratch has no memory: both are reserved as a whole, but become resident when they are
first needed, and KV blocks that are not needed for 10 s are given back. The second start takes its figures
from the ledger of the first.
"""
import argparse
import json
import os
import tempfile
import time

from common import MIB, MODEL_ID, Server, machine, memory, metric


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("models", nargs="*", default=[MODEL_ID], metavar="MODEL")
    p.add_argument("--chats", type=int, default=8, help="of about 3,900 tokens after loading (default 8)")
    o = p.parse_args()
    print(machine())
    with Server() as s:
        s.wait_for("/livez")
        empty = memory(s.process.pid)["rss"]
    print(f"without a model: {empty / MIB:.1f} MiB")
    for model in o.models:
        model = os.path.abspath(model) if os.path.exists(model) else model
        print(model)
        with tempfile.TemporaryDirectory() as state:
            for start in ("first start", "second start"):
                with Server(preload=model, ASHLEY_STATE_DIR=state) as s:
                    s.wait_for("/readyz", pause=0.02)
                    report(s, model, empty, f"{start}, after loading")
                    for i in range(o.chats):
                        s.chat(f"{i} The tide came in and the tide went out. " * 320, 8, model=model)
                    if o.chats:
                        report(s, model, empty, f"{start}, after {o.chats} chats of 3,900 tokens")
                        time.sleep(12)
                        report(s, model, empty, f"{start}, 12 s later")


def report(server, model, empty, what):
    taken = memory(server.process.pid)["rss"] - empty
    text = server.get("/metrics")[1]
    unused = metric(text, "ashley_model_bytes", model=model, kind="untouched")
    models = json.loads(server.get("/models")[1])["data"]
    said = next(m for m in models if m["id"] == model)["status"]["memory"]
    line = f"  {what:42} takes {taken / MIB:7.1f} MiB"
    for name in ("estimated", "measured", "charged"):
        if said[name]:
            expected = said[name] - unused
            line += f"; {name} {expected / MIB:6.1f} ({(expected / taken - 1) * 100:+.1f} %)"
    print(line)


if __name__ == "__main__":
    main()
