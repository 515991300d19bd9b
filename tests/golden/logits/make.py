#!/usr/bin/env python3
"""Makes the golden logits again: tests/golden/logits/*.json and tiny-*.gguf.

    python3 -m venv venv && venv/bin/pip install torch transformers gguf
    venv/bin/python tests/golden/logits/make.py [smollm2] [tiny]

The oracle is LlamaForCausalLM of transformers in float32 (made with transformers 5.23.0, torch 2.15.0,
gguf 0.19.0). For SmolLM2 it gets the weights of models/SmolLM2-135M-Instruct.Q4_1.gguf (scripts/run
fetches it), dequantised, the rows of q and k put back into the half-split order of transformers. The
tiny models are random weights made here in the shapes that real checkpoints may have, each written as
GGUF with the rows of q and k in GGUF's adjacent-pair order.

Every JSON file:
  model, model_sha256   the checkpoint's file name and hash
  n_vocab
  cases[]
    ids                 the prompt; nothing stands before it
    positions[]         pos; then of the logits at that position: logsumexp, mean, std (population) and
                        top [[id, logit], ...] from the highest; for the tiny models logits [n_vocab];
                        for SmolLM2 at the last position strided: every 16th logit from id 0 on
    greedy              the ids that follow when the highest logit is always taken
    greedy_margin       at each of those, by how much it beat the second: under 0.2 or so, another
                        rounding may rightly choose the other
    bf16_rmse_over_std  how far the oracle itself moves when it runs in bfloat16, as a
                        fraction of the logits' deviation; a measure for tolerances
"""
import copy
import hashlib
import json
import math
import os
import sys

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from transformers import LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
SMOLLM2 = os.path.join(ROOT, "models", "SmolLM2-135M-Instruct.Q4_1.gguf")

# Texts without digits: their split is the one thing that transformers' GGUF tokenizer gets wrong here.
CHAT = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nName three colours of the rainbow.<|im_end|>\n"
        "<|im_start|>assistant\n")
PROSE = ("The lighthouse stood at the end of a long spit of sand, and for most of the year nobody went "
         "there but the keeper and the gulls. In spring the water rose until the road vanished twice a "
         "day, and the keeper learned to read the tide from the colour of the sky. He kept a journal in "
         "which he wrote down the weather, the ships that passed, and now and then a line about the "
         "book he happened to be reading. When the lamp was finally replaced by one that needed no "
         "hands, he stayed on for another winter, because somebody, he said, had to tell the new lamp "
         "about the fog. The journal is now in the museum of the town, open at a page that says only: "
         "quiet today, read until noon, saw the first swallows.")
CODE = ("def fibonacci(n):\n    if n < two:\n        return n\n"
        "    return fibonacci(n - one) + fibonacci(n - two)\n\nprint(")

