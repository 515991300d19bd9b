#!/usr/bin/env python3
"""Makes the folders of DeepSeek-V2 and V3 here again, safetensors and GGUF (see README.md):
    venv/bin/python tests/golden/hf/make_deepseek.py [folder...]
Made with transformers 5.23.0, torch 2.15.0, safetensors 0.8.0, gguf 0.19.0.

The oracle is transformers, which must agree with the definition written out below from DeepSeek's reports
and configurations. Where it does not do what DeepSeek's own code does (weights of V2 that are normalised
are not scaled), the oracle is that definition.
"""
import json
import math
import os
import sys

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import golden
import gptq

YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 32, "beta_fast": 32,
        "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707}
BASE = {
    "vocab_size": 80, "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 16,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "n_shared_experts": 2,
    "n_routed_experts": 8, "num_experts_per_tok": 3, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "q_lora_rank": None, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 24, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000,
    "max_position_embeddings": 1280, "attention_bias": False, "tie_word_embeddings": False,
    "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16",
}
V2 = BASE | {
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "topk_method": "greedy",
    "scoring_func": "softmax", "norm_topk_prob": False, "routed_scaling_factor": 1.0, "n_group": 1,
    "topk_group": 1, "rope_scaling": YARN,
}
V3 = BASE | {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "topk_method": "noaux_tc",
    "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.5, "n_group": 4,
    "topk_group": 2, "n_routed_experts": 16, "num_experts_per_tok": 4, "n_shared_experts": 1,
    "moe_intermediate_size": 8, "q_lora_rank": 24, "num_nextn_predict_layers": 1,
    "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
}
CONFIGS = {
    "deepseek-v2-lite": V2,
    "deepseek-v2": V2 | {
        "q_lora_rank": 24, "topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3,
        "n_routed_experts": 16, "num_experts_per_tok": 4, "routed_scaling_factor": 3.0,
        "moe_intermediate_size": 8, "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
    # as no published model is, but as its code could be
    "deepseek-v2-norm": V2 | {"norm_topk_prob": True, "routed_scaling_factor": 4.0, "rope_scaling": None},
    "deepseek-v3": V3,
    "deepseek-v3-fp8": V3 | {
        "qk_nope_head_dim": 32, "v_head_dim": 32, "moe_intermediate_size": 40, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
        "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                "weight_block_size": [32, 32]}},
}
CONFIGS["deepseek-gptq"] = V2 | {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 32,
    "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 32, "num_attention_heads": 2,
    "num_key_value_heads": 2, "quantization_config": gptq.quant_settings(gptq.Variant(act=True))}
GGUFS = {"deepseek-gguf-1": ("deepseek-v2-lite", 1), "deepseek-gguf-2": ("deepseek-v2-lite", 2),
         "deepseek-gguf-3": ("deepseek-v2", 3), "deepseek-v3-gguf": ("deepseek-v3", 3)}
TINIEST = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 8, "moe_intermediate_size": 8,
           "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "n_routed_experts": 4,
           "num_experts_per_tok": 2, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4,
           "v_head_dim": 6, "max_position_embeddings": 64}
SEEDS = {"deepseek2-whole": (V2 | TINIEST, 1),  # for the fuzzer of models
         "deepseek2-heads": (V3 | TINIEST | {"n_group": 2, "topk_group": 1, "q_lora_rank": 8}, 3)}


# ------------------------------------------------------------------ weights

def shapes(c):
    """Names and shapes of the model's tensors, layer by layer."""
    hidden, heads, nope, rope = (c[k] for k in ("hidden_size", "num_attention_heads", "qk_nope_head_dim",
                                                "qk_rope_head_dim"))
    v, rank, q_rank = c["v_head_dim"], c["kv_lora_rank"], c["q_lora_rank"]
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)

    def swiglu(prefix, inner):
        yield prefix + "gate_proj.weight", (inner, hidden)
        yield prefix + "up_proj.weight", (inner, hidden)
        yield prefix + "down_proj.weight", (hidden, inner)
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        yield at + "input_layernorm.weight", (hidden,)
        if q_rank:
            yield at + "self_attn.q_a_proj.weight", (q_rank, hidden)
            yield at + "self_attn.q_a_layernorm.weight", (q_rank,)
            yield at + "self_attn.q_b_proj.weight", (heads * (nope + rope), q_rank)
        else:
            yield at + "self_attn.q_proj.weight", (heads * (nope + rope), hidden)
        yield at + "self_attn.kv_a_proj_with_mqa.weight", (rank + rope, hidden)
        yield at + "self_attn.kv_a_layernorm.weight", (rank,)
        yield at + "self_attn.kv_b_proj.weight", (heads * (nope + v), rank)
        yield at + "self_attn.o_proj.weight", (hidden, heads * v)
        yield at + "post_attention_layernorm.weight", (hidden,)
        if i < c["first_k_dense_replace"]:
            yield from swiglu(at + "mlp.", c["intermediate_size"])
            continue
        yield at + "mlp.gate.weight", (c["n_routed_experts"], hidden)
        if c["topk_method"] == "noaux_tc":
            yield at + "mlp.gate.e_score_correction_bias", (c["n_routed_experts"],)
        for e in range(c["n_routed_experts"]):
            yield from swiglu(f"{at}mlp.experts.{e}.", c["moe_intermediate_size"])
        yield from swiglu(at + "mlp.shared_experts.", c["moe_intermediate_size"] * c["n_shared_experts"])
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (c["vocab_size"], hidden)


