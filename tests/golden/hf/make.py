#!/usr/bin/env python3
"""Makes the folders of Llama, Mistral, Qwen2 and Qwen3 here again, with transformers (see README.md):
    venv/bin/python tests/golden/hf/make.py [folder...]
Made with transformers 5.23.0, torch 2.15.0, safetensors 0.8.0, gguf 0.19.0. Without names all are made, in
order: some link to weights or golden logits of an earlier one.
"""
import copy
import json
import os
import sys
from collections import OrderedDict

import gguf
import numpy as np
import torch
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

import golden

BASE = dict(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, rms_norm_eps=1e-5,
            max_position_embeddings=256, bos_token_id=1, eos_token_id=2)
SMALL = BASE | dict(head_dim=8, intermediate_size=48)  # head_dim is hidden_size / heads
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}


def randomise(model, name, half):
    """Weights of its own for every name: large enough for attention to be far from uniform. half: values
    that bfloat16 and float16 both hold, so that one model may be written in every type."""
    rng = golden.generator(name)
    for key, p in model.named_parameters():
        size = tuple(p.shape)
        if len(size) == 1:
            a = rng.standard_normal(size) * 0.3 + (0 if key.endswith(".bias") else 1)
        elif "embed" in key or "lm_head" in key:
            a = rng.standard_normal(size) * 0.35
        else:
            a = rng.standard_normal(size) * (1.4 / size[1] ** 0.5)
        if half:  # no subnormal of float16
            a = np.where(np.abs(a) < 2.0 ** -14, 0, a)
        w = torch.from_numpy(a.astype(np.float32))
        p.data = w.bfloat16().float() if half else w


def build(model_class, config_class, settings, weights, half=True):
    config = config_class(**settings)
    config._attn_implementation = "eager"
    model = model_class(config).float().eval()
    randomise(model, weights, half)
    model.tie_weights()
    return model


def logits_of(model):
    """As golden.logits_of, but a dynamic scaling keeps nothing from one prompt to the next."""
    inner = golden.logits_of(model)

    def run(ids):
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
        return inner(ids)
    return run


def noisy(model):
    def run(ids):
        with golden.rounded_inputs(model, lambda name, m: False):
            return logits_of(model)(ids)
    return run


def write_golden(folder, model, weights, sizes=(12, 100)):
    run = logits_of(model)
    inputs = [golden.clear_ids(os.path.basename(folder), run, 96, n) for n in sizes]
    golden.write(folder, f"{type(model).__name__} of transformers", run, inputs, weights, noisy(model),
                 every=2)


def edit_config(folder, change):
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    change(config)
    golden.write_json(folder, "config.json", config)


