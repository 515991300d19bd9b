#!/usr/bin/env python3
"""Writes the corpora of fuzz_checkpoint, fuzz_gguf, fuzz_kv_file, fuzz_model, fuzz_safetensors,
fuzz_tokenizer and fuzz_torch: small files, each with something of its own.

    fuzz/make_corpus.py        (Python 3.9, nothing else; writes into fuzz/corpus/)
"""
import io
import json
import os
import pickle
import struct
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q",
        I64: "<q", F64: "<d"}


def string(s):
    b = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(b)) + b


def scalar(kind, v):
    return string(v) if kind == STRING else struct.pack(PACK[kind], v)


def pair(key, kind, v, elem=None):
    head = string(key) + struct.pack("<I", kind)
    if kind != ARRAY:
        return head + scalar(kind, v)
    return head + struct.pack("<IQ", elem, len(v)) + b"".join(scalar(elem, x) for x in v)


def gguf(pairs, tensors=(), version=3, align=32):
    """tensors: (name, dims with the row length first, type id, bytes)"""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    offset, data = 0, b""
    for name, dims, kind, n in tensors:
        out += string(name) + struct.pack("<I", len(dims))
        out += b"".join(struct.pack("<Q", d) for d in dims)
        out += struct.pack("<IQ", kind, offset)
        data += bytes(range(256))[:n].ljust(n, b"\x01")
        data += bytes(-len(data) % align)
        offset = len(data)
    return out + bytes(-len(out) % align) + data


def vocab(model, tokens, types, extra):
    return gguf([pair("tokenizer.ggml.model", STRING, model),
                 pair("tokenizer.ggml.tokens", ARRAY, tokens, STRING),
                 pair("tokenizer.ggml.token_type", ARRAY, types, I32)] + extra)


def gguf_files():
    kinds = [pair("k%d" % k, k, "text" if k == STRING else 1) for k in PACK] + [pair("s", STRING, "")]
    arrays = [pair("a%d" % k, ARRAY, ["x", ""] if k == STRING else [1, 0], k) for k in list(PACK) + [STRING]]
    norm, quant = ("n", [8], 0, 32), ("q", [32, 2], 3, 40)
    bpe = ["h", "e", "l", "o", "\u0120", "he", "ll", "<s>", "\u00fc", "", "[PAD10]"]
    bpe_extra = [pair("tokenizer.ggml.pre", STRING, "qwen2"),
                 pair("tokenizer.ggml.merges", ARRAY, ["h e", "l l"], STRING),
                 pair("tokenizer.ggml.bos_token_id", U32, 7),
                 pair("tokenizer.ggml.eos_token_id", U32, 0xFFFFFFFF),
                 pair("tokenizer.chat_template", STRING, "{{ x }}")]
    spm = ["<unk>", "<s>", "</s>", "<0x0A>", "\u2581", "a", "\u2581a", "aa", "a\u2581", "<|end|>"]
    return {
        "empty.gguf": gguf([]),
        "kinds.gguf": gguf(kinds),
        "arrays.gguf": gguf(arrays, version=2),
        "tensors.gguf": gguf([pair("general.architecture", STRING, "llama")], [norm, quant]),
        "align.gguf": gguf([pair("general.alignment", U32, 8)], [norm, ("e", [0], 0, 0), quant], align=8),
        "split.gguf": gguf([pair("split.no", U16, 0), pair("split.count", U16, 1),
                            pair("split.tensors.count", I32, 1)], [norm]),
        "bpe.gguf": vocab("gpt2", bpe, [1] * 7 + [3, 4, 1, 4], bpe_extra),
        "spm.gguf": vocab("llama", spm, [2, 3, 3, 6, 1, 1, 1, 1, 5, 4],
                          [pair("tokenizer.ggml.scores", ARRAY, [0, 0, 0, 0, -9, -8, -1, -2, -3, 0], F32),
                           pair("tokenizer.ggml.add_space_prefix", BOOL, 1)]),
    }


def tokenizer_files():
    texts = {
        "words": b"hello hello the  quick's aaaa 1234 \n\n x",
        "special": b"<s>hello</s><think>  <s",
        "unicode": ("\u4f60\u597d e\u0301\u0323 \U0001f468\u200d\U0001f469 \u212a\u2126 "
                    "\u3000\u3002 \uc548\ub155").encode(),
        "broken": b"a\xff<s>\xe4\xbd hell\xf0\x9f\x98o \xed\xa0\x80",
        "space": b"   \t\n \r\n    a     ",
        "code": b"for (i=0; i<10; i++) { a[i] += 0x1F; } // <b>",
    }
    files = {}
    for k, (name, text) in enumerate(texts.items()):
        for which in (k, k + 4):
            files["%s-%d" % (name, which % 10)] = bytes([which % 10, 3 - k % 3, 60, 80, 20, 90]) + text
    return files


