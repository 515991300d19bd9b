#!/usr/bin/env python3
"""Ashley against other engines on one checkpoint, all in one run, in turn.

    bench/vs_peers.py [--model FILE.gguf | --shape SHAPE --format FORMAT] [--peers NAME,NAME]
                      [--against FORMAT] [--ik "PATH/llama-bench [-rtr 1]"] [--runs 5] [--budget SECONDS]
                      [--prompt 512] [--decode 128] [--sequences 1,8,16] [--threads 2] [--json]

SHAPE is llama-1b, mistral-7b, llama-13b or deepseek-v2-lite (15.6 billion weights); FORMAT q4_0, q4_k_m,
q8_0, bf16, gptq-4b-128g or gptq-4b-128g-actorder: a checkpoint with random weights (bench/peer_model.py;
needs numpy) is written into a temporary folder and removed. --against adds Ashley itself with the same
shape in another format, as for GPTQ, which is held against Q4_0.

llama.cpp comes prebuilt in the npm package node-llama-cpp (gpu: false, about 700 MB, most of it GPU builds
that are not used), OpenVINO GenAI in the PyPI package openvino-genai (it wants a byte-level BPE
vocabulary), CTranslate2 and GPTQModel (with torch, some GB) in those of their names. Each is installed once
into ~/.cache/ashley-bench. CTranslate2 gets 8-bit weights of the same shape whatever the format, and is
left out by default where the format has 4 bits. ik_llama.cpp is no package: --ik names what you built.

A new round begins as long as --budget has not passed; there is always one. Figures of one run are only good
as ratios: the machine may be shared. Not with `chrt`: llama.cpp's threads spin at barriers, and at real-time
priority one that waits keeps the other from running. Peak memory is of an answer's process; that of Node
itself is told apart, ours is of `ashley run` in the first round.
"""
import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time

import peers
from common import ASHLEY, MIB, MODEL, machine, need, spread

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_hidden_layers": 30,
           "num_key_value_heads": 3, "vocab_size": 49152, "rms_norm_eps": 1e-05, "rope_theta": 100000.0}


def bytes_of(path):
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path))


def sides_of(o, own):
    """{name: function of the round} of all that fit the memory."""
    sides = {"ashley": lambda n: peers.ashley(o, o.model, n == 0)}
    if own:
        sides[f"ashley {o.against}"] = lambda n: peers.ashley(o, own, n == 0)
    known = peers.GPTQ_PEERS if os.path.isdir(o.model) else peers.GGUF_PEERS
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 0.92
    for name in o.peers:
        if peers.MEMORY[name] * bytes_of(o.model) > room:
            print(f"{name}: left out, it takes about {peers.MEMORY[name]} times the file's "
                  f"{bytes_of(o.model) / 1e9:.1f} GB", file=sys.stderr)
        else:
            sides[name] = lambda _, run=known[name]: run(o, o.model)
    return sides


def compare(o, own=None):
    """{side: [a result of each round]}; a peer that fails is left out from then on, Ashley may not."""
    sides = sides_of(o, own)
    got, began = {name: [] for name in sides}, time.monotonic()
    for n in range(o.runs):
        if n and time.monotonic() - began > o.budget:
            break
        for name in list(sides):
            try:
                got[name].append(sides[name](n))
            except peers.Failed as e:
                if name == "ashley":
                    raise
                print(f"{name}: left out: {e}", file=sys.stderr)
                del sides[name]
    return {name: runs for name, runs in got.items() if runs}


def measures(o):
    """(title, key, unit, digits) of what is compared."""
    yield f"prefill {o.prompt}, tokens/s", "prefill", 1, 0
    for n in o.sequences:
        yield f"decode {o.decode}{f', {n} sequences' if n > 1 else ''}, tokens/s", \
            f"decode {n}" if n > 1 else "decode", 1, 1
    yield "peak resident, MiB", "peak", MIB, 0


