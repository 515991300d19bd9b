#!/usr/bin/env python3
"""Makes the small checkpoints of this folder with the formats' own writers, and what is in them.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch==2.15.0 safetensors==0.8.0 numpy
    /tmp/venv/bin/python make.py

    types.safetensors      every dtype that both torch and the format know, ranks 0 to 4, an empty tensor
    sharded/               two shards and their index, as transformers writes them, with its 6-digit totals
    views.bin              torch.save: shared storages, transposed, sliced, strided and expanded views,
                           parameters, values that are no tensors
    views-legacy.bin       the same in the form of before 1.6
    types.bin              torch.save: every dtype, FP8 too
    wrapped.pt             {"epoch": 3, "state_dict": {...}, "optimizer": {...}}
    bin-sharded/           two .bin shards and their index
    golden.json            for each file: name -> [dtype, shape, strided, data as hex, row-major]

All but views-legacy.bin comes out the same at each run: that form names storages by their addresses.
"""
import json
import os
import shutil

import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
         torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
         torch.bool: "BOOL", torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64",
         torch.complex64: "C64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
         torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
         torch.float8_e8m0fnu: "F8_E8M0"}
GOLDEN = {}


def at(*parts):
    return os.path.join(HERE, *parts)


def numbers(n, dtype=torch.float32):
    bits = (torch.arange(n * 8, dtype=torch.int64) * 37 + 11) % 251
    if dtype == torch.bool:
        return bits[:n] % 2 == 0
    if dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64):
        return (bits[:n].to(torch.float32) / 8 - 15).to(dtype)
    size = torch.empty(0, dtype=dtype).element_size()
    return bits[:n * size].to(torch.uint8).view(dtype)


def describe(t):
    t = t.detach()
    raw = t.contiguous().reshape(-1).view(torch.uint8) if t.numel() else torch.empty(0, dtype=torch.uint8)
    dims = [d for d in t.shape]
    strided = False
    want = 1
    for d, s in reversed(list(zip(t.shape, t.stride()))):
        strided |= d > 1 and s != want
        want *= d
    return [NAMES[t.dtype], dims or [1], bool(strided and t.numel()), bytes(raw.tolist()).hex()]


def note(name, tensors):
    GOLDEN[name] = {k: describe(v) for k, v in tensors.items() if isinstance(v, torch.Tensor)}


def all_types():
    out = {"t." + v: numbers(6, k).reshape(2, 3) for k, v in NAMES.items()}
    out.update({"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "rank3": numbers(8).reshape(2, 2, 2),
                "rank4": numbers(8).reshape(1, 2, 2, 2), "odd": numbers(3, torch.uint8),
                "odd.after": numbers(2, torch.float16), "nam\u00e9.\u4f60": numbers(2)})
    return out


def views():
    base = numbers(24)
    half = numbers(12, torch.bfloat16).reshape(3, 4)
    out = {"base": base.reshape(4, 6), "tied": base.reshape(4, 6), "tail": base[18:],
           "transposed": base.reshape(4, 6).t(), "sliced": base.reshape(4, 6)[:, 1:4],
           "every.other": base[::2], "permuted": base.reshape(2, 3, 4).permute(2, 0, 1),
           "expanded": base[:4].reshape(1, 4).expand(3, 4), "column": base.reshape(4, 6)[:, 2],
           "bf16.t": half.t(), "bf16": half, "one.row": half[1:2], "scalar": torch.tensor(7),
           "empty": torch.zeros(3, 0), "parameter": torch.nn.Parameter(numbers(4)),
           "buffer": torch.nn.Parameter(numbers(2, torch.uint8), requires_grad=False)}
    return out


def shards(folder, parts, write, pattern, index):
    shutil.rmtree(at(folder), ignore_errors=True)
    os.makedirs(at(folder))
    weight_map = {}
    for i, tensors in enumerate(parts):
        name = pattern % (i + 1, len(parts))
        write(tensors, at(folder, name))
        weight_map.update({k: name for k in tensors})
    with open(at(folder, index), "w") as f:
        json.dump({"metadata": {"total_size": 1}, "weight_map": weight_map}, f, indent=2)
    with open(at(folder, "config.json"), "w") as f:
        json.dump({"model_type": "llama"}, f)
    note(folder, {k: v for tensors in parts for k, v in tensors.items()})


def main():
    torch.manual_seed(1)
    types = all_types()
    save_file(types, at("types.safetensors"), metadata={"format": "pt", "note": "\u201cquoted\u201d\n"})
    note("types.safetensors", types)
    torch.save(types, at("types.bin"))
    note("types.bin", types)
    v = views()
    mixed = dict(v, step=3, none=None, ratio=0.5, flag=True, big=2 ** 70, neg=-7, words=["a", {"b": (1, 2)}],
                 shape=v["base"].shape)
    torch.save(mixed, at("views.bin"))
    torch.save(mixed, at("views-legacy.bin"), _use_new_zipfile_serialization=False)
    for name in ("views.bin", "views-legacy.bin"):
        back = torch.load(at(name), weights_only=True)
        assert all(torch.equal(back[k], t) for k, t in v.items()), name
        note(name, v)
    layer = torch.nn.Linear(3, 2)
    layer.weight.data, layer.bias.data = numbers(6).reshape(2, 3), numbers(2)
    adam = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    adam.step()
    layer.weight.data, layer.bias.data = numbers(6).reshape(2, 3), numbers(2)
    torch.save({"epoch": 3, "state_dict": layer.state_dict(), "optimizer": adam.state_dict()},
               at("wrapped.pt"))
    note("wrapped.pt", layer.state_dict())
    parts = [{"model.b": numbers(6).reshape(3, 2), "model.a": numbers(4, torch.float16)},
             {"lm_head.weight": numbers(8, torch.bfloat16).reshape(2, 4)}]
    shards("sharded", parts, save_file, "model-%05d-of-%06d.safetensors", "model.safetensors.index.json")
    shards("bin-sharded", parts, torch.save, "pytorch_model-%05d-of-%05d.bin", "pytorch_model.bin.index.json")
    with open(at("golden.json"), "w") as f:
        json.dump(GOLDEN, f, indent=0, ensure_ascii=False)
        f.write("\n")


if __name__ == "__main__":
    main()
