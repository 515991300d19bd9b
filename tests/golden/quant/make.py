#!/usr/bin/env python3
"""Makes blocks.txt: blocks of every tensor type and what ggml itself decodes them to.

    make.py LIBGGML_BASE.so > blocks.txt

The library comes prebuilt in the npm package @node-llama-cpp/linux-x64 3.22.1. Of each type there are
random blocks whose half-float scales are finite and cover normal and subnormal numbers, zero and both
signs; one whose bytes are all ones but for the scales; and one or two with infinite scales or NaN. A line
is `TYPE hex-of-bytes hex-of-little-endian-floats`.
"""
import ctypes
import random
import struct
import sys

lib = ctypes.CDLL(sys.argv[1])
rng = random.Random(20261123)
SPECIAL = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00]
NOT_FINITE = [0x7C00, 0xFC00, 0x7E00]

# name, elements and bytes of a block, places of half floats
TYPES = [
    ("Q4_0", 32, 18, [0]), ("Q4_1", 32, 20, [0, 2]), ("Q5_0", 32, 22, [0]), ("Q5_1", 32, 24, [0, 2]),
    ("Q8_0", 32, 34, [0]), ("Q2_K", 256, 84, [80, 82]), ("Q3_K", 256, 110, [108]),
    ("Q4_K", 256, 144, [0, 2]), ("Q5_K", 256, 176, [0, 2]), ("Q6_K", 256, 210, [208]),
    ("IQ2_XXS", 256, 66, [0]), ("IQ2_XS", 256, 74, [0]), ("IQ2_S", 256, 82, [0]),
    ("IQ3_XXS", 256, 98, [0]), ("IQ3_S", 256, 110, [0]), ("IQ1_S", 256, 50, [0]),
    ("IQ1_M", 256, 56, []), ("IQ4_NL", 32, 18, [0]), ("IQ4_XS", 256, 136, [0]),
    ("TQ1_0", 256, 54, [52]), ("TQ2_0", 256, 66, [64]), ("MXFP4", 32, 17, []), ("NVFP4", 64, 36, []),
    ("Q1_0", 128, 18, [0]), ("Q2_0", 64, 18, [0]),
    ("F16", 32, 64, range(0, 64, 2)), ("BF16", 32, 64, range(0, 64, 2)),
]
FUNCTIONS = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}


def finite():
    while True:
        h = rng.choice(SPECIAL) if rng.random() < 0.4 else rng.getrandbits(16)
        if h >> 10 & 31 != 31:
            return h


def block(size, places, scale, quants):
    data = bytearray(quants(size))
    for at in places:
        data[at:at + 2] = struct.pack("<H", scale())
    return bytes(data)


def line(name, data, count):
    function = getattr(lib, FUNCTIONS.get(name, "dequantize_row_" + name.lower().replace("_k", "_K")))
    out = (ctypes.c_float * count)()
    function(ctypes.create_string_buffer(data, len(data)), out, ctypes.c_int64(count))
    print(name, data.hex(), bytes(out).hex())


for name, count, size, places in TYPES:
    for _ in range(1 if count == 256 else 6):
        line(name, block(size, places, finite, rng.randbytes), count)
    line(name, block(size, places, lambda: 0x3C00, lambda n: b"\xff" * n), count)
    for _ in range(1 if count == 256 else 2):
        line(name, block(size, places, lambda: rng.choice(NOT_FINITE), rng.randbytes), count)
for e in (0, 1, 2, 127, 254, 255):
    line("MXFP4", bytes([e]) + rng.randbytes(16), 32)
for d in (0x00, 0x01, 0x08, 0x7E, 0x7F, 0x80, 0xFE):
    line("NVFP4", bytes([d] * 4) + rng.randbytes(32), 64)
