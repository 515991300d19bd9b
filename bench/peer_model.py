"""Checkpoints for bench/vs_peers.py: real shapes, random weights, and the vocabulary of SmolLM2, byte-level
BPE of 49,152 tokens, which OpenVINO wants; the shapes' own vocabularies have 32,000 or 102,400. FORMAT is
that of a GGUF file which every peer of that kind reads, or gptq-4b-128g or gptq-4b-128g-actorder for a
folder.
usage: peer_model.py SHAPE FORMAT PATH    needs numpy and models/SmolLM2-135M-Instruct.Q4_1.gguf (scripts/run)
"""
import os
import struct
import sys

import shapes
import shapes_text
from common import MODEL

VOCAB = 49152
LLAMA_1B = shapes.LLAMA_13B | {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32,
                               "num_hidden_layers": 22, "num_key_value_heads": 4}
SHAPES = {"llama-1b": LLAMA_1B, "mistral-7b": shapes.MISTRAL, "llama-13b": shapes.LLAMA_13B,
          "deepseek-v2-lite": shapes.CODER_V2_LITE}  # whole: llama.cpp knows it by its 27 layers
FORMATS = {"q4_0": "Q4_0", "q4_k_m": "Q4_K_M", "q8_0": "Q8_0", "bf16": "BF16"}
GPTQ = {"gptq-4b-128g": False, "gptq-4b-128g-actorder": True}  # act-order?
FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its type
STRING, ARRAY = 8, 9


def value_bytes(data, at, kind):
    """How many bytes a value of that type takes at data[at]."""
    if kind in FIXED:
        return FIXED[kind]
    if kind == STRING:
        return 8 + struct.unpack_from("<Q", data, at)[0]
    of, n = struct.unpack_from("<IQ", data, at)
    if of in FIXED:
        return 12 + n * FIXED[of]
    end = at + 12
    for _ in range(n):
        end += value_bytes(data, end, of)
    return end - at


def tokenizer_pairs(path):
    """The metadata under tokenizer., each value with its type as the file has it."""
    with open(path, "rb") as f:
        data = f.read(16 << 20)
    n, at, pairs = struct.unpack_from("<Q", data, 16)[0], 24, {}
    for _ in range(n):
        size = struct.unpack_from("<Q", data, at)[0]
        key, at = data[at + 8:at + 8 + size].decode(), at + 8 + size
        end = at + 4 + value_bytes(data, at + 4, struct.unpack_from("<I", data, at)[0])
        if key.startswith("tokenizer."):
            pairs[key] = data[at:end]
        at = end
    return pairs


def config(shape):
    return SHAPES[shape] | {"vocab_size": VOCAB}


def ending(form):
    return "" if form in GPTQ else ".gguf"


# ---- mixtures -----------------------------------------------------------------------------------

