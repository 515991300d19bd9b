#!/usr/bin/env python3
"""Checkpoints of the catalogue's true shapes: exact tensor names, shapes, types and sharding, random weights.

    bench/shapes.py ENTRY FOLDER [--layers N] [--experts N] [--index-only]
    bench/shapes.py --list

Weights have the size of real ones, so that logits stay finite; they repeat a random pattern whose length is
prime, so that no two rows are alike, and a file is written as fast as the disk takes it. The same arguments
give the same bytes. --index-only writes what is there before a weight file has come: the configuration, the
index and the tokenizer. Needs numpy.

Shapes are those of the published repositories' config.json files; names and sharding as their libraries
write them (safetensors sorts by type and name, transformers cuts shards at 10 GB).
"""
import argparse
import json
import os
import struct
import sys
import zlib

import numpy

import shapes_text

PRIME = 1048573  # elements of a pattern
CHUNK = 8 << 20
SIZES = {"F32": 4, "I32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}
BLOCKS = {"Q4_0": (32, 18), "Q8_0": (32, 34), "Q4_K": (256, 144), "Q6_K": (256, 210)}  # values, bytes
ORDER = ["F8_E4M3", "F16", "BF16", "I32", "F32"]  # safetensors writes the widest type first


# ---- values -------------------------------------------------------------------------------------

def normal(seed, deviation, n=PRIME):
    return (numpy.random.default_rng(seed).standard_normal(n, dtype=numpy.float32) * numpy.float32(deviation))


def encode(values, dtype):
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    if dtype == "BF16":
        return ((values.view("<u4") + 0x8000) >> 16).astype("<u2").tobytes()
    return e4m3(values).tobytes()


def e4m3(values):
    """Nearest FP8 E4M3 codes; 0x7f and 0xff, the NaNs, never occur."""
    code = numpy.arange(127)
    exponent, mantissa = code >> 3, code & 7
    table = numpy.where(exponent == 0, mantissa / 8 * 2.0 ** -6, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    middle = (table[1:] + table[:-1]) / 2
    return (numpy.searchsorted(middle, numpy.abs(values)) | (values < 0) << 7).astype(numpy.uint8)


def half(value):
    return numpy.array([value], "<f2").view(numpy.uint8)


def blocks(kind):
    """Random GGUF blocks whose values have a deviation of about 0.02."""
    size = BLOCKS[kind][1]
    n = 16381 if size > 20 else 131071
    b = numpy.random.default_rng(len(kind) + size).integers(0, 256, (n, size), dtype=numpy.uint8)
    if kind == "Q4_0":
        b[:, 0:2] = half(0.0043)
    elif kind == "Q8_0":
        b[:, 0:2] = half(0.00027)
    elif kind == "Q4_K":  # y = d * scale * q - dmin * min, 6-bit scales
        b[:, 0:2], b[:, 2:4] = half(0.00014), half(0.00102)
    else:  # y = d * scale * q, 8-bit scales
        b[:, 192:208] |= 32
        b[:, 208:210] = half(0.000018)
    return b.tobytes()


_patterns = {}


def pattern(fill, dtype):
    key = (fill, dtype)
    if key not in _patterns:
        if fill == "weight":
            scale = 100.0 if dtype == "F8_E4M3" else 0.02
            _patterns[key] = encode(normal(1, scale), dtype)
        elif fill == "norm":
            _patterns[key] = encode(1 + normal(2, 0.05, 65537), dtype)
        elif fill == "small":
            _patterns[key] = encode(normal(3, 0.01, 65537), dtype)
        elif fill == "scale_inv":
            _patterns[key] = encode(0.0002 * (1 + 0.1 * numpy.tanh(normal(4, 1, 65537))), dtype)
        elif fill == "gptq_scale":
            _patterns[key] = encode(0.0043 * (1 + 0.2 * numpy.tanh(normal(5, 1))), dtype)
        elif fill == "words":
            _patterns[key] = numpy.random.default_rng(6).integers(0, 1 << 32, PRIME, dtype="<u4").tobytes()
        elif fill == "zero":
            _patterns[key] = bytes(1 << 16)
        elif fill in BLOCKS:
            _patterns[key] = blocks(fill)
        else:  # one word over and over
            _patterns[key] = struct.pack("<I", int(fill, 16)) * 16384
    return _patterns[key]


class Tensor:
    def __init__(self, name, dtype, shape, fill="weight", n_bytes=None):
        self.name, self.dtype, self.shape, self.fill = name, dtype, list(shape), fill
        self.count = 1
        for n in shape:
            self.count *= n
        self.bytes = self.count * SIZES[dtype] if n_bytes is None else n_bytes

    def chunks(self):
        if self.fill.startswith("g_idx"):
            yield self.groups()
            return
        data = pattern(self.fill, self.dtype)
        unit = BLOCKS[self.dtype][1] if self.dtype in BLOCKS else SIZES[self.dtype]
        at = zlib.crc32(self.name.encode()) % (len(data) // unit) * unit
        left = self.bytes
        piece = data[at:]
        while left:
            part = piece[:left]
            yield part
            left -= len(part)
            piece = data

    def groups(self):
        """Group of each input: in order, or as act-order leaves it."""
        kind, size = self.fill.split(":")
        group = numpy.arange(self.count) // int(size)
        if kind == "g_idx_act":
            group = numpy.random.default_rng(zlib.crc32(self.name.encode())).permutation(group)
        return group.astype("<i4").tobytes()


# ---- files --------------------------------------------------------------------------------------

class Out:
    """A file that is written in large pieces."""

    def __init__(self, path):
        self.f = open(path, "wb", buffering=CHUNK)
        self.at = 0

    def write(self, data):
        self.f.write(data)
        self.at += len(data)

    def tensor(self, t, crc=False):
        value, start = 0, self.at
        for part in t.chunks():
            self.write(part)
            if crc:
                value = zlib.crc32(part, value)
        assert self.at - start == t.bytes, t.name
        return value

    def patch(self, at, data):
        self.f.seek(at)
        self.f.write(data)
        self.f.seek(self.at)


def write_safetensors(path, tensors, metadata):
    tensors = sorted(tensors, key=lambda t: (-ORDER.index(t.dtype), t.name))
    header, at = {"__metadata__": metadata}, 0
    for t in tensors:
        header[t.name] = {"dtype": t.dtype, "shape": t.shape, "data_offsets": [at, at + t.bytes]}
        at += t.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out = Out(path)
    out.write(struct.pack("<Q", len(text)) + text)
    for t in tensors:
        out.tensor(t)
    out.f.close()


def pickled(tensors):
    """A state dict as torch.save writes it: protocol 2, tensors rebuilt from numbered storages."""
    def text(s):
        b = s.encode()
        return b"X" + struct.pack("<I", len(b)) + b

    def number(n):
        if n < 256:
            return b"K" + bytes([n])
        if n < 65536:
            return b"M" + struct.pack("<H", n)
        if n < 1 << 31:
            return b"J" + struct.pack("<i", n)
        b = n.to_bytes((n.bit_length() + 8) // 8, "little")
        return b"\x8a" + bytes([len(b)]) + b

    def sizes(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = {"BF16": "BFloat16Storage", "F16": "HalfStorage", "F32": "FloatStorage"}
    out = [b"\x80\x02}q\x00("]
    for i, t in enumerate(tensors):
        strides = [1] * len(t.shape)
        for k in range(len(t.shape) - 2, -1, -1):
            strides[k] = strides[k + 1] * t.shape[k + 1]
        out += [text(t.name), b"ctorch._utils\n_rebuild_tensor_v2\nq\x01(" if i == 0 else b"h\x01(", b"(",
                text("storage"), f"ctorch\n{storage[t.dtype]}\n".encode(), text(str(i)), text("cpu"),
                number(t.count), b"tQ", number(0), sizes(t.shape), sizes(strides), b"\x89",
                b"ccollections\nOrderedDict\n)R", b"tR"]
    return b"".join(out) + b"u."


def write_torch(path, tensors):
    """torch.save's zip: entries stored, data at multiples of 64, ZIP64 where offsets need it."""
    out, entries = Out(path), []

    def entry(name, body, tensor=None):
        size = tensor.bytes if tensor else len(body)
        start = out.at
        pad = -(start + 30 + len(name) + 4) % 64
        head = struct.pack("<IHHHHHIIIHH", 0x04034B50, 0, 0x0800, 0, 0, 0, 0, size, size, len(name), pad + 4)
        out.write(head + name.encode() + b"FB" + struct.pack("<H", pad) + b"Z" * pad)
        if tensor:
            crc = out.tensor(tensor, crc=True)
        else:
            crc = zlib.crc32(body)
            out.write(body)
        out.patch(start + 14, struct.pack("<I", crc))
        entries.append((name, start, size, crc))

    entry("archive/data.pkl", pickled(tensors))
    entry("archive/byteorder", b"little")
    for i, t in enumerate(tensors):
        entry(f"archive/data/{i}", None, t)
    entry("archive/version", b"3\n")
    start = out.at
    for name, at, size, crc in entries:
        big = at >= 0xFFFFFFFF
        extra = struct.pack("<HHQ", 1, 8, at) if big else b""
        out.write(struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 0, 45 if big else 0, 0x0800, 0, 0, 0, crc,
                              size, size, len(name), len(extra), 0, 0, 0, 0, 0xFFFFFFFF if big else at) +
                  name.encode() + extra)
    size, n = out.at - start, len(entries)
    end = out.at
    out.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, n, n, size, start))
    out.write(struct.pack("<IIQI", 0x07064B50, 0, end, 1))
    out.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, min(n, 65535), min(n, 65535), min(size, 0xFFFFFFFF),
                          min(start, 0xFFFFFFFF), 0))
    out.f.close()


