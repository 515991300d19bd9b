#!/usr/bin/env python3
"""Makes vectors.txt and fp8.txt: small GPTQ matrices packed and read back by GPTQModel, and every E4M3 byte
as torch reads it.

    make.py FOLDER

Needs gptqmodel 7.7 and torch. A line of vectors.txt is one matrix of [out 32, in 64]: bits, 1 or 2 for the
version of the zeros, groups, then in hexadecimal, little endian: qweight, qzeros, scales (half floats),
g_idx, W as half floats by the module's own dequantisation (which rounds each product of a small integer
and a half float once). fp8.txt has the bits of 256 floats, a line each.
"""
import pathlib
import sys

import torch
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.quantization.config import QuantizeConfig
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

IN, OUT = 64, 32


def hexed(t):
    return t.contiguous().numpy().tobytes().hex()


def case(bits, version, sym, act_order, groups, seed):
    g = torch.Generator().manual_seed(seed)
    size, top = IN // groups, 2**bits - 1
    g_idx = torch.arange(IN, dtype=torch.int32) // size
    if act_order:
        g_idx = g_idx[torch.randperm(IN, generator=g)]
    scales = (torch.rand(OUT, groups, generator=g) * 0.02 + 0.001).half().float()
    zeros = torch.full((OUT, groups), 2.0 ** (bits - 1))
    if not sym:
        zeros = torch.randint(0, top + 1, (OUT, groups), generator=g).float()
    q = torch.randint(0, top + 1, (OUT, IN), generator=g)
    linear = torch.nn.Linear(IN, OUT, bias=False)
    at = g_idx.long()
    linear.weight.data = (q - zeros[:, at]) * scales[:, at]
    settings = {"bits": bits, "group_size": size, "sym": sym, "desc_act": act_order}
    m = TorchLinear(in_features=IN, out_features=OUT, **settings)
    m.pack_original(linear, scales, zeros, g_idx)
    m.post_init()
    w = m.dequantize_weight().T.half()
    if version == 1:
        convert_gptq_v2_to_v1_format_module(m, QuantizeConfig(**settings))
    tensors = (m.qweight, m.qzeros, m.scales, m.g_idx.int(), w)
    return " ".join([str(bits), str(version), str(groups)] + [hexed(t) for t in tensors])


def main():
    to = pathlib.Path(sys.argv[1])
    lines, seed = [], 0
    for bits in (2, 3, 4, 8):
        for settings in ((1, True, False, 2), (1, False, True, 4), (2, False, True, 2)):
            seed += 1
            lines.append(case(bits, *settings, seed))
    (to / "vectors.txt").write_text("\n".join(lines) + "\n")
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().view(torch.int32)
    (to / "fp8.txt").write_text("".join(f"{v & 0xffffffff:08x}\n" for v in values.tolist()))


main()