def llama(kind, bytes_of_row, more=(), tensors=()):
    """One layer of 32, two heads over one, a vocabulary of 8; matrices of type kind."""
    d, kv, ff = 32, 16, 32
    sizes = [("block_count", 1), ("embedding_length", d), ("feed_forward_length", ff),
             ("context_length", 64), ("attention.head_count", 2), ("attention.head_count_kv", 1)]
    pairs = [pair("general.architecture", STRING, "llama")]
    pairs += [pair("llama." + k, U32, v) for k, v in sizes] + list(more)

    def matrix(name, rows):
        return name + ".weight", [d, rows], kind, rows * bytes_of_row

    def vector(name, n):
        return name, [n], 0, 4 * n

    return gguf(pairs, [matrix("token_embd", 8), vector("output_norm.weight", d),
                        vector("blk.0.attn_norm.weight", d), vector("blk.0.ffn_norm.weight", d),
                        matrix("blk.0.attn_q", d), matrix("blk.0.attn_k", kv), matrix("blk.0.attn_v", kv),
                        matrix("blk.0.attn_output", d), matrix("blk.0.ffn_gate", ff),
                        matrix("blk.0.ffn_up", ff), matrix("blk.0.ffn_down", d)] + list(tensors))


def model_files():
    yarn = [pair("llama.rope.scaling.type", STRING, "yarn"), pair("llama.rope.scaling.factor", F32, 4.0),
            pair("llama.rope.scaling.original_context_length", U32, 32)]
    return {
        "q8_0.gguf": llama(8, 34),
        "q4_1-yarn.gguf": llama(3, 20, yarn),
        "bf16-untied.gguf": llama(30, 64, [pair("llama.rope.dimension_count", U32, 8)],
                                  [("output.weight", [32, 8], 30, 512), ("rope_freqs.weight", [4], 0, 16),
                                   ("blk.0.attn_q.bias", [32], 0, 128), ("unknown", [4], 0, 16)]),
    }


