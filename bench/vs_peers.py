#!/usr/bin/env python3
"""Ashley against other engines on one GGUF file, all in one run, in turn.

    bench/vs_peers.py [--model FILE | --shape SHAPE --format FORMAT] [--peers llama.cpp,openvino]
                      [--runs 5] [--prompt 512] [--decode 128] [--threads 2] [--json]

SHAPE is llama-1b, mistral-7b or llama-13b, FORMAT q4_0, q4_k_m, q8_0 or bf16: a file with random weights
(bench/peer_model.py; needs numpy) is written into a temporary folder and removed.

llama.cpp comes prebuilt in the npm package node-llama-cpp (gpu: false, about 700 MB, most of it GPU builds
that are not used), OpenVINO GenAI in the PyPI package openvino-genai (it wants a byte-level BPE
vocabulary). Each is installed once into ~/.cache/ashley-bench. Figures of one run are only good as ratios:
the machine may be shared. Not with `chrt`: llama.cpp's threads spin at barriers, and at real-time
priority one that waits keeps the other from running. Peak memory is of an answer's process; that of Node
itself is told apart.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from common import ASHLEY, MIB, MODEL, ROOT, machine, need, spread

NODE, NODE_VERSION = "node-llama-cpp", "3.22.1"
OPENVINO, OPENVINO_VERSION = "openvino-genai", "2026.4.1.0"


def installed(name, version, install):
    """The folder of a peer, which install(folder) fills the first time."""
    folder = os.path.join(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"),
                          "ashley-bench", f"{name}-{version}")
    stamp = os.path.join(folder, ".installed")
    if not os.path.exists(stamp):
        print(f"installing {name} {version} into {folder}", file=sys.stderr)
        os.makedirs(folder, exist_ok=True)
        install(folder)
        with open(stamp, "w", encoding="utf-8"):
            pass
    return folder


def install_node(folder):
    with open(os.path.join(folder, "package.json"), "w", encoding="utf-8") as f:
        json.dump({"name": "peer", "private": True}, f)
    subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error",
                    f"{NODE}@{NODE_VERSION}"], cwd=folder, check=True)


def install_openvino(folder):
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([os.path.join(folder, "bin", "pip"), "install", "-q",
                    f"{OPENVINO}=={OPENVINO_VERSION}"], check=True)


def run(argv):
    """(output, peak resident bytes) of one process"""
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    out = p.stdout.read()
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = status
    if status:
        sys.exit(f"{' '.join(argv)} failed with {status}")
    return out, usage.ru_maxrss * 1024


def ashley(o):
    out, _ = run([ASHLEY, "bench", o.model, "-p", str(o.prompt), "-n", str(o.decode), "-r", "1",
                  "--json", "--quiet"])
    speed = {r["test"].rsplit("-", 1)[0]: r["median"] for r in json.loads(out)["results"]
             if "x" not in r["test"]}
    # The bench itself holds buffers to measure the machine with: not what a user's process holds.
    words = "The tide came in and the tide went out. " * (o.prompt // 10)
    _, peak = run([ASHLEY, "run", o.model, words, "-n", str(o.decode), "-t", "0", "--quiet"])
    return {"prefill": speed["prefill"], "decode": speed["decode"], "peak": peak}


def llamacpp(o):
    folder = installed(NODE, NODE_VERSION, install_node)
    out, peak = run(["node", os.path.join(ROOT, "bench", "llamacpp.mjs"), folder, o.model, str(o.prompt),
                     str(o.decode), str(o.threads)])
    out = json.loads(out)
    return {"prefill": out["prefill"], "decode": out["decode"], "peak": peak,
            "peak_without_node": peak - out["rss_before"]}


def openvino(o):
    folder = installed(OPENVINO, OPENVINO_VERSION, install_openvino)
    out, peak = run([os.path.join(folder, "bin", "python"),
                     os.path.join(ROOT, "bench", "openvino_peer.py"), o.model, str(o.prompt),
                     str(o.decode), str(o.threads)])
    return json.loads(out.splitlines()[-1]) | {"peak": peak}


PEERS = {"llama.cpp": llamacpp, "openvino": openvino}


def compare(o):
    head = machine()
    sides = {"ashley": ashley} | {name: PEERS[name] for name in o.peers}
    got = {name: [] for name in sides}
    for _ in range(o.runs):
        for name, side in sides.items():
            got[name].append(side(o))
    if o.json:
        print(json.dumps({"machine": head, "model": o.model} | got))
        return
    print(f"{head}\n{os.path.basename(o.model)}\nmedian (lowest-highest, runs); ratio of each pair of runs\n")
    for title, key, unit, digits in [(f"prefill {o.prompt}, tokens/s", "prefill", 1, 0),
                                     (f"decode {o.decode}, tokens/s", "decode", 1, 1),
                                     ("peak resident, MiB", "peak", MIB, 0)]:
        print(title)
        ours = [r[key] / unit for r in got["ashley"]]
        for name, runs in got.items():
            theirs = [r[key] / unit for r in runs]
            ratios = spread([a / b for a, b in zip(ours, theirs)], 2)
            print(f"  {name:12}{spread(theirs, digits):28}{'' if name == 'ashley' else ratios}")
    for name, runs in got.items():
        for key, title in (("peak_without_node", "peak without Node, MiB"), ("load_s", "loading, s")):
            if key in runs[0]:
                unit = MIB if key.startswith("peak") else 1
                print(f"{name}: {title}: {statistics.median(r[key] for r in runs) / unit:.0f}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--model", default=MODEL)
    p.add_argument("--shape")
    p.add_argument("--format", default="q4_0")
    p.add_argument("--peers", default=",".join(PEERS), type=lambda s: s.split(","))
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--decode", type=int, default=128)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--json", action="store_true")
    o = p.parse_args()
    if unknown := [name for name in o.peers if name not in PEERS]:
        p.error(f"no peer {', '.join(unknown)}; there are: {', '.join(PEERS)}")
    need(MODEL, "run scripts/run --no-serve first")
    need(ASHLEY, "run scripts/run --no-serve first")
    if not o.shape:
        compare(o)
        return
    import peer_model
    if o.shape not in peer_model.SHAPES or o.format not in peer_model.FORMATS:
        p.error(f"shapes are {', '.join(peer_model.SHAPES)}; formats {', '.join(peer_model.FORMATS)}")
    with tempfile.TemporaryDirectory(prefix="ashley-bench-") as folder:
        o.model = os.path.join(folder, f"{o.shape}-{o.format}.gguf")
        peer_model.write(o.shape, o.format, o.model)
        compare(o)


if __name__ == "__main__":
    main()
