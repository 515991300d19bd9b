#!/usr/bin/env python3
"""`ashley pull` against curl from one local hub, in turns; and how long the plan of a large tree takes.

    bench/download.py [--size MIB] [--runs N] [--rate MIB] [--link GBIT] [--folder DIR]

rate     the file's bytes over the wall time of the process, hashing and all; curl writes the same bytes
         from the same address into the same folder and proves nothing. Target: 90 % of curl's. The third
         pipes curl through tee into openssl dgst, and so writes and proves the same bytes in one pass, as
         ours does, without ranges or a journal
memory   resident at most, of the process; target 64 MiB
CPU      seconds of it, user and system
list     a tree of DeepSeek-R1's shape (163 shards) asked of the hub, chosen from and compared with an
         empty cache: a pull that is refused for want of disk, before a byte moves; target 1 s

The hub (tests/hub/server.py) runs beside them on the same cores: both sides pay for it. --rate caps each
connection, --link all together, as a network does. The folder's file system counts; default: /dev/shm.
"""
import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from common import ASHLEY, MIB, ROOT, machine, memory, need, spread

sys.path.insert(0, os.path.join(ROOT, "tests", "hub"))
from content import Made  # noqa: E402
from server import File, Hub  # noqa: E402

NAME = "model.safetensors"


class Paced(Made):
    """Bytes that come at most at `rate` a second, by whatever connections."""

    def __init__(self, name, size, rate):
        super().__init__(name, size)
        self.sha256 = Made(name, size).sha256  # without waiting for it
        self.rate, self.lock, self.next = rate, threading.Lock(), 0.0

    def pieces(self, first, end):
        for piece in super().pieces(first, end):
            with self.lock:
                now = time.perf_counter()
                start = max(now, self.next)
                self.next = start + len(piece) / self.rate
            time.sleep(start - now)
            yield piece


def timed(argv, env, status=0):
    """(seconds, CPU seconds, most bytes resident) of a process"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    p = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE)
    most = 0
    while p.poll() is None:
        try:
            most = max(most, memory(p.pid).get("peak", 0))  # not ru_maxrss: that begins with ours
        except OSError:
            break
        time.sleep(0.002)
    errors = p.stderr.read()
    p.wait()
    seconds = time.perf_counter() - began
    if p.returncode != status:
        sys.exit(f"{argv[0]}: exit {p.returncode}: {errors.decode('utf-8', 'replace')}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, most


def pull_environment(hub, cache):
    keep = {k: v for k, v in os.environ.items()
            if not k.startswith(("ASHLEY_", "HF_")) and not k.lower().endswith("_proxy")}
    return keep | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": cache, "HOME": cache}


def compare(options, folder):
    size = options.size * MIB
    file = File(NAME, Paced(NAME, size, options.link * 1e9 / 8) if options.link else Made(NAME, size))
    rows = {"ashley": [], "curl": [], "and sum": []}
    with Hub() as hub:
        hub.repo("bench/one").commit({NAME: file, "config.json": "{}"})
        if options.rate:
            hub.faults.add(side="cdn", method="GET", rate=options.rate * MIB)
        for _ in range(options.runs):
            for who in rows:
                where = os.path.join(folder, who)
                os.makedirs(where)
                env = pull_environment(hub, where)
                to, url = os.path.join(where, NAME), f"{hub.url}/bench/one/resolve/main/{NAME}"
                pipe = 'curl -sSfL "$2" | tee "$1" | openssl dgst -sha256'
                argv = {"ashley": [ASHLEY, "pull", "bench/one", "--quiet"],
                        "curl": ["curl", "-sSfL", "-o", to, url],
                        "and sum": ["sh", "-c", pipe, "sh", to, url]}[who]
                rows[who].append(timed(argv, env))
                shutil.rmtree(where)
    limits = [f", {options.link:g} Gbit/s"] if options.link else []
    limits += [f", {options.rate} MiB/s a connection"] if options.rate else []
    print(f"{size // MIB} MiB{''.join(limits)}")
    for who, got in rows.items():
        rates = [size / MIB / s for s, _, _ in got]
        most = "" if who == "and sum" else f"   resident {max(m for _, _, m in got) / MIB:.1f} MiB"
        print(f"  {who:7} {spread(rates)} MiB/s   CPU {spread([c for _, c, _ in got], 2)} s{most}")
    for who, name in (("curl", "curl"), ("and sum", "curl with openssl")):
        share = [a[1] / b[1] for a, b in zip(rows[who], rows["ashley"])]
        wall = [b[0] / a[0] for a, b in zip(rows["ashley"], rows[who])]
        print(f"  of the rate of {name}, run by run: {spread(wall, 3)}; "
              f"its CPU time over ours: {statistics.median(share):.2f}")


def plan(options, folder):
    """The tree has the shape of deepseek-ai/DeepSeek-R1: 163 shards of 4.3 GB and 11 small files."""
    shard = 4302350824
    names = [f"model-{n:05}-of-000163.safetensors" for n in range(1, 164)]
    files = {n: File(n, Made(n, shard, sha256=f"{i:064x}")) for i, n in enumerate(names)}
    side = ("config.json", "configuration_deepseek.py", "generation_config.json", "tokenizer.json",
            "model.safetensors.index.json", "modeling_deepseek.py", "tokenizer_config.json", "LICENSE",
            "README.md", "figures/benchmark.jpg", ".gitattributes")
    files |= {n: "{}" for n in side}
    times = []
    for page in (1000, 50):
        with Hub(page=page) as hub:
            hub.repo("bench/r1").commit(files)
            for _ in range(options.runs):
                times.append(timed([ASHLEY, "pull", "bench/r1", "--quiet", "--yes"],
                                   pull_environment(hub, os.path.join(folder, "none")), status=3))
        got = times[-options.runs:]
        print(f"list of {len(files)} files in pages of {page}: {spread([1000 * s for s, _, _ in got])} ms, "
              f"CPU {spread([1000 * c for _, c, _ in got])} ms")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", type=int, default=1024, metavar="MIB")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--rate", type=int, default=0, metavar="MIB",
                   help="a second, of each connection; 0: as it comes")
    p.add_argument("--link", type=float, default=0, metavar="GBIT",
                   help="a second, of all connections together; 0: as it comes")
    p.add_argument("--folder", default="/dev/shm")
    options = p.parse_args()
    need(ASHLEY, "run scripts/run --no-serve first")
    print(machine())
    with tempfile.TemporaryDirectory(prefix="ashley-bench-", dir=options.folder) as folder:
        compare(options, folder)
        plan(options, folder)


if __name__ == "__main__":
    main()
