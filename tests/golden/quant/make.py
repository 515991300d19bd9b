#!/usr/bin/env python3
"""Makes blocks.txt: random blocks of every tensor type and what ggml itself decodes them to.

    make.py LIBGGML_BASE.so > blocks.txt

The library comes prebuilt in the npm package @node-llama-cpp/linux-x64 3.22.1. Blocks are random bytes;
their half-float scales are finite and cover normal and subnormal numbers, zero and both signs. A line is
`TYPE hex-of-bytes hex-of-little-endian-floats`.
"""
import ctypes
import random
import struct
import sys

lib = ctypes.CDLL(sys.argv[1])
rng = random.Random(20261123)
SPECIAL = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00]


def scale():
    while True:
        h = rng.choice(SPECIAL) if rng.random() < 0.4 else rng.getrandbits(16)
        if h >> 10 & 31 != 31:
            return struct.pack("<H", h)


def blocks(scales, quants, n):
    return b"".join(b"".join(scale() for _ in range(scales)) + rng.randbytes(quants) for _ in range(n))


def line(name, data, function, count):
    out = (ctypes.c_float * count)()
    function(ctypes.create_string_buffer(data, len(data)), out, ctypes.c_int64(count))
    print(name, data.hex(), bytes(out).hex())


for _ in range(8):
    line("Q4_0", blocks(1, 16, 1), lib.dequantize_row_q4_0, 32)
    line("Q4_1", blocks(2, 16, 1), lib.dequantize_row_q4_1, 32)
    line("Q8_0", blocks(1, 32, 1), lib.dequantize_row_q8_0, 32)
    line("F16", b"".join(scale() for _ in range(32)), lib.ggml_fp16_to_fp32_row, 32)
    line("BF16", b"".join(scale() for _ in range(32)), lib.ggml_bf16_to_fp32_row, 32)
