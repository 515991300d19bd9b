#!/usr/bin/env python3
"""Perplexity of a trained model in every type of GGUF, by the fast kernels, against a float reference with
the weights that the very file holds. Run by hand: two to three minutes a type, half a minute once OUT has it.

    python3 -m venv venv && venv/bin/pip install torch transformers gguf safetensors
    venv/bin/python tests/golden/perplexity.py LIBGGML_BASE.so OUT [--letters 90000] [--level scalar,avx2,,q8]
                                               [--binary build/ashley] [--tidy] [TYPE or FOLDER...]

The library comes prebuilt in the npm package @node-llama-cpp/linux-x64 3.22.1, and quantises here the
weights of models/SmolLM2-135M-Instruct.Q4_1.gguf, decoded to floats. Types with blocks of 256 columns, which
of this model only the down projections have, take for the other matrices what llama.cpp's quantiser falls
back to; those that want an importance matrix get one of ones. A FOLDER is a checkpoint of
tests/golden/trained.py, whose text this takes too. OUT keeps files (6 GB of all types; --tidy removes each)
and what the reference gave, so that another run needs only the fast kernels.

The reference is LlamaForCausalLM in float32, which trained.py shows to be the float kernels of Ashley to
0.001 %; --level scalar runs those as well (ASHLEY_CPU=scalar, slow), q8 the fastest with keys and values in
8 bits. A difference comes with its standard error, from the differences of the single tokens in pieces of
128 (neighbours share a context): it is shown to be one from about two of them on.

Exits 1 where a difference is over 0.2 % by more than two standard errors, or the tokens are others.
"""
import argparse
import ctypes
import math
import os
import sys

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T

import trained

sys.path.insert(0, os.path.join(trained.HERE, "logits"))
import make as logits  # noqa: E402

BOUND = 0.002
PIECE = 128  # tokens whose mean counts as one sample
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0"}
TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16", "F32", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
         "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_S", "IQ1_M", "TQ1_0",
         "TQ2_0", "MXFP4"]


def encode(lib, w, kind):
    """w [rows, cols] float32 -> type and bytes [rows, bytes of a row]."""
    if w.shape[1] % gguf.GGML_QUANT_SIZES[T[kind]][0]:
        kind = FALLBACK.get(kind, "IQ4_NL")
    if kind in ("F32", "F16", "BF16"):
        return T[kind], gguf.quants.quantize(w, T[kind])
    block, size = gguf.GGML_QUANT_SIZES[T[kind]]
    rows, cols = w.shape
    out = np.empty((rows, cols // block * size), np.uint8)
    w = np.ascontiguousarray(w)
    ones = np.ones(cols, np.float32) if lib.ggml_quantize_requires_imatrix(int(T[kind])) else None
    done = lib.ggml_quantize_chunk(int(T[kind]), w.ctypes.data, out.ctypes.data, 0, rows, cols,
                                   None if ones is None else ones.ctypes.data)
    assert done == out.nbytes, f"{kind}: {done} bytes"
    return T[kind], out


def write_gguf(lib, path, kind):
    reader = gguf.GGUFReader(trained.GGUF)
    w = gguf.GGUFWriter(path, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        w.add_key_value(name, field.contents(), field.types[0], sub_type=field.types[-1] if array else None)
    for t in reader.tensors:
        x = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        if x.ndim == 1:
            w.add_tensor(t.name, x)
            continue
        of, data = encode(lib, x, kind)
        w.add_tensor(t.name, np.ascontiguousarray(data), raw_dtype=of)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def library(path):
    lib = ctypes.CDLL(path)
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                        ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    lib.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    return lib


def tokenizer_of(out):
    from tokenizers import Tokenizer
    trained.write_tokenizer(out)
    return Tokenizer.from_file(os.path.join(out, "tokenizer.json"))


def reference(o, lib, kind, ids):
    """The checkpoint's path, and what each token takes by torch; both from OUT if they are there."""
    path = kind if os.path.isdir(kind) else os.path.join(o.out, f"smollm2-{kind}.gguf")
    saved = os.path.join(o.out, f"{os.path.basename(kind)}-{len(ids)}.npy")
    if not os.path.exists(path):
        write_gguf(lib, path + ".part", kind)
        os.rename(path + ".part", path)
    if os.path.exists(saved):
        return path, np.load(saved)
    if path is kind:
        model = trained.load_oracle(kind)
    else:
        logits.SMOLLM2 = path
        model = logits.load_smollm2()
    nats = trained.oracle_nats(model, ids)
    np.save(saved, nats)
    return path, nats


def difference(want, got):
    """How much more perplexity `got` is than `want`, and the standard error of that."""
    d = got - want
    pieces = np.array([p.mean() for p in np.array_split(d, max(2, len(d) // PIECE))])
    return math.expm1(d.mean()), pieces.std(ddof=1) / math.sqrt(len(pieces))


def measure(o, level, path, text):
    os.environ["ASHLEY_KV"] = "q8" if level == "q8" else "f16"
    said = trained.ashley(o.binary, "" if level == "q8" else level, "perplexity", path, text, "--all",
                          "--ctx", str(trained.WINDOW))
    return np.array(said["nats"])


def row(o, lib, kind, text, ids):
    """A line of the table; false if a difference is too large."""
    path, want = reference(o, lib, kind, ids)
    cells, good = [], True
    for level in o.level.split(","):
        got = measure(o, level, path, text)
        if len(got) != len(want):
            cells.append("other tokens")
            good = False
            continue
        off, error = difference(want, got)
        good &= abs(off) <= BOUND + 2 * error
        cells.append(f"{math.exp(got.mean()):.3f} | {100 * off:+.3f} % | {100 * error:.3f} %")
    print(f"| {os.path.basename(kind)} | {math.exp(want.mean()):.3f} | " + " | ".join(cells) + " |" +
          ("" if good else " <- outside"), flush=True)
    if o.tidy and path is not kind:
        os.remove(path)
    return good


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("library")
    p.add_argument("out")
    p.add_argument("kinds", nargs="*")
    p.add_argument("--letters", type=int, default=trained.TEXT)
    p.add_argument("--level", default="", help="kernels, with commas; nothing is the fastest")
    p.add_argument("--tidy", action="store_true")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--binary", default=os.path.join(trained.ROOT, "build", "ashley"))
    o = p.parse_intermixed_args()
    torch.set_num_threads(o.threads)
    os.makedirs(o.out, exist_ok=True)
    tokenizer = tokenizer_of(o.out)
    with open(trained.write_texts(o.out)[""], encoding="utf-8") as f:
        letters = f.read()[:o.letters]
    text = os.path.join(o.out, "text.txt")
    with open(text, "w", encoding="utf-8", newline="") as f:
        f.write(letters)
    ids = tokenizer.encode(letters).ids
    names = [level or "fastest" for level in o.level.split(",")]
    print(f"{len(ids)} tokens\n\n| type | perplexity, torch |" +
          "".join(f" {n} | difference | standard error |" for n in names) +
          "\n| --- | --- |" + " --- | --- | --- |" * len(names), flush=True)
    lib, bad = library(o.library), 0
    for kind in o.kinds or TYPES:
        try:
            bad += not row(o, lib, kind, text, ids)
        except RuntimeError as e:
            print(f"| {os.path.basename(kind)} | {e} |", flush=True)
            bad += 1
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
