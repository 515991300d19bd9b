#!/usr/bin/env python3
"""Switching between two models: one that both fit in memory, and one where each has to go for the other.

    bench/switch.py [--model FILE] [--runs 3] [--folder DIR]
                                  FILE: a GGUF file; default: a made-up 7B in Q4_0, 4 GB. Takes three
                                  times its size of DIR's disk (/var/tmp), for a copy and the packs

both fit     requests to one model and the other in turn: no model may be loaded again, and a switch costs
             what asking the same one twice costs
one fits     the seconds from a request to its one token, for which the other model goes and the pack file
             is read, from the page cache and from the disk (dropped before: bench/cold.py). Beside it, in
             the same run: all of the file by read(2) from the page cache on all CPUs, and by direct reads.
             Target: 90 % of that rate. A switch holds the eviction, the model's one token and the headers
"""
import argparse
import http.client
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from cold import READ, drop, read_directly
from common import Server, machine, spread

NAMES = ("one", "other")


def ask(s, name):
    """Seconds to the one token of a prompt of one token."""
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=300)
    began = time.perf_counter()
    c.request("POST", "/v1/completions", json.dumps({"model": name, "prompt": [9906], "max_tokens": 1,
                                                     "temperature": 0, "ignore_eos": True}),
              {"Content-Type": "application/json"})
    r = c.getresponse()
    text = r.read().decode()
    if r.status != 200:
        sys.exit(f"completion of {name}: {r.status} {text[:500]}")
    c.close()
    return time.perf_counter() - began


def status(s, name):
    return json.loads(s.get(f"/v1/models/{name}")[1])["status"]


def read_cached(path):
    """Seconds for all of the file by read(2), from the page cache, on all CPUs."""
    size, n = os.path.getsize(path), os.cpu_count()
    fd = os.open(path, os.O_RDONLY)

    def stripe(k):
        buffer = bytearray(READ)
        return sum(os.preadv(fd, [buffer], at) for at in range(k * READ, size, n * READ))

    with ThreadPoolExecutor(n) as pool:
        list(pool.map(stripe, range(n)))  # brings it there
        began = time.perf_counter()
        if sum(pool.map(stripe, range(n))) != size:
            raise OSError("a read was cut short")
    os.close(fd)
    return time.perf_counter() - began


def new_pack(folder, known):
    """The name of one more pack file, once it is written."""
    for _ in range(1200):
        new = {p for p in os.listdir(folder) if p.endswith(".pack")} - {*known}
        if new:
            return new.pop()
        time.sleep(0.1)
    return sys.exit("no pack file was written in two minutes: memory or disk is short")


def both_fit(env, packs_folder, runs):
    """(bytes that one model is charged, {name: its pack})"""
    packs = {}
    with Server(**env) as s:
        s.wait_for("/readyz")
        for name in NAMES:
            ask(s, name)
            packs[name] = new_pack(packs_folder, packs.values())
        loaded = {name: status(s, name)["started_at"] for name in NAMES}
        same, switched = [], []
        for _ in range(runs):
            for name in NAMES:
                switched.append(1000 * ask(s, name))
                same.append(1000 * ask(s, name))
        again = sum(status(s, name)["started_at"] != loaded[name] for name in NAMES)
        print(f"both fit: {again} loads in {2 * runs} switches; one token after a switch "
              f"{spread(switched, 0)} ms, of the same model again {spread(same, 0)} ms")
        charged = max(status(s, name)["memory"]["charged"] for name in NAMES)
    return charged, {name: os.path.join(packs_folder, p) for name, p in packs.items()}


def one_fits(env, charged, packs, runs):
    seconds, shares = {}, {}
    with Server(**env, ASHLEY_MEMORY_BUDGET=str(int(1.5 * charged))) as s:
        s.wait_for("/readyz")
        before = NAMES[1]
        ask(s, before)
        for _ in range(runs):
            for place in ("page cache", "disk"):
                name = NAMES[before == NAMES[0]]
                size = os.path.getsize(packs[name])
                if place == "disk":
                    drop(packs[name])
                    alone = read_directly(packs[name])
                    drop(packs[name])
                else:
                    alone = read_cached(packs[name])
                time.sleep(2)  # beyond the shortest residence of the one before
                got = ask(s, name)
                if status(s, before)["value"] != "unloaded":
                    sys.exit(f"{before} did not go for {name}")
                seconds.setdefault((place, "switch"), []).append(size / got / 1e9)
                seconds.setdefault((place, "read alone"), []).append(size / alone / 1e9)
                shares.setdefault(place, []).append(100 * alone / got)
                before = name
    for (place, what), rates in seconds.items():
        print(f"one fits, {place}: {what:10} {spread(rates, 2)} GB/s")
    for place, share in shares.items():
        print(f"one fits, {place}: of the rate of reading alone {spread(share, 0)} %")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--model")
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--folder", default="/var/tmp")
    o = p.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="ashley-switch-", dir=o.folder) as folder:
        files = {"one": os.path.realpath(o.model or os.path.join(folder, "one.gguf")),
                 "other": os.path.join(folder, "other.gguf")}
        if not o.model:
            import peer_model  # needs numpy

            peer_model.write("mistral-7b", "q4_0", files["one"])
        shutil.copyfile(files["one"], files["other"])
        with open(files["other"], "r+b") as f:  # another model to the last byte, so that it has its own pack
            f.seek(-1, os.SEEK_END)
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_END)
            f.write(bytes([byte ^ 1]))
        for path in files.values():  # a page cache full of them is memory pressure, which evicts
            drop(path)
        catalogue, state = os.path.join(folder, "models.json"), os.path.join(folder, "state")
        with open(catalogue, "w", encoding="utf-8") as f:
            json.dump({name: {"path": path, "context": 512} for name, path in files.items()}, f)
        packs_folder = os.path.join(state, "packs")
        os.makedirs(packs_folder)
        env = {"ASHLEY_MODELS_FILE": catalogue, "ASHLEY_STATE_DIR": state, "DEFAULT_MODEL": "one",
               "ASHLEY_KEEP_ALIVE": "-1", "ASHLEY_DISK_BUDGET": str(3 * os.path.getsize(files["one"]))}
        charged, packs = both_fit(env, packs_folder, o.runs)
        print(f"a model: {os.path.getsize(packs['one']) / 1e9:.2f} GB of packed weights, charged with "
              f"{charged / 1e9:.2f} GB")
        one_fits(env, charged, packs, o.runs)


if __name__ == "__main__":
    main()
