#!/usr/bin/env python3
"""Checkpoints of true shapes: made, loaded from the page cache, asked for some tokens, deleted.

    bench/load.py [ENTRY ...] [--layers N] [--experts N] [--folder /tmp] [--keep] [--runs 3] [--tokens 16]

ENTRY is one of bench/shapes.py --list; the 7B and 13B ones without any. One at a time: the folder must have
room for the largest, the machine memory for its packed weights, KV and a part of the file in the page cache.

load        verify, map and pack in seconds, as the boot report has them; warm: the first steps after it
peak        resident at most until then, less the packed weights; target 256 MiB
resident    then, less the packed weights and the KV blocks in use; target 32 MiB; after: after the answer
speed       tokens a second of that answer, its prompt included

On a machine that is busy: chrt -f 1 bench/load.py --keep ..., after a run that made the files.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile
import time

import shapes
from common import MIB, Server, machine, memory, metric, spread

SMALL = [e for e in shapes.ENTRIES if "7b" in e or "13b" in e]


def warm(folder):
    """Reads all files, so that they are in the page cache; bytes."""
    total = 0
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb", buffering=0) as f:
            while piece := f.read(16 * MIB):
                total += len(piece)
    return total


def kv_in_use(text, model):
    pool = metric(text, "ashley_model_bytes", model=model, kind="kv")
    total = metric(text, "ashley_kv_blocks", model=model, kind="total")
    used = metric(text, "ashley_kv_blocks", model=model, kind="used") + \
        metric(text, "ashley_kv_blocks", model=model, kind="cached")
    return pool / total * used


def wait_until_loaded(server):
    while True:
        status, text = server.get("/readyz")
        if status == 200:
            return
        for model in json.loads(text)["models"]:
            if model["state"] == "failed":
                sys.exit(f"{model['model']}: {model['error']['message']}")
        time.sleep(0.02)


def measure(entry, folder, options):
    files = warm(folder)
    catalogue = os.path.join(folder, "models.json")
    with open(catalogue, "w", encoding="utf-8") as f:
        json.dump({entry: {"path": folder, "context": 2048, "template": "alpaca"}}, f)
    with Server(preload=entry, DEFAULT_MODEL=entry, ASHLEY_MODELS_FILE=catalogue) as s:
        s.wait_for("/livez", limit=30, pause=0.01)
        wait_until_loaded(s)
        pid = s.process.pid
        at_load = memory(pid)
        report = json.loads(s.get("/readyz?verbose=1")[1])
        model = next(m for m in report["report"]["models"] if m["model"] == entry)
        load = sum(model["stage_ms"].get(k, 0) for k in ("verify", "map", "pack")) / 1000
        text = s.get("/metrics")[1]
        packed = metric(text, "ashley_model_bytes", model=entry, kind="weights")
        kv = kv_in_use(text, entry)
        start = time.perf_counter()
        said = s.chat("The tide came in.", options.tokens, model=entry)
        seconds = time.perf_counter() - start
        after = memory(pid)
        kv_after = kv_in_use(s.get("/metrics")[1], entry)
    if said["tokens"] != options.tokens:
        sys.exit(f"{entry}: {said['tokens']} tokens of {options.tokens}")
    return {"files": files, "packed": packed, "load": load, "warm": model["stage_ms"].get("warm", 0) / 1000,
            "peak": (at_load["peak"] - packed) / MIB, "resident": (at_load["rss"] - packed - kv) / MIB,
            "after": (after["rss"] - packed - kv_after) / MIB, "speed": options.tokens / seconds}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("entries", nargs="*", metavar="ENTRY", help="default: " + " ".join(SMALL))
    p.add_argument("--layers", type=int)
    p.add_argument("--experts", type=int)
    p.add_argument("--folder", default=tempfile.gettempdir())
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--tokens", type=int, default=16)
    p.add_argument("--keep", action="store_true", help="leave the checkpoints where they are, and use those")
    o = p.parse_args()
    print(machine())
    for entry in o.entries or SMALL:
        folder = os.path.join(o.folder, f"ashley-{entry}")
        try:
            if not os.path.exists(folder):
                shapes.make(entry, folder, o.layers, o.experts)
            runs = [measure(entry, folder, o) for _ in range(o.runs)]
            first = runs[0]
            print(f"{entry}: {first['files'] / 1e9:.2f} GB of files, {first['packed'] / 1e9:.2f} GB packed")
            for name, digits in (("load", 2), ("warm", 2), ("peak", 0), ("resident", 0), ("after", 0),
                                 ("speed", 1)):
                print(f"    {name:10} {spread([r[name] for r in runs], digits)}", flush=True)
        finally:
            if not o.keep:
                shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
