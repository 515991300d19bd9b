#!/usr/bin/env python3
"""The comparison of docs/SPEED.md: every shape in every format against every peer, one cell after the other.

    bench/table.py FOLDER [CELL...] [--budget 240] [--runs 3] [--ik "PATH/llama-bench"] [--again]
    bench/table.py FOLDER --print
    bench/table.py --list

A CELL is SHAPE:FORMAT as bench/vs_peers.py has them (needs numpy), or smollm2:q4_1, the default model. Each
cell's result is kept as FOLDER/SHAPE:FORMAT.json, written when it is whole: what is there is not measured
again without --again, so that the table can be made in pieces. Checkpoints of some GB are written for a
cell and removed after it. A cell begins no new round when --budget seconds have passed; one round of a 7B
takes some two minutes. At the end, or with --print alone, the table in Markdown: medians (lowest-highest,
runs), and for Ashley the share of the limit that the same runs measured. Cells stand in the order of their
worth: what time is left out is the end of the list.
"""
import argparse
import json
import os
import statistics
import sys

import peers
import vs_peers
from common import MIB, machine

# what vs_peers is asked for: decoded tokens, sequences, other format
SMALL, BIG = ["--decode", "64", "--sequences", "1,8,16"], ["--decode", "48"]
GPTQ = ["--against", "q4_0"]
CELLS = {
    "smollm2:q4_1": ["--decode", "128", "--sequences", "1,8,16"],
    "llama-1b:q4_0": SMALL,
    "mistral-7b:q4_0": BIG,
    "llama-1b:gptq-4b-128g-actorder": SMALL + GPTQ,
    "llama-1b:q4_k_m": SMALL,
    "llama-1b:bf16": SMALL,
    "llama-1b:q8_0": SMALL,
    "mistral-7b:gptq-4b-128g-actorder": BIG + GPTQ + ["--peers", ""],
    "mistral-7b:q4_k_m": BIG,
    "deepseek-v2-lite:q4_0": BIG,
    "llama-13b:q4_0": BIG,
    "mistral-7b:q8_0": BIG,
    "llama-1b:gptq-4b-128g": SMALL + GPTQ + ["--peers", ""],
    "llama-13b:gptq-4b-128g-actorder": BIG + GPTQ + ["--peers", ""],
    "llama-13b:q4_k_m": BIG,
    "mistral-7b:gptq-4b-128g": BIG + GPTQ + ["--peers", ""],
    "mistral-7b:bf16": BIG + ["--peers", "llama.cpp"],
    "llama-13b:gptq-4b-128g": BIG + GPTQ + ["--peers", ""],
    "llama-13b:q8_0": BIG + ["--peers", "llama.cpp"],
}
ENGINES = ["ashley", "llama.cpp", "openvino", "ctranslate2", "ik", "gptqmodel", "ashley q4_0"]
NAMES = {"ashley": "Ashley", "openvino": "OpenVINO", "ctranslate2": "CTranslate2, 8 bits",
         "ik": "ik_llama.cpp", "gptqmodel": "GPTQModel", "ashley q4_0": "Ashley, Q4_0"}


def path_of(folder, cell):
    return os.path.join(folder, cell + ".json")


def measure(folder, cell, a):
    arguments = ["--runs", str(a.runs), "--budget", str(a.budget)] + CELLS[cell]
    shape, form = cell.split(":")
    if shape != "smollm2":
        arguments += ["--shape", shape, "--format", form]
    if a.ik and not form.startswith("gptq"):
        arguments += ["--ik", a.ik]
    o = vs_peers.options(arguments)
    if a.ik and "--peers" in arguments and not form.startswith("gptq"):
        o.peers.append("ik")
    head = machine()
    got = vs_peers.with_checkpoints(o, vs_peers.compare)
    value = {"machine": head, "prompt": o.prompt, "decode": o.decode, "sequences": o.sequences, "sides": got}
    with open(path_of(folder, cell) + ".part", "w", encoding="utf-8") as f:
        json.dump(value, f)
    os.rename(path_of(folder, cell) + ".part", path_of(folder, cell))


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def entry(runs, key, unit):
    values = [r[key] / unit for r in runs if key in r]
    if not values:
        return ""
    text = f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))}, {len(values)})"
    share = [r[f"share {key}"] for r in runs if r.get(f"share {key}")]
    return text + (f", {100 * statistics.median(share):.0f} %" if share else "")


def rows_of(cell, value):
    """(name, key, unit) of a cell's rows."""
    shape, form = cell.split(":")
    name = f"{shape} {form}"
    yield f"{name}, prefill {value['prompt']}, tokens/s", "prefill", 1
    for n in value["sequences"]:
        together = f" x {n}" if n > 1 else ""
        yield f"{name}, decode {value['decode']}{together}, tokens/s", f"decode {n}" if n > 1 else "decode", 1
    yield f"{name}, peak resident, MiB", "peak", MIB


def print_table(folder):
    values = {}
    for cell in CELLS:
        if os.path.exists(path_of(folder, cell)):
            with open(path_of(folder, cell), encoding="utf-8") as f:
                values[cell] = json.load(f)
    if not values:
        sys.exit(f"{folder} holds no cell yet")
    used = [e for e in ENGINES if any(e in v["sides"] for v in values.values())]
    for head in dict.fromkeys(v["machine"] for v in values.values()):
        print(head)
    print("\n| | " + " | ".join(NAMES.get(e, e) for e in used) + " | to the fastest other |")
    print("| --- |" + " --- |" * (len(used) + 1))
    for cell, value in values.items():
        for name, key, unit in rows_of(cell, value):
            if not any(key in r for runs in value["sides"].values() for r in runs):
                continue
            print(f"| {name} | " + " | ".join(entry(value["sides"].get(e, []), key, unit) for e in used) +
                  f" | {ratio(value['sides'], key)} |")


def ratio(sides, key):
    """Of medians: ours against the best of the peers; our own other format is none."""
    medians = {name: statistics.median(r[key] for r in runs if key in r) for name, runs in sides.items()
               if any(key in r for r in runs) and name != "ashley q4_0"}
    ours = medians.pop("ashley", None)
    if not ours or not medians:
        return ""
    return f"{ours / (min if key == 'peak' else max)(medians.values()):.2f}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("folder", nargs="?")
    p.add_argument("cells", nargs="*", metavar="CELL")
    p.add_argument("--budget", type=float, default=240)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--ik", default="")
    p.add_argument("--again", action="store_true")
    p.add_argument("--print", action="store_true", dest="only_print")
    p.add_argument("--list", action="store_true")
    a = p.parse_intermixed_args()
    if a.list:
        print("\n".join(CELLS))
        return
    if not a.folder:
        p.error("needs FOLDER")
    if unknown := [c for c in a.cells if c not in CELLS]:
        p.error(f"no cell {', '.join(unknown)}; --list tells them")
    os.makedirs(a.folder, exist_ok=True)
    for cell in [] if a.only_print else a.cells or CELLS:
        if a.again or not os.path.exists(path_of(a.folder, cell)):
            print(f"{cell} ...", file=sys.stderr, flush=True)
            try:
                measure(a.folder, cell, a)
            except peers.Failed as e:
                print(f"{cell}: ashley: {e}", file=sys.stderr)
    print_table(a.folder)


if __name__ == "__main__":
    main()