def write_gguf(path, pairs, tensors):
    types = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "BF16": 30}

    def text(s):
        b = s.encode()
        return struct.pack("<Q", len(b)) + b

    def value(v):
        if isinstance(v, bytes):  # as a file has it, type and all
            return v
        if isinstance(v, bool):
            return struct.pack("<IB", 7, v)
        if isinstance(v, int):
            return struct.pack("<II", 4, v)
        if isinstance(v, float):
            return struct.pack("<If", 6, v)
        if isinstance(v, str):
            return struct.pack("<I", 8) + text(v)
        if isinstance(v[0], str):
            return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(text, v))
        return struct.pack("<IIQ", 9, 5, len(v)) + numpy.array(v, "<i4").tobytes()

    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(pairs))]
    head += [text(k) + value(v) for k, v in pairs.items()]
    at = 0
    for t in tensors:
        head.append(text(t.name) + struct.pack("<I", len(t.shape)) +
                    b"".join(struct.pack("<Q", n) for n in reversed(t.shape)) +
                    struct.pack("<IQ", types[t.dtype], at))
        at += t.bytes + -t.bytes % 32
    out = Out(path)
    out.write(b"".join(head))
    out.write(bytes(-out.at % 32))
    for t in tensors:
        out.tensor(t)
        out.write(bytes(-t.bytes % 32))
    out.f.close()


