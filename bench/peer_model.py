"""GGUF files that every peer of bench/vs_peers.py reads: a real shape, random weights, and the vocabulary of
SmolLM2, byte-level BPE of 49,152 tokens, which OpenVINO wants; the shapes' own vocabularies have 32,000.
usage: peer_model.py SHAPE FORMAT FILE    needs numpy and models/SmolLM2-135M-Instruct.Q4_1.gguf (scripts/run)
"""
import struct
import sys

import shapes
from common import MODEL

VOCAB = 49152
LLAMA_1B = shapes.LLAMA_13B | {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32,
                               "num_hidden_layers": 22, "num_key_value_heads": 4}
SHAPES = {"llama-1b": LLAMA_1B, "mistral-7b": shapes.MISTRAL, "llama-13b": shapes.LLAMA_13B}
FORMATS = {"q4_0": "Q4_0", "q4_k_m": "Q4_K_M", "q8_0": "Q8_0", "bf16": "BF16"}
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


def write(shape, form, path):
    c, mix = SHAPES[shape] | {"vocab_size": VOCAB}, FORMATS[form]
    pairs = shapes.gguf_settings(c, f"{shape} {form}", mix) | tokenizer_pairs(MODEL)
    shapes.write_gguf(path, pairs, list(shapes.llama_gguf(c, mix)))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    write(*sys.argv[1:])
