#!/usr/bin/env python3
"""Makes the GPTQ folders here again (see README.md):
    venv/bin/python tests/golden/hf/gptq.py [--check] [folder...]

Random weights are rounded to the nearest quant of their group and packed by the formula of AutoGPTQ
(Frantar et al. 2022; AutoGPTQ's nn_modules/qlinear), which the reader of this file can check line by line.
--check also packs each matrix with GPTQModel's TorchLinear, where it takes such a matrix, and compares the
files' words. The oracle is LlamaForCausalLM in float32 with the weights (q - zero) * scale.

Made with transformers 5.23.0, torch 2.15.0, safetensors 0.8.0, gptqmodel 7.7.0.
"""
import dataclasses
import json
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

import golden

SHAPE = dict(vocab_size=64, num_hidden_layers=1, num_key_value_heads=1, head_dim=32, rms_norm_eps=1e-5,
             max_position_embeddings=256, bos_token_id=1, eos_token_id=2)
ATTENTION = [f"model.layers.0.self_attn.{n}_proj" for n in "qkvo"]
MLP = [f"model.layers.0.mlp.{n}_proj" for n in ("gate", "up", "down")]
MIXED = {ATTENTION[0]: (2, 32), MLP[1]: (3, -1), MLP[2]: (8, 48)}


@dataclasses.dataclass
class Variant:
    bits: int = 4
    group: int = 32  # -1: one for all inputs
    hidden: int = 64
    act: bool = False  # act-order: which inputs form a group is a permutation
    sym: bool = True
    v2: bool = False
    place: str = "quantize_config.json"  # or quant_config.json, config.json
    g_idx: str = "written"  # or absent, zero
    scales: torch.dtype = torch.float16
    modules: list = dataclasses.field(default_factory=lambda: ATTENTION + MLP)
    tied: bool = True
    bias: str = ""  # of quantised matrices: zero, real (then the architecture has them)
    apart: bool = False  # every matrix has a permutation of its own, also q, k and v
    zero_zeros: bool = False  # some asymmetric zeros are 0: version 1 stores them by borrowing
    write: str = "model.safetensors"  # or pytorch_model.bin, sharded, another name
    settings: dict = dataclasses.field(default_factory=dict)  # what the settings say otherwise
    mixed: dict = dataclasses.field(default_factory=dict)  # matrix -> (bits, group)


def covering():
    """Every width with every group size; act-order, symmetry and version in all pairs with both."""
    places = ["quantize_config.json", "quant_config.json", "config.json"]
    out = {}
    for b, bits in enumerate((2, 3, 4, 8)):
        for g, group in enumerate((-1, 32, 64, 128)):
            v = Variant(bits, group, 128 if group >= 64 else 96, act=bool((b ^ g) & 1),
                        sym=bool(g & 2) == bool(b & 1), v2=bool((g ^ g >> 1 ^ b >> 1) & 1),
                        place=places[(b + g) % 3])
            v.zero_zeros = not v.sym and bits != 3
            out[f"gptq-{bits}b-{'channel' if group < 0 else f'{group}g'}{'-act' * v.act}"
                f"{'-asym' * (not v.sym)}{'-v2' * v.v2}"] = v
    return out