# ---- architectures ------------------------------------------------------------------------------

def llama_linears(c, i):
    d, ff = c["hidden_size"], c["intermediate_size"]
    kv = d // c["num_attention_heads"] * c["num_key_value_heads"]
    p = f"model.layers.{i}."
    return [(p + "self_attn.q_proj", d, d), (p + "self_attn.k_proj", kv, d), (p + "self_attn.v_proj", kv, d),
            (p + "self_attn.o_proj", d, d), (p + "mlp.gate_proj", ff, d), (p + "mlp.up_proj", ff, d),
            (p + "mlp.down_proj", d, ff)]


def llama(c, dtype, gptq=None):
    """Tensors of a Llama or Mistral model: plain, or its layers as GPTQ."""
    d, vocab = c["hidden_size"], c["vocab_size"]
    yield Tensor("model.embed_tokens.weight", dtype, [vocab, d])
    for i in range(c["num_hidden_layers"]):
        for name, n_out, n_in in llama_linears(c, i):
            if gptq:
                yield from gptq_linear(name, n_out, n_in, gptq)
            else:
                yield Tensor(name + ".weight", dtype, [n_out, n_in])
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield Tensor(f"model.layers.{i}.{norm}.weight", dtype, [d], "norm")
    yield Tensor("model.norm.weight", dtype, [d], "norm")
    yield Tensor("lm_head.weight", dtype, [vocab, d])


