#!/usr/bin/env python3
"""Loading from the disk: a checkpoint and its pack file, neither in the page cache, against direct reads of
the same files (O_DIRECT, large, several in flight), in turn.

    bench/cold.py [--model FILE] [--runs 3]      target: at least 90 % of what direct reads reach
                                                 FILE: a GGUF file or a checkpoint's folder

A load is from exec to the 200 of /readyz, so that it holds the start, the tokenizer and the warming up as
well; use a file of gigabytes. Before each run its file is dropped from the page cache (synced first; what
stays is told), which needs no privileges, and nobody else may have it open.
"""
import argparse
import ctypes
import glob
import json
import mmap
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from common import MIB, MODEL, MODEL_ID, Server, machine, spread

READ, IN_FLIGHT = 4 * MIB, 8
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


def cached(fd, size):
    """The share of the file that is in the page cache."""
    at = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    seen = ctypes.create_string_buffer(pages)
    LIBC.mincore(at, size, seen)
    LIBC.munmap(at, size)
    return seen.raw.count(b"\x01") / pages


def drop(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        share = cached(fd, os.path.getsize(path))
        if share > 0.01:
            print(f"{100 * share:.0f} % of {path} stay in the page cache")
    finally:
        os.close(fd)


def read_directly(path):
    """Seconds for all of the file."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    size = os.path.getsize(path)
    buffers = [mmap.mmap(-1, READ) for _ in range(IN_FLIGHT)]

    def stripe(k):
        return sum(os.preadv(fd, [buffers[k]], at) for at in range(k * READ, size, IN_FLIGHT * READ))

    started = time.perf_counter()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        if sum(pool.map(stripe, range(IN_FLIGHT))) != size:
            raise OSError("a direct read was cut short")
    os.close(fd)
    return time.perf_counter() - started


def weights(model):
    """The files that hold a checkpoint's weights."""
    if os.path.isfile(model):
        return [model]
    return sorted(glob.glob(os.path.join(model, "*.safetensors")) or glob.glob(os.path.join(model, "*.bin")))


def load(catalogue, state, packs, wanted=False):
    """Seconds from exec to ready; wanted: stays until the pack file is written."""
    more = {} if packs else {"ASHLEY_DISK_BUDGET": "0"}
    with Server(preload=MODEL_ID, ASHLEY_STATE_DIR=state, ASHLEY_MODELS_FILE=catalogue, **more) as s:
        seconds = s.wait_for("/readyz", pause=0.002)
        while wanted and not glob.glob(os.path.join(state, "packs", "*.pack")):
            time.sleep(0.1)
    return seconds


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--model", default=MODEL)
    p.add_argument("--runs", type=int, default=3)
    o = p.parse_args()
    print(machine())
    state = tempfile.mkdtemp(prefix="ashley-cold-")
    model = os.path.realpath(o.model)
    rates, shares = {}, {}
    try:
        catalogue = os.path.join(state, "models.json")
        with open(catalogue, "w", encoding="utf-8") as f:
            json.dump({MODEL_ID: {"path": model}}, f)
        load(catalogue, state, True, wanted=True)
        pack = glob.glob(os.path.join(state, "packs", "*.pack"))[0]
        for _ in range(o.runs):
            for name, paths in (("checkpoint", weights(model)), ("pack", [pack])):
                for path in paths:
                    drop(path)
                direct = sum(read_directly(path) for path in paths)
                for path in paths:
                    drop(path)
                loaded = load(catalogue, state, name == "pack")
                gb = sum(os.path.getsize(path) for path in paths) / 1e9
                rates.setdefault(f"{name}: direct reads, GB/s", []).append(gb / direct)
                rates.setdefault(f"{name}: load, GB/s", []).append(gb / loaded)
                shares.setdefault(name, []).append(100 * direct / loaded)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    print("median (lowest-highest, runs)")
    for name, v in rates.items():
        print(f"{name:30} {spread(v, 2)}")
    for name, v in shares.items():
        print(f"{name}: load / direct reads, %  {spread(v, 0)}")


if __name__ == "__main__":
    main()