def weights(name, c):
    """Random ones that bfloat16 and float16 both hold; the biases of the choice leave every biased score
    below zero."""
    rng, w = golden.generator(name), {}
    for key, size in shapes(c):
        if key.endswith("e_score_correction_bias"):
            w[key] = torch.from_numpy((rng.standard_normal(size) * 0.2 - 1.5).astype(np.float32))
            continue
        gain = 4 if "mlp.gate." in key else 1.4 if "self_attn.q" in key or "kv_" in key else 1
        scale = 0.35 if "embed" in key else gain / size[-1] ** 0.5
        a = rng.standard_normal(size) * (0.3 if len(size) == 1 else scale) + (len(size) == 1)
        a = np.where(np.abs(a) < 2.0 ** -14, 0, a)
        w[key] = torch.from_numpy(a.astype(np.float32)).bfloat16().float()
    return w


def is_quantised(key):
    return key.endswith("_proj.weight") or key.endswith("kv_a_proj_with_mqa.weight")


def to_fp8(w, block):
    """(F8_E4M3, scale_inv) of a matrix: each block's largest value becomes 448."""
    rows, cols = (-(-n // block) for n in w.shape)
    scales = torch.empty(rows, cols)
    out = torch.empty(w.shape, dtype=torch.float8_e4m3fn)
    for i in range(rows):
        for j in range(cols):
            at = slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block)
            scales[i, j] = w[at].abs().max() / 448
            out[at] = (w[at] / scales[i, j]).to(torch.float8_e4m3fn)
    return out, scales


def from_fp8(q, scales, block):
    spread = scales.repeat_interleave(block, 0).repeat_interleave(block, 1)
    return q.float() * spread[:q.shape[0], :q.shape[1]]


# ------------------------------------------------------------------ the definition

def rms(x, w, eps=1e-6):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def frequencies(c):
    """Of the rotated pairs, and the factor of attention's scores (YaRN, Peng et al. 2023)."""
    dim, base, s = c["qk_rope_head_dim"], c["rope_theta"], c["rope_scaling"]
    freq = [base ** (-2 * i / dim) for i in range(dim // 2)]
    if not s:
        return torch.tensor(freq), 1.0

    def pair(turns):
        return dim * math.log(s["original_max_position_embeddings"] / (turns * 2 * math.pi)) \
            / (2 * math.log(base))
    low = max(math.floor(pair(s["beta_fast"])), 0)
    high = min(math.ceil(pair(s["beta_slow"])), dim - 1)
    for i, f in enumerate(freq):
        ramp = min(max((i - low) / max(high - low, 0.001), 0), 1)
        freq[i] = f * (1 - ramp) + f / s["factor"] * ramp
    return torch.tensor(freq), (0.1 * s["mscale_all_dim"] * math.log(s["factor"]) + 1) ** 2


def turn(x, freq):
    """x [tokens, ..., dim]: pairs (x0, x1), (x2, x3), ... by the tokens' positions."""
    angle = torch.arange(x.shape[0]).float()[:, None] * freq
    angle = angle.reshape((x.shape[0],) + (1,) * (x.dim() - 2) + (-1,))
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1).flatten(-2)


def gap(c, choice, k):
    """By how much at least the k best of each row beat the others: of softmax's scores in logarithms."""
    best = choice.topk(k + 1, -1)[0]
    if c["scoring_func"] == "softmax":
        best = best.clamp(min=1e-30).log()
    return (best[:, -2] - best[:, -1]).min().item()


def route(c, x, w, at, margins=None):
    """Experts and weights of each token."""
    experts, groups = c["n_routed_experts"], c["n_group"]
    logits = x @ w[at + "gate.weight"].T
    scores = logits.sigmoid() if c["scoring_func"] == "sigmoid" else logits.softmax(-1)
    choice, two = scores, 1
    if c["topk_method"] == "noaux_tc":
        choice, two = scores + w[at + "gate.e_score_correction_bias"], 2
    if c["topk_method"] != "greedy":
        worth = choice.view(-1, groups, experts // groups).topk(two, -1)[0].sum(-1)
        stay = torch.zeros_like(worth).scatter_(1, worth.topk(c["topk_group"], -1)[1], 1).bool()
        choice = choice.masked_fill(~stay.repeat_interleave(experts // groups, -1), -math.inf)
        if margins is not None and c["topk_group"] < groups:
            margins.append(gap(c, worth, c["topk_group"]))
    used = c["num_experts_per_tok"]
    if margins is not None:
        margins.append(gap(c, choice, used))
    ids = choice.topk(used, -1)[1]
    weight = scores.gather(1, ids)
    if c["norm_topk_prob"] and used > 1:
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
        if c["model_type"] == "deepseek_v2":
            return ids, weight
    return ids, weight * c["routed_scaling_factor"]


def definition(c, w, rounded=lambda x, key: x, margins=None):
    """logits_of for golden.write(); rounded: what becomes of the inputs of matrix `key`."""
    heads, nope, rope, v = (c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim",
                                           "v_head_dim"))
    freq, mscale = frequencies(c)

    def apply(x, key):
        return rounded(x, key) @ w[key].T

    def swiglu(x, at):
        up = torch.nn.functional.silu(apply(x, at + "gate_proj.weight")) * apply(x, at + "up_proj.weight")
        return apply(up, at + "down_proj.weight")

    def attention(x, at):
        n = x.shape[0]
        q = apply(rms(apply(x, at + "q_a_proj.weight"), w[at + "q_a_layernorm.weight"]),
                  at + "q_b_proj.weight") if c["q_lora_rank"] else apply(x, at + "q_proj.weight")
        q = q.view(n, heads, nope + rope)
        latent = apply(x, at + "kv_a_proj_with_mqa.weight")
        kv = apply(rms(latent[:, :-rope], w[at + "kv_a_layernorm.weight"]), at + "kv_b_proj.weight")
        kv = kv.view(n, heads, nope + v)
        q = torch.cat([q[..., :nope], turn(q[..., nope:], freq)], -1)
        k = torch.cat([kv[..., :nope], turn(latent[:, -rope:], freq)[:, None].expand(n, heads, rope)], -1)
        scores = torch.einsum("qhd,khd->hqk", q, k) * (mscale * (nope + rope) ** -0.5)
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf).softmax(-1)
        return apply(torch.einsum("hqk,khd->qhd", scores, kv[..., nope:]).flatten(1), at + "o_proj.weight")

    def mixture(x, at):
        ids, weight = route(c, x, w, at, margins)
        out = torch.zeros_like(x)
        for e in range(c["n_routed_experts"]):
            rows, place = (ids == e).nonzero(as_tuple=True)
            out.index_add_(0, rows, swiglu(x[rows], f"{at}experts.{e}.") * weight[rows, place, None])
        return out + swiglu(x, at + "shared_experts.")

    def run(ids):
        x = w["model.embed_tokens.weight"][ids]
        for i in range(c["num_hidden_layers"]):
            at = f"model.layers.{i}."
            x = x + attention(rms(x, w[at + "input_layernorm.weight"]), at + "self_attn.")
            h = rms(x, w[at + "post_attention_layernorm.weight"])
            x = x + (swiglu if i < c["first_k_dense_replace"] else mixture)(h, at + "mlp.")
        return apply(rms(x, w["model.norm.weight"]), "lm_head.weight").double().numpy()
    return run


# ------------------------------------------------------------------ folders

def write_safetensors(folder, c, w, prediction):
    """config.json and the weights in bfloat16 (biases in float32); a prediction layer of NaN, if wanted."""
    golden.write_json(folder, "config.json", {k: v for k, v in c.items() if k != "quantization_config"})
    out = {k: v if k.endswith("bias") else v.bfloat16() for k, v in w.items()}
    if prediction:
        at = f"model.layers.{c['num_hidden_layers']}."
        for key in ("enorm.weight", "hnorm.weight", "input_layernorm.weight", "eh_proj.weight"):
            size = (c["hidden_size"],) + ((2 * c["hidden_size"],) if key == "eh_proj.weight" else ())
            out[at + key] = torch.full(size, math.nan, dtype=torch.bfloat16)
    save_file(out, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def write_fp8(folder, c, w):
    """Two shards; every other scale is in another one than its weight. Returns the weights as they are."""
    golden.write_json(folder, "config.json", c)
    block = c["quantization_config"]["weight_block_size"][0]
    shards, exact, index = ({}, {}), dict(w), {}
    for n, (key, value) in enumerate(w.items()):
        shard = n * 2 // len(w)
        if is_quantised(key):
            q, scales = to_fp8(value, block)
            exact[key] = from_fp8(q, scales, block)
            shards[shard][key] = q
            shards[shard ^ (n & 1)][key + "_scale_inv"] = scales
        else:
            shards[shard][key] = value if key.endswith("bias") else value.bfloat16()
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-00002.safetensors"
        save_file(shard, os.path.join(folder, file), metadata={"format": "pt"})
        index |= {key: file for key in shard}
    golden.write_json(folder, "model.safetensors.index.json",
                      {"metadata": {"total_size": 0}, "weight_map": dict(sorted(index.items()))})
    return exact


def write_gptq(folder, c, w):
    """4 bits in groups of 32, the columns of every matrix in an order of its own."""
    golden.write_json(folder, "config.json", c)
    v, rng = gptq.Variant(act=True, apart=True), golden.generator(os.path.basename(folder))
    out, exact = {}, dict(w)
    for key, value in w.items():
        if not is_quantised(key):
            out[key] = value.half()
            continue
        tensors, dense = gptq.make_matrix(key, value.numpy(), v, rng, {}, False)
        exact[key] = torch.from_numpy(dense)
        out |= {key.replace("weight", part): t for part, t in tensors.items()}
    save_file(out, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    return exact


def transformers_model(c, w):
    """The original implementation with these weights, float32."""
    folder = golden.fresh("tmp-deepseek")
    golden.write_json(folder, "config.json",
                      {k: v for k, v in c.items() if k not in ("quantization_config", "torch_dtype")})
    save_file(w, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    golden.fresh("tmp-deepseek")
    os.rmdir(folder)
    return model.eval()


def clear_ids(name, c, w, run, n):
    """A prompt after which greedy steps are clear, and so is the choice of experts all the way: one that
    rounding may change says nothing about an implementation. The clearest of many."""
    def margin(ids):
        margins = []
        definition(c, w, margins=margins)(ids)
        return min(margins)
    rng = golden.generator(f"deepseek {n} {name}")
    prompts = [[int(i) for i in rng.integers(0, c["vocab_size"], n)] for _ in range(400)]
    best, found = -1, None
    for ids in sorted(prompts, key=margin)[-25:]:
        following, gaps = golden.greedy(run, ids, 8)
        if min(gaps) >= golden.MARGIN and margin(ids + following) > best:
            best, found = margin(ids + following), ids
    print(f"{name}: {n} ids, experts chosen by {best:.2g} or more")
    return found


def noisy(c, w):
    """As a fast CPU computes: activations of quantised matrices in int8, others in bfloat16, the router in
    floats."""
    quantised = "quantization_config" in c

    def rounded(x, key):
        return golden.int8_blocks(x) if quantised and is_quantised(key) else x.bfloat16().float()
    return definition(c, w, rounded)


def make(name):
    c = CONFIGS[name]
    w = weights(name, c)
    folder = golden.fresh(name)
    quantised = "quantization_config" in c
    if quantised:
        w = (write_gptq if name == "deepseek-gptq" else write_fp8)(folder, c, w)
    else:
        write_safetensors(folder, c, w, prediction=name == "deepseek-v3")
    own = definition(c, w)
    run, oracle = own, "DeepSeek's definition"
    if name != "deepseek-v2-norm":
        model = transformers_model(c, w)
        run, oracle = golden.logits_of(model), f"{type(model).__name__} of transformers"
        ids = list(range(80))
        ids = [i % c["vocab_size"] for i in ids]
        a, b = run(ids), own(ids)
        assert np.abs(a - b).max() < 1e-4 * a.std(), f"{name}: {np.abs(a - b).max()} of {a.std()}"
    inputs = [clear_ids(name, c, w, run, n) for n in (12, 40)]
    golden.write(folder, oracle, run, inputs, "quantised" if quantised else "16-bit", noisy(c, w), every=2)


# ------------------------------------------------------------------ GGUF

GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b", "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm", "self_attn.o_proj": "attn_output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}


def gguf_tensors(c, w, generation):
    """(name, array) as llama.cpp's conversion writes them: 1 keeps kv_b whole, 3 cuts it into heads, the
    keys' part transposed; 2 (of ik_llama.cpp) has both, heads on each other in two dims."""
    def half(a):
        return a.numpy().astype(np.float16)
    heads, nope, v = c["num_attention_heads"], c["qk_nope_head_dim"], c["v_head_dim"]
    yield "token_embd.weight", half(w["model.embed_tokens.weight"])
    yield "output.weight", half(w["lm_head.weight"])
    yield "output_norm.weight", w["model.norm.weight"].numpy()
    for i in range(c["num_hidden_layers"]):
        at, to = f"model.layers.{i}.", f"blk.{i}."
        for hf, name in GGUF_NAMES.items():
            a = w.get(f"{at}{hf}.weight")
            if a is not None:
                yield f"{to}{name}.weight", a.numpy() if a.dim() == 1 or hf == "mlp.gate" else half(a)
        kv_b = w[at + "self_attn.kv_b_proj.weight"]
        k_b, v_b = kv_b.view(heads, nope + v, -1).split([nope, v], 1)
        k_b = k_b.transpose(1, 2).contiguous()
        if generation < 3:
            yield f"{to}attn_kv_b.weight", half(kv_b)
        if generation == 2:
            k_b, v_b = k_b.flatten(0, 1), v_b.flatten(0, 1)
        if generation > 1:
            yield f"{to}attn_k_b.weight", half(k_b)
            yield f"{to}attn_v_b.weight", half(v_b.contiguous())
        if f"{at}mlp.experts.0.up_proj.weight" not in w:
            continue
        for part in ("gate", "up", "down"):
            yield f"{to}ffn_{part}_exps.weight", half(torch.stack(
                [w[f"{at}mlp.experts.{e}.{part}_proj.weight"] for e in range(c["n_routed_experts"])]))
        bias = w.get(at + "mlp.gate.e_score_correction_bias")
        if bias is not None:
            yield f"{to}exp_probs_b.bias", bias.numpy()


def write_gguf(path, c, w, generation):
    out = gguf.GGUFWriter(path, "deepseek2")
    rope, k, v = c["qk_rope_head_dim"], c["qk_nope_head_dim"] + c["qk_rope_head_dim"], c["v_head_dim"]
    sigmoid = c["scoring_func"] == "sigmoid"
    out.add_block_count(c["num_hidden_layers"])
    out.add_context_length(c["max_position_embeddings"])
    out.add_embedding_length(c["hidden_size"])
    out.add_feed_forward_length(c["intermediate_size"])
    out.add_head_count(c["num_attention_heads"])
    out.add_rope_freq_base(float(c["rope_theta"]))
    out.add_layer_norm_rms_eps(c["rms_norm_eps"])
    out.add_vocab_size(c["vocab_size"])
    out.add_leading_dense_block_count(c["first_k_dense_replace"])
    if c["q_lora_rank"]:
        out.add_q_lora_rank(c["q_lora_rank"])
    out.add_kv_lora_rank(c["kv_lora_rank"])
    out.add_rope_dimension_count(rope)
    if generation == 3:
        out.add_head_count_kv(1)
        out.add_key_length(c["kv_lora_rank"] + rope)
        out.add_value_length(c["kv_lora_rank"])
        out.add_key_length_mla(k)
        out.add_value_length_mla(v)
    else:
        out.add_head_count_kv(c["num_key_value_heads"])
        out.add_key_length(k)
        out.add_value_length(v)
    out.add_expert_feed_forward_length(c["moe_intermediate_size"])
    out.add_expert_count(c["n_routed_experts"])
    out.add_expert_used_count(c["num_experts_per_tok"])
    out.add_expert_shared_count(c["n_shared_experts"])
    out.add_expert_weights_scale(c["routed_scaling_factor"])
    if generation > 1 or sigmoid:  # the first files say nothing: softmax
        out.add_expert_weights_norm(c["norm_topk_prob"])
        out.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID if sigmoid
                                   else gguf.ExpertGatingFuncType.SOFTMAX)
    if c["n_group"] > 1:
        out.add_uint32("deepseek2.expert_group_count", c["n_group"])
        out.add_uint32("deepseek2.expert_group_used_count", c["topk_group"])
    scaling = c["rope_scaling"]
    out.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    out.add_rope_scaling_factor(float(scaling["factor"]))
    out.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    out.add_rope_scaling_yarn_log_mul(0.1 * scaling["mscale_all_dim"])
    for name, a in gguf_tensors(c, w, generation):
        out.add_tensor(name, np.ascontiguousarray(a))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def make_gguf(name):
    source, generation = GGUFS[name]
    folder = golden.fresh(name)
    write_gguf(os.path.join(folder, "model.gguf"), CONFIGS[source], weights(source, CONFIGS[source]),
               generation)
    golden.same_as(folder, os.path.join(golden.HERE, source), ["golden.json", "golden.u16"])


def make_seed(name):
    c, generation = SEEDS[name]
    path = os.path.join(golden.HERE, "../../../fuzz/corpus/model", name + ".gguf")
    write_gguf(path, c, weights(name, c), generation)


def main(only):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for names, run in ((CONFIGS, make), (GGUFS, make_gguf), (SEEDS, make_seed)):
        for name in names:
            if not only or name in only:
                run(name)


if __name__ == "__main__":
    main(sys.argv[1:])