def gptq_linear(name, n_out, n_in, q):
    bits, size = q["bits"], q["group_size"]
    groups = -(-n_in // size)
    order = f"g_idx_act:{size}" if q["desc_act"] else f"g_idx:{size}"
    yield Tensor(name + ".qweight", "I32", [n_in * bits // 32, n_out], "words")
    yield Tensor(name + ".qzeros", "I32", [groups, n_out * bits // 32], "77777777")
    yield Tensor(name + ".scales", "F16", [groups, n_out], "gptq_scale")
    yield Tensor(name + ".g_idx", "I32", [n_in], order)
    yield Tensor(name + ".bias", "F16", [n_out], "zero")


def deepseek(c, fp8=None):
    """Tensors of DeepSeek-V2, V3 and their kin, the prediction layer of V3 included where it is whole."""
    d, vocab = c["hidden_size"], c["vocab_size"]
    yield Tensor("model.embed_tokens.weight", "BF16", [vocab, d])
    for i in range(c["num_hidden_layers"]):
        yield from deepseek_layer(c, i, fp8)
    yield Tensor("model.norm.weight", "BF16", [d], "norm")
    yield Tensor("lm_head.weight", "BF16", [vocab, d])
    for i in range(c.get("num_nextn_predict_layers", 0)):
        at = c["num_hidden_layers"] + i
        p = f"model.layers.{at}."
        yield Tensor(p + "embed_tokens.weight", "BF16", [vocab, d])
        for norm in ("enorm", "hnorm"):
            yield Tensor(p + norm + ".weight", "BF16", [d], "norm")
        yield Tensor(p + "eh_proj.weight", "BF16", [d, 2 * d])
        yield from deepseek_layer(c, at, fp8)
        yield Tensor(p + "shared_head.norm.weight", "BF16", [d], "norm")
        yield Tensor(p + "shared_head.head.weight", "BF16", [vocab, d])


def deepseek_layer(c, i, fp8):
    d, heads = c["hidden_size"], c["num_attention_heads"]
    rank, rope = c["kv_lora_rank"], c["qk_rope_head_dim"]
    nope, value = c["qk_nope_head_dim"], c["v_head_dim"]
    p = f"model.layers.{i}."

    def matrix(name, n_out, n_in):
        if not fp8:
            return [Tensor(p + name + ".weight", "BF16", [n_out, n_in])]
        scales = [-(-n_out // fp8), -(-n_in // fp8)]
        return [Tensor(p + name + ".weight", "F8_E4M3", [n_out, n_in]),
                Tensor(p + name + ".weight_scale_inv", "F32", scales, "scale_inv")]

    def mlp(name, ff):
        return matrix(name + "gate_proj", ff, d) + matrix(name + "up_proj", ff, d) + \
            matrix(name + "down_proj", d, ff)

    if c["q_lora_rank"]:
        yield from matrix("self_attn.q_a_proj", c["q_lora_rank"], d)
        yield Tensor(p + "self_attn.q_a_layernorm.weight", "BF16", [c["q_lora_rank"]], "norm")
        yield from matrix("self_attn.q_b_proj", heads * (nope + rope), c["q_lora_rank"])
    else:
        yield from matrix("self_attn.q_proj", heads * (nope + rope), d)
    yield from matrix("self_attn.kv_a_proj_with_mqa", rank + rope, d)
    yield Tensor(p + "self_attn.kv_a_layernorm.weight", "BF16", [rank], "norm")
    yield from matrix("self_attn.kv_b_proj", heads * (nope + value), rank)
    yield from matrix("self_attn.o_proj", d, heads * value)
    if i < c["first_k_dense_replace"]:
        yield from mlp("mlp.", c["intermediate_size"])
    else:
        yield Tensor(p + "mlp.gate.weight", "BF16", [c["n_routed_experts"], d])
        if c["topk_method"] == "noaux_tc":
            yield Tensor(p + "mlp.gate.e_score_correction_bias", "F32", [c["n_routed_experts"]], "small")
        for e in range(c["n_routed_experts"]):
            yield from mlp(f"mlp.experts.{e}.", c["moe_intermediate_size"])
        yield from mlp("mlp.shared_experts.", c["n_shared_experts"] * c["moe_intermediate_size"])
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield Tensor(p + norm + ".weight", "BF16", [d], "norm")


def llama_gguf(c, mix):
    """Tensors of a Llama GGUF; mix is Q4_0, Q8_0, BF16 or Q4_K_M, as llama.cpp's quantiser chooses types."""
    d, vocab, n = c["hidden_size"], c["vocab_size"], c["num_hidden_layers"]
    base = "Q4_K" if mix == "Q4_K_M" else mix
    short = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
             "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}

    def matrix(name, kind, n_out, n_in):
        if kind not in BLOCKS:
            return Tensor(name + ".weight", kind, [n_out, n_in])
        block, size = BLOCKS[kind]
        return Tensor(name + ".weight", kind, [n_out, n_in], kind, n_out * n_in // block * size)

    yield matrix("token_embd", base, vocab, d)
    for i in range(n):
        more = mix == "Q4_K_M" and (i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2)
        yield Tensor(f"blk.{i}.attn_norm.weight", "F32", [d], "norm")
        yield Tensor(f"blk.{i}.ffn_norm.weight", "F32", [d], "norm")
        for name, n_out, n_in in llama_linears(c, i):
            part = short[name.rsplit(".", 1)[1]]
            kind = "Q6_K" if more and part in ("attn_v", "ffn_down") else base
            yield matrix(f"blk.{i}.{part}", kind, n_out, n_in)
    yield Tensor("output_norm.weight", "F32", [d], "norm")
    yield matrix("output", base if mix in ("Q8_0", "BF16") else "Q6_K", vocab, d)


# ---- the catalogue's entries --------------------------------------------------------------------

MISTRAL = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "bos_token_id": 1,
    "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 32002}
LLAMA_13B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02, "intermediate_size": 13824,
    "max_position_embeddings": 4096, "num_attention_heads": 40, "num_hidden_layers": 40,
    "num_key_value_heads": 40, "pad_token_id": 0, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "float16", "vocab_size": 32000}
DEEPSEEK_7B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "bos_token_id": 100000,
    "eos_token_id": 100001, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 11008, "max_position_embeddings": 4096, "num_attention_heads": 32,
    "num_hidden_layers": 30, "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "vocab_size": 102400}
YARN = {"beta_fast": 32, "beta_slow": 1, "factor": 40, "original_max_position_embeddings": 4096,
        "type": "yarn"}
DEEPSEEK_V2 = {
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "attention_bias": False,
    "aux_loss_alpha": 0.001, "bos_token_id": 100000, "eos_token_id": 100001, "first_k_dense_replace": 1,
    "hidden_act": "silu", "kv_lora_rank": 512, "max_position_embeddings": 163840, "moe_layer_freq": 1,
    "n_shared_experts": 2, "num_experts_per_tok": 6, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06, "rope_theta": 10000, "scoring_func": "softmax", "seq_aux": True,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 102400,
    "norm_topk_prob": False}
CODER_V2 = DEEPSEEK_V2 | {
    "hidden_size": 5120, "intermediate_size": 12288, "moe_intermediate_size": 1536, "n_group": 8,
    "n_routed_experts": 160, "num_attention_heads": 128, "num_hidden_layers": 60, "num_key_value_heads": 128,
    "q_lora_rank": 1536, "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    "routed_scaling_factor": 16.0, "topk_group": 3, "topk_method": "group_limited_greedy"}
CODER_V2_LITE = DEEPSEEK_V2 | {
    "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_group": 1,
    "n_routed_experts": 64, "num_attention_heads": 16, "num_hidden_layers": 27, "num_key_value_heads": 16,
    "q_lora_rank": None, "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    "routed_scaling_factor": 1.0, "topk_group": 1, "topk_method": "greedy"}
R1 = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "attention_bias": False,
    "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu",
    "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256,
    "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
    "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}, "rope_theta": 10000,
    "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": False, "topk_group": 4,
    "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 129280,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                            "weight_block_size": [128, 128]}}


def gptq_config(act_order):
    return {"bits": 4, "group_size": 128, "damp_percent": 0.1, "desc_act": act_order, "static_groups": False,
            "sym": True, "true_sequential": True, "model_name_or_path": None, "model_file_base_name": "model"}


# id: config, kind, what the kind needs, tokenizer and template of shapes_text
ENTRIES = {
    "openhermes-2.5-mistral-7b-gptq": (MISTRAL, "gptq", (True, "model.safetensors"), "mistral"),
    "nous-hermes-2-mistral-7b-gptq": (MISTRAL, "gptq", (True, "model.safetensors"), "mistral"),
    "platypus2-13b-gptq": (LLAMA_13B, "gptq", (False, "gptq_model-4bit-128g.safetensors"), "llama"),
    "chronos-hermes-13b-gptq": (LLAMA_13B | {"vocab_size": 32001, "max_position_embeddings": 2048}, "gptq",
                                (True, "model.safetensors"), "llama"),
    "undiplatypus2-13b-gptq": (LLAMA_13B, "gptq", (True, "model.safetensors"), "llama"),
    "deepseek-math-7b": (DEEPSEEK_7B, "torch", 10 * 10 ** 9, "deepseek-llm"),
    "deepseek-math-7b-gguf": (DEEPSEEK_7B, "gguf", "Q4_0", "deepseek-llm"),
    "deepseek-math-7b-gguf-q4_k_m": (DEEPSEEK_7B, "gguf", "Q4_K_M", "deepseek-llm"),
    "deepseek-coder-v2": (CODER_V2, "sharded", (55, 8595 * 10 ** 6), "deepseek-llm"),
    "deepseek-coder-v2-lite": (CODER_V2_LITE, "sharded", (4, 8595 * 10 ** 6), "deepseek-llm"),
    "deepseek-r1": (R1, "sharded", (163, 4270 * 10 ** 6), "deepseek-v3"),
}


def cut(tensors, limit):
    """Shards in the tensors' order, each of about `limit` bytes at most. Where a shard ends, an FP8 matrix
    is parted from its scales, as happens in the published files."""
    shards, size = [[]], 0
    for t in tensors:
        if shards[-1] and size + t.bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(t)
        size += t.bytes
    for before, after in zip(shards, shards[1:]):
        if after[0].dtype == "F8_E4M3" and len(after) > 1:
            before.append(after.pop(0))
    return shards


def put(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        f.write(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def put_index(folder, name, names, shards):
    put(folder, name, {"metadata": {"total_size": sum(t.bytes for s in shards for t in s)},
                       "weight_map": {t.name: n for n, s in zip(names, shards) for t in s}})


def make_gptq(folder, c, more, index_only):
    act_order, name = more
    q = gptq_config(act_order)
    put(folder, "quantize_config.json", q)
    put(folder, "config.json", c | {"quantization_config": q | {"quant_method": "gptq"}})
    if not index_only:
        write_safetensors(os.path.join(folder, name), llama(c, "F16", q), {"format": "pt"})


def make_torch(folder, c, limit, index_only):
    put(folder, "config.json", c)
    shards = cut(llama(c, "BF16"), limit)
    names = [f"pytorch_model-{i + 1:05d}-of-{len(shards):05d}.bin" for i in range(len(shards))]
    put_index(folder, "pytorch_model.bin.index.json", names, shards)
    for name, shard in zip(names, shards):
        if not index_only:
            write_torch(os.path.join(folder, name), shard)


def make_sharded(folder, c, more, index_only):
    total, limit = more
    fp8 = c["quantization_config"]["weight_block_size"][0] if "quantization_config" in c else None
    put(folder, "config.json", c)
    shards = cut(deepseek(c, fp8), limit)
    names = [f"model-{i + 1:05d}-of-{total:06d}.safetensors" for i in range(len(shards))]
    put_index(folder, "model.safetensors.index.json", names, shards)
    for name, shard in zip(names, shards):
        if not index_only:
            write_safetensors(os.path.join(folder, name), shard, {"format": "pt"})


def gguf_settings(c, name, mix):
    head = c["hidden_size"] // c["num_attention_heads"]
    return {"general.architecture": "llama", "general.name": name,
            "general.file_type": {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "BF16": 32}[mix],
            "general.quantization_version": 2,
            "llama.block_count": c["num_hidden_layers"],
            "llama.context_length": c["max_position_embeddings"],
            "llama.embedding_length": c["hidden_size"], "llama.feed_forward_length": c["intermediate_size"],
            "llama.attention.head_count": c["num_attention_heads"],
            "llama.attention.head_count_kv": c["num_key_value_heads"],
            "llama.attention.layer_norm_rms_epsilon": c["rms_norm_eps"],
            "llama.rope.freq_base": c.get("rope_theta", 10000.0), "llama.rope.dimension_count": head,
            "llama.vocab_size": c["vocab_size"]}


def make_gguf(folder, c, mix, text):
    pairs = gguf_settings(c, "deepseek-math-7b-instruct", mix) | shapes_text.gguf_pairs(text, c["vocab_size"])
    write_gguf(os.path.join(folder, f"deepseek-math-7b-instruct.{mix}.gguf"), pairs, list(llama_gguf(c, mix)))


def make(entry, folder, layers=None, experts=None, index_only=False):
    """Writes ENTRY into the folder and returns its configuration."""
    c, kind, more, text = ENTRIES[entry]
    c = dict(c)
    if layers and layers < c["num_hidden_layers"]:
        c["num_hidden_layers"] = layers
        c.pop("num_nextn_predict_layers", None)
    if experts:
        c["n_routed_experts"] = experts
    os.makedirs(folder, exist_ok=True)
    if kind == "gguf":
        make_gguf(folder, c, more, text)
        return c
    {"gptq": make_gptq, "torch": make_torch, "sharded": make_sharded}[kind](folder, c, more, index_only)
    put(folder, "generation_config.json", {"_from_model_config": True, "bos_token_id": c["bos_token_id"],
                                           "eos_token_id": c["eos_token_id"]})
    for name, value in shapes_text.files(text, c["vocab_size"]).items():
        put(folder, name, value)
    return c


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("entry", nargs="?", choices=sorted(ENTRIES), metavar="ENTRY")
    p.add_argument("folder", nargs="?", metavar="FOLDER")
    p.add_argument("--layers", type=int, help="only the first N layers")
    p.add_argument("--experts", type=int, help="only N routed experts in a layer")
    p.add_argument("--index-only", action="store_true", help="no weight files")
    p.add_argument("--list", action="store_true", help="the entries")
    o = p.parse_args()
    if o.list:
        print("\n".join(ENTRIES))
        return
    if not o.entry or not o.folder:
        p.error("needs ENTRY and FOLDER")
    make(o.entry, o.folder, o.layers, o.experts, o.index_only)


if __name__ == "__main__":
    sys.exit(main())