def old_rope(config):
    """The spelling before transformers 5: rope_theta beside rope_scaling, whose kind is "type" at first."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope


def oldest_rope(config):
    old_rope(config)
    config["rope_scaling"]["type"] = config["rope_scaling"].pop("rope_type")


# model, config, settings, weights (which random ones; "llama" are llama-bf16's), edit of config.json
def llama(settings, weights="llama", edit=None):
    return LlamaForCausalLM, LlamaConfig, settings, weights, edit


def rope(parameters, edit=None, **more):
    return llama(BASE | {"rope_parameters": parameters} | more, edit=edit)


def without(*keys):
    return lambda config: [config.pop(k, None) for k in keys]


QWEN2 = {k: v for k, v in SMALL.items() if k != "head_dim"} | dict(
    num_hidden_layers=3, sliding_window=16, max_window_layers=1, use_sliding_window=True,
    tie_word_embeddings=False)
# In files of their own; float32 that no shorter type holds, or bfloat16.
OWN = {
    "llama-untied": ("f32", llama(BASE | dict(
        hidden_size=40, num_attention_heads=2, num_key_value_heads=1, head_dim=10, intermediate_size=56,
        vocab_size=101, tie_word_embeddings=False, rope_parameters=DEFAULT | {"rope_theta": 500000.0}),
        "untied")),
    "llama-bias": ("f32", llama(SMALL | dict(attention_bias=True, mlp_bias=True), "bias")),
    "deepseek-llm": ("16-bit", llama(SMALL | dict(
        num_key_value_heads=4, rms_norm_eps=1e-6, vocab_size=102, tie_word_embeddings=False),
        "deepseek-llm", lambda c: (old_rope(c), without("head_dim", "mlp_bias", "num_key_value_heads")(c)))),
    "qwen2": ("16-bit", (Qwen2ForCausalLM, Qwen2Config, QWEN2, "qwen2", None)),
    "qwen3": ("16-bit", (Qwen3ForCausalLM, Qwen3Config, BASE | dict(
        rms_norm_eps=1e-6, rope_parameters=DEFAULT | {"rope_theta": 1000000.0}), "qwen3", None)),
}
# By their config.json alone: name -> (folder with the weights, what)
LINKED = {
    "llama-rope-old": ("llama-bf16", rope(DEFAULT | {"rope_theta": 1234.5}, old_rope)),
    "llama-linear": ("llama-bf16", rope({"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})),
    "llama-linear-old": ("llama-bf16", rope({"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5},
                                            oldest_rope)),
    "llama-dynamic": ("llama-bf16", rope(DYNAMIC, max_position_embeddings=32)),
    "llama-dynamic-old": ("llama-bf16", rope(DYNAMIC | {"factor": 3.5}, oldest_rope,
                                             max_position_embeddings=40)),
    "llama-llama3": ("llama-bf16", rope(LLAMA3)),
    "llama-llama3-old": ("llama-bf16", rope(LLAMA3 | {"factor": 4.0, "rope_theta": 500000.0}, old_rope)),
    "llama-yarn": ("llama-bf16", rope(YARN, max_position_embeddings=128)),
    "llama-yarn-old": ("llama-bf16", rope(YARN | {"factor": 3.0, "original_max_position_embeddings": 64},
                                          oldest_rope)),
    "llama-yarn-betas": ("llama-bf16", rope(YARN | {"beta_fast": 8.0, "beta_slow": 2.0,
                                                    "attention_factor": 1.25})),
    "llama-yarn-mscale": ("llama-bf16", rope(YARN | {"mscale": 0.8, "mscale_all_dim": 0.4,
                                                     "truncate": False})),
    "mistral": ("llama-bf16", (MistralForCausalLM, MistralConfig, BASE | dict(sliding_window=16), "llama",
                               old_rope)),
    "mistral-full": ("llama-bf16", (MistralForCausalLM, MistralConfig, BASE | dict(
        sliding_window=None, rope_parameters=DEFAULT | {"rope_theta": 1000000.0}), "llama", None)),
    "qwen2-old": ("qwen2", (Qwen2ForCausalLM, Qwen2Config, QWEN2 | dict(max_window_layers=2), "qwen2",
                            lambda c: (old_rope(c), without("layer_types")(c)))),
    "qwen2-unused-window": ("qwen2", (Qwen2ForCausalLM, Qwen2Config, QWEN2 | dict(
        use_sliding_window=False), "qwen2",
        lambda c: (old_rope(c), without("layer_types")(c), c.update(sliding_window=16)))),
}
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def make_own(name):
    weights, (model_class, config_class, settings, seed, edit) = OWN[name]
    model = build(model_class, config_class, settings, seed, half=weights != "f32")
    folder = golden.fresh(name)
    save(model, folder, torch.float32 if weights == "f32" else torch.bfloat16)
    if edit:
        edit_config(folder, edit)
    write_golden(folder, model, weights)


def make_linked(name):
    source, (model_class, config_class, settings, seed, edit) = LINKED[name]
    model = build(model_class, config_class, settings, seed)
    folder = golden.fresh(name)
    model.config.dtype = torch.bfloat16
    model.config.architectures = [model_class.__name__]
    model.config.save_pretrained(folder)
    if edit:
        edit_config(folder, edit)
    golden.same_as(folder, os.path.join(golden.HERE, source), ["model.safetensors"])
    write_golden(folder, model, "16-bit", (12, 100, 24) if "dynamic" in name else (12, 100))


# ------------------------------------------------------------------ one model in every kind of file

def save(model, folder, dtype, **more):
    """save_pretrained in that type; the model stays float32."""
    copy.deepcopy(model).to(dtype).save_pretrained(folder, **more)
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o644)
    os.remove(os.path.join(folder, "generation_config.json"))


def own_storages(state):
    """Tensors that are views of one storage, as a sliced or transposed state dict has them."""
    q = "model.layers.0.self_attn."
    rows = [state[q + n].shape[0] for n in ("q_proj.weight", "k_proj.weight", "v_proj.weight")]
    fused = torch.cat([state[q + n] for n in ("q_proj.weight", "k_proj.weight", "v_proj.weight")])
    parts = dict(zip((q + "q_proj.weight", q + "k_proj.weight", q + "v_proj.weight"), fused.split(rows)))
    out = dict(state) | parts
    for name in ("model.layers.0.mlp.down_proj.weight", "model.layers.1.self_attn.o_proj.weight"):
        out[name] = state[name].t().contiguous().t()  # column by column
    out["model.layers.1.mlp.up_proj.weight"] = torch.stack(  # every second element
        [state["model.layers.1.mlp.up_proj.weight"], torch.zeros(64, 32, dtype=torch.bfloat16)], -1)[..., 0]
    out["lm_head.weight"] = out["model.embed_tokens.weight"]
    return out


def write_bin(folder, state, legacy=False):
    torch.save(state, os.path.join(folder, "pytorch_model.bin"), _use_new_zipfile_serialization=not legacy)


def write_bin_sharded(folder, state):
    names = list(state)
    index = {"metadata": {"total_size": sum(v.nbytes for v in state.values())}, "weight_map": {}}
    for k in range(3):
        part = names[k * len(names) // 3:(k + 1) * len(names) // 3]
        file = f"pytorch_model-{k + 1:05}-of-00003.bin"
        torch.save({n: state[n].clone() for n in part}, os.path.join(folder, file))
        index["weight_map"] |= {n: file for n in part}
    golden.write_json(folder, "pytorch_model.bin.index.json", index)


def make_files(only):
    model = build(LlamaForCausalLM, LlamaConfig, BASE | {"rope_parameters": DEFAULT}, "llama")

    def state(dtype, lm_head=False):
        return OrderedDict((k, v.detach().to(dtype).clone()) for k, v in model.state_dict().items()
                           if lm_head or k != "lm_head.weight")

    def shared(folder):
        write_bin(folder, own_storages(state(torch.bfloat16)))

    def legacy(folder):  # with the buffers that the first Llama exports had
        s = state(torch.float16)
        for i in range(2):
            s[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = \
                1 / 10000.0 ** (torch.arange(0, 16, 2).float() / 16)
        s["lm_head.weight"] = s["model.embed_tokens.weight"]
        write_bin(folder, s, legacy=True)
    kinds = {
        "llama-bf16": ("bf16", None), "llama-f32": ("f32", None), "llama-f16": ("f16", None),
        "llama-sharded": ("bf16", lambda f: save(model, f, torch.bfloat16, max_shard_size="20KB")),
        "llama-bin": ("f32", lambda f: write_bin(f, state(torch.float32))),
        "llama-bin-sharded": ("bf16", lambda f: write_bin_sharded(f, state(torch.bfloat16, lm_head=True))),
        "llama-bin-legacy": ("f16", legacy), "llama-bin-shared": ("bf16", shared),
    }
    for name, (kind, write) in kinds.items():
        if only and name not in only:
            continue
        folder = golden.fresh(name)
        if write is None or name == "llama-sharded":
            (write or (lambda f: save(model, f, TYPES[kind])))(folder)
        else:
            model.config.architectures = ["LlamaForCausalLM"]
            model.config.dtype = TYPES[kind]
            model.config.save_pretrained(folder)
            write(folder)
        if name == "llama-bf16":
            write_golden(folder, model, "16-bit")
        else:
            golden.same_as(folder, os.path.join(golden.HERE, "llama-bf16"), ["golden.json", "golden.u16"])


# ----------------------------------------------------------------------------- the same models as GGUF

GGUF_BLOCK = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
# name -> general.architecture, the folder whose logits are the same
GGUF = {"llama-gguf": ("llama", "llama-bf16"), "qwen2-gguf": ("qwen2", "qwen2-unused-window"),
        "qwen3-gguf": ("qwen3", "qwen3")}


def gguf_tensors(model, arch):
    """GGUF name -> tensor, as llama.cpp's converter names and orders them: only the llama architecture has
    the rows of q and k in adjacent pairs."""
    state = model.state_dict()
    out = {"token_embd.weight": state["model.embed_tokens.weight"],
           "output_norm.weight": state["model.norm.weight"]}
    if not model.config.tie_word_embeddings:
        out["output.weight"] = state["lm_head.weight"]
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    for i in range(model.config.num_hidden_layers):
        for short, name in GGUF_BLOCK.items():
            for kind in ("weight", "bias"):
                t = state.get(f"model.layers.{i}.{name}.{kind}")
                if t is not None and arch == "llama" and short in heads:
                    t = t.reshape(heads[short], 2, -1, *t.shape[1:]).swapaxes(1, 2).reshape(t.shape)
                if t is not None:
                    out[f"blk.{i}.{short}.{kind}"] = t
    return out


def make_gguf(name):
    arch, source = GGUF[name]
    model_class, config_class, settings, seed, _ = \
        LINKED[source][1] if source in LINKED else OWN[source][1] if source in OWN else llama(BASE)
    model = build(model_class, config_class, settings, seed)
    c = model.config
    folder = golden.fresh(name)
    w = gguf.GGUFWriter(os.path.join(folder, "model.gguf"), arch)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    w.add_vocab_size(c.vocab_size)
    if "head_dim" in settings:
        w.add_key_length(c.head_dim)
        w.add_value_length(c.head_dim)
    for key, t in gguf_tensors(model, arch).items():
        if t.dim() == 1:
            w.add_tensor(key, t.contiguous().numpy())
        else:
            w.add_tensor(key, gguf.quants.quantize(t.contiguous().numpy(), gguf.GGMLQuantizationType.BF16),
                         raw_dtype=gguf.GGMLQuantizationType.BF16)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    golden.same_as(folder, os.path.join(golden.HERE, source), ["golden.json", "golden.u16"])


def main(only):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    make_files(only)
    for names, make in ((OWN, make_own), (LINKED, make_linked), (GGUF, make_gguf)):
        for name in names:
            if not only or name in only:
                make(name)


if __name__ == "__main__":
    main(sys.argv[1:])