VARIANTS = covering() | {
    "gptq-old-cuda": Variant(g_idx="absent", scales=torch.float32, bias="zero",
                             write="llama-4bit-32g.safetensors"),
    "gptq-zero-g-idx": Variant(g_idx="zero"),
    "gptq-act-apart": Variant(act=True, apart=True, sym=False),
    "gptq-16g-act": Variant(group=16, act=True),
    "gptq-48g": Variant(group=48, hidden=96, place="config.json"),
    "gptq-64g-uneven": Variant(group=64, hidden=96, bits=3, place="config.json"),
    "gptq-64g-uneven-act": Variant(group=64, hidden=96, act=True),
    "gptq-8b-16g": Variant(bits=8, group=16, sym=False, g_idx="absent"),
    "gptq-attention-only": Variant(act=True, modules=ATTENTION, place="config.json"),
    "gptq-mlp-only": Variant(bits=3, modules=MLP),
    "gptq-lm-head": Variant(tied=False, modules=ATTENTION + MLP + ["lm_head"], settings={"lm_head": True}),
    "gptq-bias": Variant(bias="real", act=True),
    "gptq-bf16-scales": Variant(bits=2, scales=torch.bfloat16),
    "gptq-mixed": Variant(hidden=96, mixed=MIXED, settings={"dynamic": {
        f"+:.*{name.split('.')[-1]}": {"bits": b, "group_size": g} for name, (b, g) in MIXED.items()}}),
    "gptq-bin": Variant(act=True, write="pytorch_model.bin"),
    "gptq-sharded": Variant(act=True, write="sharded"),
}
# The same tensors under other settings: folder -> (folder with the tensors, what the settings say)
LABELS = {
    "gptq-label-v1-data-v2": ("gptq-4b-channel-v2", {"checkpoint_format": "gptq"}),
    "gptq-label-v2-data-v1": ("gptq-zero-g-idx", {"checkpoint_format": "gptq_v2"}),
    "gptq-label-3b-v1-data-v2": ("gptq-3b-64g-act-v2", {"checkpoint_format": "gptq"}),
    "gptq-label-no-act": ("gptq-16g-act", {"desc_act": False}),
    "gptq-label-act": ("gptq-old-cuda", {"desc_act": True, "static_groups": True}),
    "gptq-label-bare": ("gptq-attention-only", {}),
    "gptq-label-synonyms": ("gptq-bf16-scales", {"w_bit": 2, "q_group_size": 32}),
}


# ------------------------------------------------------------------------------------------ the formula