def mixture_settings(c, name, kind):
    """As llama.cpp's converter writes them since it keeps kv_b cut into heads: the keys and values of
    attention are one head of the latent's length."""
    rank, rope = c["kv_lora_rank"], c["qk_rope_head_dim"]
    values = {
        "block_count": c["num_hidden_layers"], "context_length": 4096, "embedding_length": c["hidden_size"],
        "feed_forward_length": c["intermediate_size"], "vocab_size": c["vocab_size"],
        "attention.head_count": c["num_attention_heads"], "attention.head_count_kv": 1,
        "attention.layer_norm_rms_epsilon": c["rms_norm_eps"], "rope.freq_base": float(c["rope_theta"]),
        "rope.dimension_count": rope, "attention.kv_lora_rank": rank, "attention.key_length": rank + rope,
        "attention.value_length": rank, "attention.key_length_mla": c["qk_nope_head_dim"] + rope,
        "attention.value_length_mla": c["v_head_dim"],
        "leading_dense_block_count": c["first_k_dense_replace"],
        "expert_count": c["n_routed_experts"], "expert_used_count": c["num_experts_per_tok"],
        "expert_shared_count": c["n_shared_experts"], "expert_weights_norm": False, "expert_gating_func": 1,
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_weights_scale": c["routed_scaling_factor"]}
    return {"general.architecture": "deepseek2", "general.name": name, "general.quantization_version": 2,
            "general.file_type": {"Q4_0": 2, "Q8_0": 7, "BF16": 32}[kind]} | \
        {"deepseek2." + key: value for key, value in values.items()}


def mixture_tensors(c, kind):
    d, heads, n = c["hidden_size"], c["num_attention_heads"], c["n_routed_experts"]
    rank, nope, rope, v = c["kv_lora_rank"], c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]

    def matrix(name, *shape):
        count = 1
        for k in shape:
            count *= k
        if kind not in shapes.BLOCKS:
            return shapes.Tensor(name + ".weight", kind, shape)
        block, size = shapes.BLOCKS[kind]
        return shapes.Tensor(name + ".weight", kind, shape, kind, count // block * size)

    def norm(name, length):
        return shapes.Tensor(name + ".weight", "F32", [length], "norm")

    yield matrix("token_embd", c["vocab_size"], d)
    for i in range(c["num_hidden_layers"]):
        p = f"blk.{i}."
        yield norm(p + "attn_norm", d)
        yield matrix(p + "attn_q", heads * (nope + rope), d)
        yield matrix(p + "attn_kv_a_mqa", rank + rope, d)
        yield norm(p + "attn_kv_a_norm", rank)
        yield matrix(p + "attn_k_b", heads, rank, nope)
        yield matrix(p + "attn_v_b", heads, v, rank)
        yield matrix(p + "attn_output", d, heads * v)
        yield norm(p + "ffn_norm", d)
        if i < c["first_k_dense_replace"]:
            parts = [("", (), c["intermediate_size"])]
        else:
            yield shapes.Tensor(p + "ffn_gate_inp.weight", "F32", [n, d], "small")
            ff = c["moe_intermediate_size"]
            parts = [("_exps", (n,), ff), ("_shexp", (), c["n_shared_experts"] * ff)]
        for end, first, ff in parts:
            yield matrix(p + "ffn_gate" + end, *first, ff, d)
            yield matrix(p + "ffn_up" + end, *first, ff, d)
            yield matrix(p + "ffn_down" + end, *first, d, ff)
    yield norm("output_norm", d)
    yield matrix("output", c["vocab_size"], d)


# ---- files --------------------------------------------------------------------------------------

def why_not(shape, form):
    """Why there is no such checkpoint, or None."""
    if shape not in SHAPES:
        return f"shapes are {', '.join(SHAPES)}"
    if form not in FORMATS and form not in GPTQ:
        return f"formats are {', '.join([*FORMATS, *GPTQ])}"
    if shape == "deepseek-v2-lite" and (form in GPTQ or form == "q4_k_m"):
        return "deepseek-v2-lite is written as q4_0, q8_0 or bf16: 1,408 columns are no blocks of q4_k_m"
    return None


def write(shape, form, path):
    c = config(shape)
    if form in GPTQ:
        os.makedirs(path)
        shapes.make_gptq(path, c, (GPTQ[form], "model.safetensors"), False)
        for name, value in shapes_text.files("mistral", VOCAB).items():
            shapes.put(path, name, value)
        return
    kind, name = FORMATS[form], f"{shape} {form}"
    if shape == "deepseek-v2-lite":
        settings, tensors = mixture_settings(c, name, kind), mixture_tensors(c, kind)
    else:
        settings, tensors = shapes.gguf_settings(c, name, kind), shapes.llama_gguf(c, kind)
    shapes.write_gguf(path, settings | tokenizer_pairs(MODEL), list(tensors))


if __name__ == "__main__":
    if len(sys.argv) != 4 or why_not(*sys.argv[1:3]):
        sys.exit(why_not(*sys.argv[1:3]) if len(sys.argv) == 4 else __doc__)
    write(*sys.argv[1:])
