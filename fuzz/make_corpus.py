#!/usr/bin/env python3
"""Writes the corpora of fuzz_gguf and fuzz_tokenizer: small files, each with something of its own.

    fuzz/make_corpus.py        (Python 3.9, nothing else; writes into fuzz/corpus/)
"""
import os
import struct

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


def main():
    for folder, files in (("gguf", gguf_files()), ("tokenizer", tokenizer_files())):
        where = os.path.join(HERE, "corpus", folder)
        os.makedirs(where, exist_ok=True)
        for name, data in files.items():
            with open(os.path.join(where, name), "wb") as f:
                f.write(data)


if __name__ == "__main__":
    main()
