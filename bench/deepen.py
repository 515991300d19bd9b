#!/usr/bin/env python3
"""Writes a Llama GGUF file anew with more layers that change nothing, or with fewer.

    bench/deepen.py IN.gguf OUT.gguf [--layers 240] [--drop 3,17]

A layer that is added is a copy of another, of which what goes back into the residual stream (attn_output,
ffn_down) is zero: it takes the time of a layer, and the logits stay but for rounding. So IN is a draft model
for OUT that is as good as one can be, at a fraction of the time; and what --drop leaves is one that is
sometimes right. For bench/draft.c and bench/prediction.py --draft.
"""
import argparse
import re
import struct
import sys

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of GGUF's types of values
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 30: (1, 2),
          12: (256, 144), 13: (256, 176), 14: (256, 210)}
ALIGN = 32


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        v = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return v[0]

    def string(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8", "replace")

    def skip(self, kind):
        if kind == 8:
            self.string()
        elif kind == 9:
            inner, n = self.take("I"), self.take("Q")
            for _ in range(n if inner in (8, 9) else 0):
                self.skip(inner)
            self.at += SIZES.get(inner, 0) * n
        else:
            self.at += SIZES[kind]


def read(data):
    """(keys as (name, bytes from its type on), tensors as name -> (dims, type, bytes))"""
    r = Reader(data)
    if data[:4] != b"GGUF":
        sys.exit("not a GGUF file")
    r.at = 8
    n_tensors, n_keys = r.take("Q"), r.take("Q")
    keys, infos, tensors = [], [], {}
    for _ in range(n_keys):
        name, begin = r.string(), r.at
        r.skip(r.take("I"))
        keys.append((name, data[begin:r.at]))
    for _ in range(n_tensors):
        name = r.string()
        dims = [r.take("Q") for _ in range(r.take("I"))]
        infos.append((name, dims, r.take("I"), r.take("Q")))
    base = (r.at + ALIGN - 1) // ALIGN * ALIGN
    for name, dims, kind, offset in infos:
        if kind not in BLOCKS:
            sys.exit(f"{name} has the GGUF type {kind}, which is not written anew here")
        count = 1
        for d in dims:
            count *= d
        size = count // BLOCKS[kind][0] * BLOCKS[kind][1]
        tensors[name] = (dims, kind, data[base + offset:base + offset + size])
    return keys, tensors


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def write(path, keys, tensors):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(text(name) + value for name, value in keys)
    offset = 0
    for name, (dims, kind, data) in tensors.items():
        head += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        offset += (len(data) + ALIGN - 1) // ALIGN * ALIGN
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % ALIGN))
        for _, _, data in tensors.values():
            f.write(data + bytes(-len(data) % ALIGN))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("source")
    p.add_argument("out")
    p.add_argument("--layers", type=int, default=0)
    p.add_argument("--drop", default="")
    o = p.parse_args()
    with open(o.source, "rb") as f:
        keys, tensors = read(f.read())
    layers, rest = {}, {}
    for name, t in tensors.items():
        m = re.fullmatch(r"blk\.(\d+)\.(.*)", name)
        if m:
            layers.setdefault(int(m[1]), {})[m[2]] = t
        else:
            rest[name] = t
    drop = {int(i) for i in o.drop.split(",") if i}
    kept = [layers[i] for i in sorted(layers) if i not in drop]
    for i in range(o.layers - len(kept)):
        dead = dict(kept[i % len(layers)])
        for part in ("attn_output.weight", "ffn_down.weight"):
            dims, kind, data = dead[part]
            dead[part] = (dims, kind, bytes(len(data)))
        kept.append(dead)
    for i, layer in enumerate(kept):
        rest |= {f"blk.{i}.{part}": t for part, t in layer.items()}
    keys = [(k, struct.pack("<II", 4, len(kept)) if k.endswith(".block_count") else v) for k, v in keys]
    write(o.out, keys, rest)


if __name__ == "__main__":
    main()