# GGUF name -> transformers name, one block
BLOCK = {
    "attn_norm.weight": "input_layernorm.weight", "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight", "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight", "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias", "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias", "attn_output.bias": "self_attn.o_proj.bias",
    "ffn_gate.weight": "mlp.gate_proj.weight", "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}


def hf_name(name):
    if name in WHOLE:
        return WHOLE[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{BLOCK[rest]}"


def to_gguf_order(w, heads):
    """rows of one head: half-split (0..h-1 | h..2h-1) -> adjacent pairs (0, h, 1, h+1, ...)"""
    return w.reshape(heads, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def to_hf_order(w, heads):
    return w.reshape(heads, -1, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def is_rope_row(name):
    return ".attn_q." in name or ".attn_k." in name


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def number(x):
    return float(f"{float(x):.6g}")


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy().astype(np.float64)


def bf16_noise(model, ids, rows):
    half = logits_of(copy.deepcopy(model).bfloat16(), ids)
    return number((np.sqrt(((half - rows) ** 2).mean(axis=1)) / rows.std(axis=1)).mean())


def greedy(model, ids, n):
    out, margins = [], []
    for _ in range(n):
        last = logits_of(model, ids + out)[-1]
        second, first = np.partition(last, -2)[-2:]
        out.append(int(last.argmax()))
        margins.append(number(first - second))
    return out, margins


def summary(pos, row, top):
    order = np.argsort(-row, kind="stable")[:top]
    high = row.max()
    return {"pos": pos, "logsumexp": number(high + math.log(np.exp(row - high).sum())),
            "mean": number(row.mean()), "std": number(row.std()),
            "top": [[int(i), number(row[i])] for i in order]}


def write_json(name, value):
    path = os.path.join(HERE, name)
    with open(path, "w") as f:
        text = json.dumps(value, separators=(",", ":"))
        f.write(text.replace('{"pos"', '\n{"pos"').replace('{"ids"', '\n{"ids"') + "\n")
    print(path, os.path.getsize(path), "bytes")


# ---------------------------------------------------------------------------------------------------

def load_smollm2():
    reader = gguf.GGUFReader(SMOLLM2)

    def key(name):
        return reader.fields[name].contents()
    heads, kv_heads = key("llama.attention.head_count"), key("llama.attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=key("llama.vocab_size"), hidden_size=key("llama.embedding_length"),
        intermediate_size=key("llama.feed_forward_length"), num_hidden_layers=key("llama.block_count"),
        num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=True,
        rms_norm_eps=1e-5, max_position_embeddings=key("llama.context_length"),
        rope_parameters={"rope_type": "default", "rope_theta": key("llama.rope.freq_base")},
        attn_implementation="eager")
    state = {}
    for t in reader.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        if is_rope_row(t.name):
            w = to_hf_order(w, heads if "attn_q" in t.name else kv_heads)
        state[hf_name(t.name)] = torch.from_numpy(np.ascontiguousarray(w))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config).float().eval()
    model.load_state_dict(state, strict=True)
    return model


def make_smollm2():
    from transformers import AutoTokenizer
    model = load_smollm2()
    tokenizer = AutoTokenizer.from_pretrained(os.path.dirname(SMOLLM2),
                                              gguf_file=os.path.basename(SMOLLM2))
    cases = []
    for text in [None, CHAT, PROSE, CODE]:
        ids = [1] if text is None else tokenizer(text, add_special_tokens=False)["input_ids"]
        rows = logits_of(model, ids)
        last = len(ids) - 1
        positions = [summary(p, r, 64 if p == last else 8) for p, r in enumerate(rows)]
        positions[last]["strided"] = [number(f"{x:.5g}") for x in rows[last][::16]]
        noise = bf16_noise(model, ids, rows)
        following, margins = greedy(model, ids, 32)
        print(len(ids), "ids, bf16 noise", noise, repr(tokenizer.decode(following)))
        cases.append({"ids": ids, "positions": positions, "greedy": following,
                      "greedy_margin": margins, "bf16_rmse_over_std": noise})
    write_json("smollm2.json", {"model": os.path.basename(SMOLLM2), "model_sha256": sha256(SMOLLM2),
                                "n_vocab": model.config.vocab_size, "cases": cases})


# ---------------------------------------------------------------------------------------------------

# name: layers, hidden, heads, kv heads, head size, feed-forward, vocabulary, tied, what else
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
TINY = {
    "gqa-tied": (2, 40, 5, 1, 8, 56, 97, True, {}),
    "mha-untied": (2, 48, 3, 3, 16, 64, 101, False, {}),
    "head-dim": (2, 30, 3, 3, 20, 52, 96, True, {"eps": 1e-6}),
    "odd": (1, 33, 3, 1, 10, 71, 103, False, {"theta": 500000.0}),
    "linear": (2, 32, 4, 2, 8, 48, 96, True, {"rope": {"rope_type": "linear", "factor": 4.0}}),
    "llama3": (2, 32, 4, 2, 16, 48, 96, True, {"rope": LLAMA3}),
    "yarn": (2, 32, 4, 2, 16, 48, 96, True, {"rope": YARN}),
    "bias": (2, 32, 4, 2, 8, 48, 96, True, {"bias": True}),
    "f16": (1, 64, 4, 2, 16, 96, 96, False, {"type": T.F16}),
    "bf16": (1, 64, 4, 2, 16, 96, 96, False, {"type": T.BF16}),
    "q8-0": (2, 64, 4, 2, 16, 96, 96, False, {"type": T.Q8_0}),
    "q4-0": (2, 64, 4, 2, 16, 96, 96, False, {"type": T.Q4_0}),
    "q4-1": (2, 64, 4, 2, 16, 96, 96, False, {"type": T.Q4_1}),
    "iq2-s": (2, 256, 4, 1, 64, 256, 96, False, {"type": T.IQ2_S}),
}


def llama3_factors(rope, theta, head):
    out = []
    for i in range(0, head, 2):
        wave = 2 * math.pi * theta ** (i / head)
        low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
        high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
        if wave < high:
            out.append(1.0)
        elif wave > low:
            out.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"]) / \
                (rope["high_freq_factor"] - rope["low_freq_factor"])
            out.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(out, np.float32)


def tiny_header(w, name, shape, rope, theta, eps):
    layers, hidden, heads, kv_heads, head, ff, vocab, _, _ = shape
    w.add_name(f"tiny-{name}")
    w.add_context_length(256)
    w.add_embedding_length(hidden)
    w.add_block_count(layers)
    w.add_feed_forward_length(ff)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_rope_dimension_count(head)
    if head * heads != hidden:
        w.add_key_length(head)
        w.add_value_length(head)
    w.add_layer_norm_rms_eps(eps)
    w.add_rope_freq_base(theta)
    w.add_vocab_size(vocab)
    if rope.get("rope_type") == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def random_iq2_s(rng, size, deviation):
    """Blocks of any bits, for nothing here finds good ones: 2 bytes of scale before 80 of everything else."""
    blocks = rng.integers(0, 256, (size[0] * size[1] // 256, 82), np.uint8)
    blocks[:, :2] = np.array([deviation / 57], np.float16).view(np.uint8)
    return blocks.reshape(size[0], -1)


def make_tiny(name, shape):
    layers, hidden, heads, kv_heads, head, ff, vocab, tied, more = shape
    rope, theta, eps = more.get("rope", {}), more.get("theta", 10000.0), more.get("eps", 1e-5)
    rng = np.random.default_rng(int.from_bytes(name.encode(), "little") % 2**32)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=ff, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head,
        tie_word_embeddings=tied, rms_norm_eps=eps, max_position_embeddings=256,
        attention_bias=bool(more.get("bias")), attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": theta} | rope)
    model = LlamaForCausalLM(config).float().eval()
    path = os.path.join(HERE, f"tiny-{name}.gguf")
    w = gguf.GGUFWriter(path, "llama")
    tiny_header(w, name, shape, rope, theta, eps)
    names = ["token_embd.weight", "output_norm.weight"] + ([] if tied else ["output.weight"])
    names += [f"blk.{i}.{n}" for i in range(layers) for n in BLOCK
              if more.get("bias") or not n.endswith(".bias")]
    state = {}
    own = model.state_dict()
    for n in names:
        size = tuple(own[hf_name(n)].shape)
        if n.endswith("norm.weight"):
            a = 1 + 0.3 * rng.standard_normal(size)
        elif n.endswith(".bias"):
            a = 0.3 * rng.standard_normal(size)
        else:  # large enough for attention to be far from uniform
            deviation = 1.6 / math.sqrt(size[1]) if "embd" not in n else 0.7
            a = rng.standard_normal(size) * deviation
        a = a.astype(np.float32)
        kind = more.get("type", T.F32) if len(size) == 2 else T.F32
        stored = a
        if kind != T.F32:
            stored = random_iq2_s(rng, size, deviation) if kind == T.IQ2_S else gguf.quants.quantize(a, kind)
            a = gguf.quants.dequantize(stored, kind).astype(np.float32)
        w.add_tensor(n, stored, raw_dtype=None if kind in (T.F32, T.F16) else kind)
        # a is in GGUF's order; the oracle wants its own
        if is_rope_row(n):
            a = to_hf_order(a, heads if "attn_q" in n else kv_heads)
        state[hf_name(n)] = torch.from_numpy(np.ascontiguousarray(a))
    if rope.get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(rope, theta, head))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    cases = []
    for n, wanted in [(12, range(12)), (100, [0, 1, 15, 16, 31, 32, 63, 64, 99])]:
        ids = [int(i) for i in rng.integers(0, vocab, n)]
        rows = logits_of(model, ids)
        following, margins = greedy(model, ids, 16)
        positions = [summary(p, rows[p], 4) | {"logits": [number(x) for x in rows[p]]} for p in wanted]
        cases.append({"ids": ids, "positions": positions, "greedy": following,
                      "greedy_margin": margins, "bf16_rmse_over_std": bf16_noise(model, ids, rows)})
    write_json(f"tiny-{name}.json", {"model": f"tiny-{name}.gguf", "model_sha256": sha256(path),
                                     "n_vocab": vocab, "cases": cases})


def main(args):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if not args or "tiny" in args:
        for name, shape in TINY.items():
            make_tiny(name, shape)
    if not args or "smollm2" in args:
        make_smollm2()


if __name__ == "__main__":
    main(sys.argv[1:])