def safetensors(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_files():
    several = {"__metadata__": {"format": "pt", "k": "\u4f60\n"}, "b": entry("F16", [2, 3], 3, 15),
               "odd": entry("U8", [3], 0, 3), "scalar": entry("F32", [], 15, 19),
               "none": entry("F8_E4M3", [0, 7], 19, 19), "f4": entry("F4", [2, 4], 19, 23)}
    more = dict(entry("BF16", [1, 1, 1, 1], 0, 2), more=[1.5e-3, {"x": None}])
    padded = b" \n" + json.dumps({"a": more}).encode()
    shards = {"metadata": {"total_size": 7},
              "weight_map": {"a.b": "x-00001-of-000002.safetensors", "\u00e9": "y"}}
    return {"empty.safetensors": safetensors({}, b""),
            "several.safetensors": safetensors(several, bytes(range(23))),
            "padded.safetensors": safetensors(padded + b"\t \r", b"ab"),
            "index.json": json.dumps(shards, indent=1).encode(),
            "escapes.json": rb'{"weight_map":{"\u0061\ud83d\ude00\\\/\"":"f\u0031"},'
                            rb'"x":[-0.5E+7,true,false,null,[],{}]}'}


class Machine(pickle._Pickler):
    """Writes the calls and persistent ids of a state dict without torch."""

    def persistent_id(self, obj):
        return obj.id if isinstance(obj, Storage) else None

    def save_global(self, obj, name=None):
        self.write(b"c%s\n%s\n" % obj.path)
        self.memoize(obj)

    def save_call(self, obj):
        self.save_reduce(obj.of, obj.args, obj=obj)

    def save_ordered(self, obj):
        self.save_reduce(Global(b"collections", b"OrderedDict"), (), dictitems=iter(obj.items()), obj=obj)


class Global:
    def __init__(self, module, name):
        self.path = module, name

    def __call__(self):
        """Only so that it may stand for a callable."""


class Call:
    def __init__(self, of, *args):
        self.of, self.args = of, args


class Storage:
    def __init__(self, kind, key, n, view=()):
        self.id = ("storage", Global(b"torch", kind + b"Storage"), key, "cpu", n) + view


class Ordered(dict):
    pass


Machine.dispatch = dict(pickle._Pickler.dispatch)
Machine.dispatch[Global] = Machine.save_global
Machine.dispatch[Call] = Machine.save_call
Machine.dispatch[Ordered] = Machine.save_ordered


def dump(obj):
    out = io.BytesIO()
    Machine(out, 2).dump(obj)
    return out.getvalue()


def tensor(storage, offset, size, stride):
    return Call(Global(b"torch._utils", b"_rebuild_tensor_v2"), storage, offset, size, stride, False,
                Ordered())


def state_dict(view=()):
    shared = Storage(b"Float", "0", 6, view)
    bytes_of = Storage(b"Untyped", "1", 16, view)
    v3 = Call(Global(b"torch._utils", b"_rebuild_tensor_v3"), bytes_of, 1, (3,), (1,), False, Ordered(),
              Global(b"torch", b"float32"))
    weight = tensor(shared, 0, (2, 3), (3, 1))
    return Ordered({"w": weight, "t": tensor(shared, 0, (3, 2), (1, 3)), "s": tensor(shared, 5, (), ()),
                    "p": Call(Global(b"torch._utils", b"_rebuild_parameter"), weight, True, Ordered()),
                    "v3": v3,
                    "e": tensor(shared, 0, (0, 4), (4, 1)), "x": tensor(shared, 1, (4, 1, 2), (0, 7, 2)),
                    "step": 3, "big": 2 ** 70, "half": 0.5, "none": None, "list": [True, {"a": ()}]})


def torch_zip(obj, records):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        first = [("data.pkl", dump(obj)), ("byteorder", b"little")]
        for name, data in first + records + [("version", b"3\n")]:
            z.writestr(zipfile.ZipInfo("m/" + name, (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def torch_files():
    records = [("data/0", bytes(24)), ("data/1", bytes(range(16)))]
    head = dump(0x1950a86a20f9469cfc6c) + dump(1001) + dump({"protocol_version": 1001, "little_endian": True})
    data = struct.pack("<q", 6) + bytes(24) + struct.pack("<q", 16) + bytes(16)
    legacy = head + dump(state_dict((None,))) + dump(["0", "1"]) + data
    viewed = Storage(b"Half", "0", 6, (("v", 2, 3),))
    small = head + dump({"a": tensor(viewed, 1, (2,), (1,))}) + dump(["0"]) + struct.pack("<q", 6) + bytes(12)
    return {"state.zip": torch_zip(state_dict(), records),
            "wrapped.zip": torch_zip({"epoch": 1, "model": state_dict()}, records),
            "legacy.bin": legacy, "view.bin": small, "bare.pkl": dump(state_dict()),
            "system.pkl": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.",
            "lists.pkl": b"\x80\x02]q\x00(h\x00K\x01M\x02\x00J\x03\x00\x00\x00G?\xf8\x00\x00\x00\x00\x00\x00e"
                         b"}(U\x01ah\x00u\x86\x85."}


def tensors_file(tensors):
    """tensors: (name, dtype, shape, bytes)"""
    head, data = {}, b""
    for name, dtype, shape, b in tensors:
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(b)]}
        data += b
    return safetensors(json.dumps(head, separators=(",", ":")).encode(), data)


def bf16(*shape):
    n = 1
    for s in shape:
        n *= s
    return "BF16", list(shape), bytes((17 * i) % 256 if i % 2 == 0 else 0x3C + i // 2 % 2 * 0x80
                                      for i in range(2 * n))


def gptq(name, out, cols, bits, group, order=None):
    groups = -(-cols // group)
    zero = {2: 0x55555555, 4: 0x77777777, 8: 0x7F7F7F7F}.get(bits, 0)
    words = [(2654435761 * (i + 1)) % 2**32 for i in range(cols * bits // 32 * out)]
    parts = [("qweight", "I32", [cols * bits // 32, out], struct.pack("<%dI" % len(words), *words)),
             ("qzeros", "I32", [groups, out * bits // 32],
              struct.pack("<I", zero) * (groups * out * bits // 32)),
             ("scales", "F16", [groups, out], b"\x00\x24" * (groups * out))]
    if order:
        parts.append(("g_idx", "I32", [cols], struct.pack("<%di" % cols, *order)))
    return [(name + "." + p, *rest) for p, *rest in parts]


def llama_folder(config, linear, quantize="", more=()):
    """One layer of 32, two heads over one, a vocabulary of 8; linear(name, out, in) makes a matrix."""
    d, kv, ff, layer = 32, 16, 32, "model.layers.0."
    base = {"model_type": "llama", "hidden_size": d, "num_hidden_layers": 1, "intermediate_size": ff,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 8,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
    shapes = [("self_attn.q_proj", d, d), ("self_attn.k_proj", kv, d), ("self_attn.v_proj", kv, d),
              ("self_attn.o_proj", d, d), ("mlp.gate_proj", ff, d), ("mlp.up_proj", ff, d),
              ("mlp.down_proj", d, ff)]
    tensors = [("model.embed_tokens.weight", *bf16(8, d)), ("model.norm.weight", *bf16(d)),
               (layer + "input_layernorm.weight", *bf16(d)),
               (layer + "post_attention_layernorm.weight", *bf16(d))]
    for name, out, cols in shapes:
        tensors += linear(layer + name, out, cols)
    text = json.dumps({**base, **config}, separators=(",", ":"))
    return text.encode() + b"\0" + quantize.encode() + b"\0" + tensors_file(tensors + list(more))


def checkpoint_files():
    def plain(name, out, cols):
        return [(name + ".weight", *bf16(out, cols))]

    def fp8(name, out, cols):
        blocks = [-(-out // 16), -(-cols // 16)]
        return [(name + ".weight", "F8_E4M3", [out, cols], bytes(i % 120 for i in range(out * cols))),
                (name + ".weight_scale_inv", "F32", blocks,
                 struct.pack("<f", 0.01) * (blocks[0] * blocks[1]))]

    def some(name, out, cols):  # quantised in part, and not all of it alike
        if name.endswith("o_proj"):
            return plain(name, out, cols)
        if out < 32:
            return plain(name, out, cols) + [(name + ".bias", *bf16(out))]
        return gptq(name, out, cols, 8 if "mlp" in name else 4, 16, [i * 7 % 32 // 16 for i in range(cols)])

    block = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 16]}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4}
    return {
        "bf16-yarn": llama_folder({"rope_parameters": yarn}, plain),
        "mistral-window": llama_folder({"model_type": "mistral", "sliding_window": 2}, plain),
        "qwen2-bias": llama_folder({"model_type": "qwen2"}, plain,
                                   more=[("model.layers.0.self_attn.q_proj.bias", *bf16(32)),
                                         ("model.layers.0.self_attn.k_proj.bias", *bf16(16)),
                                         ("model.layers.0.self_attn.v_proj.bias", *bf16(16))]),
        "fp8": llama_folder({"quantization_config": block}, fp8),
        "gptq-order": llama_folder({}, some, '{"bits":4,"group_size":16,"desc_act":true}'),
    }


def checksum(data):
    """src/base/checksum.c"""
    def mix(h, word):
        h = (h ^ word) * 0x9e3779b97f4a7c15 % 2**64
        return (h << 29 | h >> 35) % 2**64

    lanes, h = [(i + 1) * 0x9e3779b97f4a7c15 % 2**64 for i in range(8)], len(data)
    for i in range(0, len(data), 8):
        lanes[i // 8 % 8] = mix(lanes[i // 8 % 8], int.from_bytes(data[i:i + 8], "little"))
    for lane in lanes:
        h = mix(h, lane)
    return mix(h, h >> 32)


def kv_files():
    blocks = [bytes(range(64)), bytes(64)]
    head = b"ASHLEYKV" + struct.pack("<II", 1, 4) + bytes([7] + [0] * 31) + struct.pack("<QQ", 64, 6)
    head += struct.pack("<6i", *range(1, 7)) + b"".join(struct.pack("<Q", checksum(b)) for b in blocks)
    head += struct.pack("<Q", checksum(head))
    whole = head.ljust(4096, b"\0") + b"".join(blocks)
    return {"whole": whole, "cut": whole[:-64]}


def main():
    for folder, files in (("checkpoint", checkpoint_files()), ("gguf", gguf_files()),
                          ("kv_file", kv_files()),
                          ("model", model_files()), ("tokenizer", tokenizer_files()),
                          ("safetensors", safetensors_files()), ("torch", torch_files())):
        where = os.path.join(HERE, "corpus", folder)
        os.makedirs(where, exist_ok=True)
        for name, data in files.items():
            with open(os.path.join(where, name), "wb") as f:
                f.write(data)


if __name__ == "__main__":
    main()
