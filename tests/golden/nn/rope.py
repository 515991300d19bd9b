#!/usr/bin/env python3
"""Makes tests/unit/nn/rope_golden.inc: RoPE frequencies by transformers (5.23.0, with torch).

    rope.py > rope_golden.inc

Head dimension 64, base 500000, factor 8, original context 8192. A row is one frequency: plain, linear,
llama3, yarn.
"""
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import torch


def frequencies(kind):
    parameters = {"rope_type": kind, "rope_theta": 500000.0}
    if kind != "default":
        parameters["factor"] = 8.0
    if kind in ("llama3", "yarn"):
        parameters["original_max_position_embeddings"] = 8192
    if kind == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = LlamaConfig(hidden_size=128, num_attention_heads=2, max_position_embeddings=65536,
                         rope_parameters=parameters)
    if kind == "default":
        return 1.0 / (500000.0 ** (torch.arange(0, 64, 2).double() / 64))
    return ROPE_INIT_FUNCTIONS[kind](config, "cpu")[0].double()


columns = [frequencies(kind) for kind in ("default", "linear", "llama3", "yarn")]
for row in zip(*columns):
    print("{" + ", ".join(f"{float(x):.9g}" for x in row) + "},")