def show(o, got):
    print("median (lowest-highest, runs); ratio of each pair of runs; share of the limit measured\n")
    for title, key, unit, digits in measures(o):
        print(title)
        ours = [r[key] / unit for r in got["ashley"] if key in r]
        for name, runs in got.items():
            theirs = [r[key] / unit for r in runs if key in r]
            if not theirs:
                continue
            more = "" if name == "ashley" else spread([a / b for a, b in zip(ours, theirs)], 2)
            share = [r[f"share {key}"] for r in runs if f"share {key}" in r]
            if share:
                more += f"  {100 * statistics.median(share):.0f} % of the limit"
            print(f"  {name:13}{spread(theirs, digits):28}{more}")
    for name, runs in got.items():
        for key, title in (("peak_without_node", "peak without Node, MiB"), ("load_s", "loading, s")):
            if key in runs[0]:
                unit = MIB if key.startswith("peak") else 1
                print(f"{name}: {title}: {statistics.median(r[key] for r in runs) / unit:.0f}")


def report(o, own=None):
    head = machine()
    got = compare(o, own)
    if o.json:
        print(json.dumps({"machine": head, "model": o.model} | got))
        return
    print(f"{head}\n{os.path.basename(o.model)}")
    show(o, got)


def default_peers(o):
    if o.shape and o.format.startswith("gptq"):
        return ["gptqmodel"]
    names = ["llama.cpp"] + (["openvino"] if o.shape != "deepseek-v2-lite" else [])
    if (o.format in ("q8_0", "bf16") and o.shape != "deepseek-v2-lite") if o.shape else o.model == MODEL:
        names.append("ctranslate2")
    return names + (["ik"] if o.ik else [])


def options(arguments=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--model", default=MODEL)
    p.add_argument("--shape")
    p.add_argument("--format", default="q4_0")
    p.add_argument("--against")
    p.add_argument("--peers", type=lambda s: [name for name in s.split(",") if name])
    p.add_argument("--ik", default="", type=shlex.split)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--budget", type=float, default=1e9)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--decode", type=int, default=128)
    p.add_argument("--sequences", default="1", type=lambda s: [int(n) for n in s.split(",")])
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--json", action="store_true")
    o = p.parse_args(arguments)
    need(MODEL, "run scripts/run --no-serve first")
    need(ASHLEY, "run scripts/run --no-serve first")
    if o.shape:
        import peer_model  # numpy
        for form in [o.format] + ([o.against] if o.against else []):
            if why := peer_model.why_not(o.shape, form):
                p.error(why)
        o.shape_config = peer_model.config(o.shape)
    elif o.against:
        p.error("--against needs --shape")
    else:
        o.shape_config = SMOLLM2
    if o.sequences[0] != 1:
        p.error("--sequences begins with 1")
    if o.peers is None:
        o.peers = default_peers(o)
    known = peers.GPTQ_PEERS if o.shape and o.format.startswith("gptq") else peers.GGUF_PEERS
    if unknown := [name for name in o.peers if name not in known]:
        p.error(f"no peer {', '.join(unknown)} for such a checkpoint; there are: {', '.join(known)}")
    if "ik" in o.peers and not o.ik:
        p.error("--ik must name ik_llama.cpp's llama-bench")
    if "ctranslate2" in o.peers and not o.shape and o.model != MODEL:
        p.error("ctranslate2 has only the shapes of --shape and of the default model")
    return o


def with_checkpoints(o, do):
    """do(o, path of the other format or None), with the checkpoints there that the options name."""
    with tempfile.TemporaryDirectory(prefix="ashley-bench-") as folder:
        own = None
        if not o.shape:  # what ctranslate2_peer.py writes goes beside the link
            path = os.path.join(folder, os.path.basename(o.model))
            os.symlink(os.path.abspath(o.model), path)
        else:
            import peer_model
            path = os.path.join(folder, f"{o.shape}-{o.format}" + peer_model.ending(o.format))
            peer_model.write(o.shape, o.format, path)
            if o.against:
                own = os.path.join(folder, f"{o.shape}-{o.against}-own" + peer_model.ending(o.against))
                peer_model.write(o.shape, o.against, own)
        o.model = path
        return do(o, own)


if __name__ == "__main__":
    try:
        with_checkpoints(options(), report)
    except peers.Failed as e:
        sys.exit(f"ashley: {e}")
