#!/usr/bin/env python3
"""A mixture of experts that is larger than the memory it may take: decoding from the pack file, with the
experts that are used most in memory, against what the disk's bandwidth and the hit rate permit.

    bench/experts.py [--model FILE.gguf] [--state DIR] [--times 3] [--tokens 64] [--runs 2]

needs root, for a control group; a --state of one's own keeps the pack file for another time

target: 70 % of that rate, within the limit

Without --model a checkpoint of DeepSeek-V2-Lite's shape is written (9 GB, random weights, numpy); tokens are
drawn almost evenly. The control group allows a --times-th part of the file, page cache and all, and no swap.
Permitted is what the slower of two needs: direct reads of the same pack file (O_DIRECT, large, several in
flight; measured in turn) of the bytes that were read for a token, or the model with all weights in memory.
"""
import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

from cold import read_directly
from common import ASHLEY, MIB, machine, spread

ROOM = 192 * MIB  # of the limit, for all but weights: program, KV of a short context, activations


class Group:
    """A control group with a limit of memory, of either version of cgroups(7)."""

    def __init__(self, limit):
        self.v2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        self.path = f"/sys/fs/cgroup/{'' if self.v2 else 'memory/'}ashley-bench-{os.getpid()}"
        os.mkdir(self.path)
        self.put("memory.max" if self.v2 else "memory.limit_in_bytes", limit)
        self.put("memory.swap.max" if self.v2 else "memory.swappiness", 0)

    def put(self, name, value):
        try:
            with open(os.path.join(self.path, name), "w", encoding="ascii") as f:
                f.write(str(value))
        except FileNotFoundError:
            if "swap" not in name:  # a kernel without swap has no such file
                raise

    def peak(self):
        with open(os.path.join(self.path, "memory.peak" if self.v2 else "memory.max_usage_in_bytes"),
                  encoding="ascii") as f:
            return int(f.read())

    def run(self, command, env):
        join = f'echo $$ > "{self.path}/cgroup.procs" && exec "$@"'
        done = subprocess.run(["sh", "-c", join, "sh", *command], env=env, stdout=subprocess.PIPE, text=True,
                              check=False)
        if done.returncode:
            sys.exit(f"{command[0]} ended with {done.returncode}")
        return done.stdout

    def close(self):
        os.rmdir(self.path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--model")
    p.add_argument("--state")
    p.add_argument("--times", type=float, default=3)
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--runs", type=int, default=2)
    o = p.parse_args()
    print(machine())
    own = tempfile.mkdtemp(prefix="ashley-experts-", dir=os.environ.get("TMPDIR", "/var/tmp"))
    state = o.state or own
    group = None
    try:
        if not o.model:
            import peer_model
            o.model = os.path.join(own, "model.gguf")
            peer_model.write("deepseek-v2-lite", "q4_0", o.model)
        limit = int(os.path.getsize(o.model) / o.times)
        group = Group(limit)
        env = os.environ | {"ASHLEY_STATE_DIR": state}
        command = [ASHLEY, "bench", o.model, "--weights", str(limit - ROOM), "--json", "-q", "-r", "1",
                   "-p", "0", "-n", str(o.tokens)]
        group.run(command, env)  # makes the pack file
        pack = glob.glob(os.path.join(state, "packs", "*.pack"))[0]
        rates, whole, disks, shares, found = [], [], [], [], []
        for _ in range(o.runs):
            free = subprocess.run(command[:3] + command[5:], env=env, stdout=subprocess.PIPE, text=True,
                                  check=True)
            whole.append(json.loads(free.stdout)["results"][0]["median"])
            disk = os.path.getsize(pack) / read_directly(pack)
            got = json.loads(group.run(command, env))["results"][0]
            disks.append(disk / 1e9)
            rates.append(got["median"])
            found.append(100 * got["experts_found"])
            permitted = min(whole[-1], disk / max(got["read_bytes_per_token"], 1))
            shares.append(100 * got["median"] / permitted)
        print(f"{os.path.getsize(pack) / 1e9:.2f} GB of weights, {limit / 1e9:.2f} GB allowed, "
              f"{group.peak() / 1e9:.2f} GB taken at most, page cache and all")
        print(f"direct reads, GB/s                {spread(disks, 2)}")
        print(f"experts that needed no read, %    {spread(found, 0)}")
        print(f"decode {o.tokens}, tokens/s            {spread(rates, 2)}")
        print(f"with all weights in memory        {spread(whole, 2)}")
        print(f"of what is permitted, %           {spread(shares, 0)}")
    finally:
        if group:
            group.close()
        shutil.rmtree(own, ignore_errors=True)


if __name__ == "__main__":
    main()
