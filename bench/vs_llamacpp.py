#!/usr/bin/env python3
"""Ashley against llama.cpp on SmolLM2-135M Q4_1, both in one run, alternated.

    bench/vs_llamacpp.py [--runs 5] [--prompt 512] [--decode 128] [--threads 2] [--json]

llama.cpp comes prebuilt in the npm package node-llama-cpp (gpu: false), installed once into
~/.cache/ashley-bench (about 700 MB, most of it GPU builds that are not used). Figures of one run are
only good as ratios: the machine may be shared. The resident size of the llama.cpp process holds
Node itself, which is told apart.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

from common import ASHLEY, MIB, MODEL, ROOT, machine, need, spread

PACKAGE, VERSION = "node-llama-cpp", "3.22.1"


def peer_folder():
    folder = os.path.join(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"),
                          "ashley-bench", f"{PACKAGE}-{VERSION}")
    stamp = os.path.join(folder, ".installed")
    if not os.path.exists(stamp):
        print(f"installing {PACKAGE} {VERSION} from npm into {folder}", file=sys.stderr)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "package.json"), "w", encoding="utf-8") as f:
            json.dump({"name": "peer", "private": True}, f)
        subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund",
                        "--loglevel=error", f"{PACKAGE}@{VERSION}"], cwd=folder, check=True)
        with open(stamp, "w", encoding="utf-8"):
            pass
    return folder


def run(argv):
    """(output, peak resident bytes) of one process"""
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    out = p.stdout.read()
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = status
    if status:
        sys.exit(f"{' '.join(argv)} failed with {status}")
    return json.loads(out), usage.ru_maxrss * 1024


def ours(o):
    out, _ = run([ASHLEY, "bench", MODEL, "-p", str(o.prompt), "-n", str(o.decode), "-r", "1",
                     "--json", "--quiet"])
    speed = {r["test"].rsplit("-", 1)[0]: r["median"] for r in out["results"] if "x" not in r["test"]}
    return {"prefill": speed["prefill"], "decode": speed["decode"], "peak": memory_of_an_answer(o)}


def memory_of_an_answer(o):
    """The bench itself holds buffers to measure the machine with: not what a user's process holds."""
    words = "The tide came in and the tide went out. " * (o.prompt // 10)
    p = subprocess.Popen([ASHLEY, "run", MODEL, words, "-n", str(o.decode), "-t", "0", "--quiet"],
                         stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = status
    if status:
        sys.exit(f"{ASHLEY} run failed with {status}")
    return usage.ru_maxrss * 1024


def theirs(o, folder):
    out, peak = run(["node", os.path.join(ROOT, "bench", "llamacpp.mjs"), folder, MODEL, str(o.prompt),
                     str(o.decode), str(o.threads)])
    return {"prefill": out["prefill"], "decode": out["decode"], "decode_after": out["decode_after"],
            "peak": peak, "peak_without_node": peak - out["rss_before"]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--decode", type=int, default=128)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--json", action="store_true")
    o = p.parse_args()
    need(MODEL, "run scripts/run --no-serve first")
    need(ASHLEY, "run scripts/run --no-serve first")
    folder = peer_folder()
    head = machine()
    a, b = [], []
    for _ in range(o.runs):
        a.append(ours(o))
        b.append(theirs(o, folder))
    rows = []
    for name, key, peer in [(f"prefill {o.prompt}, tokens/s", "prefill", "prefill"),
                            (f"decode {o.decode}, tokens/s", "decode", "decode")]:
        x, y = [r[key] for r in a], [r[peer] for r in b]
        ratios = [i / j for i, j in zip(x, y)]
        rows.append((name, x, y, ratios))
    if o.json:
        print(json.dumps({"machine": head, "ashley": a, "llama.cpp": b,
                          "ratio": {n.split()[0]: statistics.median(r) for n, _, _, r in rows}}))
        return
    print(f"{head}\nmedian (lowest-highest, runs); ratio of each pair of runs\n")
    print(f"{'':24}{'ashley':26}{'llama.cpp':26}ratio")
    for name, x, y, ratios in rows:
        print(f"{name:24}{spread(x):26}{spread(y):26}{spread(ratios, 2)}")
    print(f"{'peak resident, MiB':24}{spread([r['peak'] / MIB for r in a], 0):26}"
          f"{spread([r['peak'] / MIB for r in b], 0):26}"
          f"(without Node: {spread([r['peak_without_node'] / MIB for r in b], 0)})")
    after = [r["decode_after"] for r in b]
    print(f"\nllama.cpp's decode right after the prompt of {o.prompt}: {spread(after)} tokens/s")


if __name__ == "__main__":
    main()