def pack_words(fields, bits):
    """fields [n, m] of `bits` bits -> words u32 [n * bits / 32, m], the first field lowest. For 3 bits a
    field may lie in two words: 32 of them are one number of 96 bits."""
    n, m = fields.shape
    per = 96 if bits == 3 else 32
    group = fields.astype(object).reshape(n * bits // per, per // bits, m)
    number = sum(group[:, j] << (bits * j) for j in range(per // bits))
    words = [(number >> (32 * w)) & 0xffffffff for w in range(per // 32)]
    return np.ascontiguousarray(np.stack(words, 1).reshape(-1, m), np.uint32)


def quantise(w, v, bits, group_of, groups):
    """w [out, in] -> quants [out, in], zeros [out, groups], scales [out, groups] as the file holds them."""
    top = 2 ** bits - 1
    q = np.zeros(w.shape, np.int64)
    zeros = np.zeros((w.shape[0], groups), np.int64)
    scales = np.zeros((w.shape[0], groups), np.float32)
    for g in range(groups):
        part = w[:, group_of == g]
        if v.sym:
            high = np.abs(part).max(1)
            s, z = 2 * high / top, np.full(len(part), 2 ** (bits - 1))
        else:
            low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
            s = (high - low) / top
            z = np.rint(-low / s).astype(np.int64)
            if not v.v2 and not v.zero_zeros:
                z = np.maximum(z, 1)  # version 1 cannot hold 0
        s = torch.from_numpy(np.maximum(s, 1e-4).astype(np.float32)).to(v.scales).float().numpy()
        q[:, group_of == g] = np.clip(np.rint(part / s[:, None]) + z[:, None], 0, top)
        zeros[:, g], scales[:, g] = z, s
    return q, zeros, scales


def stored_zeros(zeros, v, bits):
    """zeros [groups, out] -> words [groups, out * bits / 32]. Version 1 is one less in every field: as
    numbers of 32 bits, so that a 0 borrows from the field above (GPTQModel); without a 0 it is the same."""
    if v.v2:
        return pack_words(zeros.T, bits).T
    if bits == 3:
        assert zeros.min() >= 1
        return pack_words(zeros.T - 1, bits).T
    ones = sum(1 << (bits * j) for j in range(32 // bits))
    return pack_words(zeros.T, bits).T - np.uint32(ones)


def group_map(rng, v, n, size):
    groups = -(-n // size)
    return (np.argsort(rng.permutation(n)) if v.act else np.arange(n)) // size, groups


def make_matrix(name, w, v, rng, maps, check):
    """Tensors of one quantised matrix, and its weights as floats [out, in]."""
    bits, group = v.mixed.get(name, (v.bits, v.group))
    n = w.shape[1]
    size = n if group < 0 else group
    shared = name if v.apart else name.replace("k_proj", "q_proj").replace("v_proj", "q_proj") \
        .replace("up_proj", "gate_proj")  # matrices that saw the same activations have one order
    if (shared, size) not in maps:
        maps[shared, size] = group_map(rng, v, n, size)
    group_of, groups = maps[shared, size]
    q, zeros, scales = quantise(w, v, bits, group_of, groups)
    out = {"qweight": torch.from_numpy(pack_words(q.T, bits).view(np.int32)),
           "qzeros": torch.from_numpy(np.ascontiguousarray(stored_zeros(zeros.T, v, bits)).view(np.int32)),
           "scales": torch.from_numpy(np.ascontiguousarray(scales.T)).to(v.scales)}
    if v.g_idx != "absent":
        out["g_idx"] = torch.from_numpy(group_of.astype(np.int32) * (v.g_idx == "written"))
    if check and v.scales == torch.float16:
        check_matrix(name, out, bits, group, v, q, zeros, scales, group_of)
    return out, (q - zeros[:, group_of]).astype(np.float32) * scales[:, group_of]


def check_matrix(name, tensors, bits, group, v, q, zeros, scales, group_of):
    """GPTQModel's own packing of the same numbers, and its own reading of the words."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    linear = torch.nn.Linear(q.shape[1], q.shape[0], bias=False)
    linear.weight.data = torch.from_numpy(
        (q - zeros[:, group_of]).astype(np.float32) * scales[:, group_of])
    try:
        theirs = TorchLinear(bits=bits, group_size=group, sym=v.sym, desc_act=v.act, in_features=q.shape[1],
                             out_features=q.shape[0], register_buffers=True)
    except Exception as e:
        print(f"    {name}: GPTQModel has no such matrix: {str(e)[:90]}")
        return
    theirs.pack_original(linear, torch.from_numpy(scales), torch.from_numpy(zeros).float(),
                         torch.from_numpy(group_of.astype(np.int32)))
    assert torch.equal(theirs.qweight, tensors["qweight"]), name
    ours = torch.from_numpy(np.ascontiguousarray(pack_words(zeros, bits).T).view(np.int32))
    assert torch.equal(theirs.qzeros, ours), name  # before version 1 subtracts
    if v.v2:
        assert torch.equal(theirs.qzeros, tensors["qzeros"]), name
    theirs.post_init()
    assert torch.allclose(theirs.dequantize_weight().float().T, linear.weight.data, atol=1e-3), name


# ----------------------------------------------------------------------------------------- checkpoints

def quant_settings(v):
    s = {"bits": v.bits, "group_size": v.group, "desc_act": v.act, "sym": v.sym, "static_groups": False,
         "true_sequential": True, "damp_percent": 0.01, "quant_method": "gptq",
         "checkpoint_format": "gptq_v2" if v.v2 else "gptq"}
    if not v.sym and not v.v2:
        s["meta"] = {"quantizer": ["gptqmodel:7.7.0"]}
    return s | v.settings


def write_settings(folder, model, place, settings):
    config = json.loads(model.config.to_json_string())
    config |= {"architectures": ["LlamaForCausalLM"], "dtype": "float16"}
    if place == "config.json":
        config["quantization_config"] = settings
    else:
        golden.write_json(folder, place, settings)
    golden.write_json(folder, "config.json", config)


def write_tensors(folder, v, tensors):
    if v.write == "pytorch_model.bin":
        torch.save(tensors, os.path.join(folder, v.write))
    elif v.write == "sharded":
        index = {"metadata": {}, "weight_map": {}}
        for k in range(2):
            file = f"model-{k + 1:05}-of-00002.safetensors"
            part = {n: t for i, (n, t) in enumerate(tensors.items()) if i % 2 == k}
            save_file(part, os.path.join(folder, file))
            index["weight_map"] |= {n: file for n in part}
        golden.write_json(folder, "model.safetensors.index.json", index)
    else:
        save_file(tensors, os.path.join(folder, v.write), {"format": "pt"})
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o644)


def make_variant(name, v, check):
    rng = golden.generator(name)
    real_bias = v.bias == "real"
    model = LlamaForCausalLM(LlamaConfig(
        **SHAPE, hidden_size=v.hidden, intermediate_size=v.hidden, num_attention_heads=v.hidden // 32,
        tie_word_embeddings=v.tied, attention_bias=real_bias, mlp_bias=real_bias)).float().eval()
    model.config._attn_implementation = "eager"
    tensors, maps, quantised = {}, {}, set(v.modules)
    for key, p in model.named_parameters():
        module, kind = key.rsplit(".", 1)
        size = tuple(p.shape)
        if len(size) == 1:
            a = rng.standard_normal(size) * 0.3 + (kind == "weight")
        else:
            a = rng.standard_normal(size) * (0.18 if "embed" in key or "lm_head" in key else 0.13)
        if v.zero_zeros and module in quantised:
            a[::5] = np.abs(a[::5])  # rows without a negative weight have zero 0
        if kind == "weight" and module in quantised:
            parts, a = make_matrix(module, a.astype(np.float32), v, rng, maps, check)
            tensors |= {f"{module}.{n}": t for n, t in parts.items()}
            if v.bias == "zero":
                tensors[f"{module}.bias"] = torch.zeros(size[0], dtype=torch.float16)
        else:
            half = torch.from_numpy(a.astype(np.float16))
            tensors[key] = half
            a = half.float().numpy()
        p.data = torch.from_numpy(np.ascontiguousarray(a)).float()
    model.tie_weights()
    folder = golden.fresh(name)
    write_settings(folder, model, v.place, quant_settings(v))
    write_tensors(folder, v, tensors)
    logits = golden.logits_of(model)
    inputs = [golden.clear_ids(name, logits, SHAPE["vocab_size"], n, 4) for n in (7, 40)]
    golden.write(folder, "LlamaForCausalLM of transformers, dequantised", logits, inputs, "quantised",
                 golden.noisy(model, lambda n, m: n in quantised), n_greedy=4)


def make_label(name, source, settings):
    folder, other = golden.fresh(name), os.path.join(golden.HERE, source)
    v = VARIANTS[source]
    with open(os.path.join(other, "config.json")) as f:
        config = json.load(f)
    if settings:
        settings = settings if "w_bit" in settings else quant_settings(v) | settings
        config.pop("quantization_config", None)
        golden.write_json(folder, "quantize_config.json", settings)
    else:  # as transformers leaves them when nothing but the width is given
        config["quantization_config"] = {"bits": v.bits, "quant_method": "gptq"}
    golden.write_json(folder, "config.json", config)
    golden.same_as(folder, other, ["golden.json", "golden.u16", v.write])


def main(args):
    check = "--check" in args
    only = [a for a in args if a != "--check"]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name, v in VARIANTS.items():
        if not only or name in only:
            make_variant(name, v, check)
    for name, (source, settings) in LABELS.items():
        if not only or name in only:
            make_label(name, source, settings)


if __name__ == "__main__":
    main(sys.argv[1:])
