#!/usr/bin/env python3
"""Makes src/quant/grids.inc: the codebooks of the IQ types, which are part of the format.

    grids.py LIBGGML_BASE.so > src/quant/grids.inc

The library comes prebuilt in the npm package @node-llama-cpp/linux-x64 3.22.1. The codebooks are not read
from it: they are what its decoders make of blocks whose scale is one and whose signs are all plus. An
entry is written as one 16-bit code, its first value in the lowest bits: 2 bits a value for entries of
eight, 3 bits for entries of four, numbers of levels in ascending order.
"""
import ctypes
import struct
import sys

lib = ctypes.CDLL(sys.argv[1])
PER_LINE = 10


def decode(function, block):
    out = (ctypes.c_float * 256)()
    getattr(lib, "dequantize_row_" + function)(ctypes.create_string_buffer(block, len(block)), out,
                                               ctypes.c_int64(256))
    return list(out)


def half(x):
    return struct.pack("<e", x)


def iq2_xxs(i):
    return decode("iq2_xxs", half(8) + (bytes([i] * 4) + bytes(4)) * 8)[:8]


def iq2_xs(i):
    return decode("iq2_xs", half(8) + struct.pack("<H", i) * 32 + bytes(8))[:8]


def iq2_s(i):
    return decode("iq2_s", half(8) + bytes([i & 255] * 32) + bytes(32) + bytes([(i >> 8) * 0x55] * 8) +
                  bytes(8))[:8]


def iq3_xxs(i):
    return decode("iq3_xxs", half(4) + bytes([i] * 64) + bytes(32))[:4]


def iq3_s(i):
    return decode("iq3_s", half(1) + bytes([i & 255] * 64) + bytes([(i >> 8) * 255] * 8) + bytes(36))[:4]


def iq1_s(i):
    high = struct.pack("<H", (i >> 8) * 0o1111)
    return [y - 0.125 for y in decode("iq1_s", half(1) + bytes([i & 255] * 32) + high * 8)[:8]]


BOOKS = [
    ("IQ2_XXS", iq2_xxs, 256, [8, 25, 43]),
    ("IQ2_XS", iq2_xs, 512, [8, 25, 43]),
    ("IQ2_S", iq2_s, 1024, [8, 25, 43]),
    ("IQ1", iq1_s, 2048, [-1, 0, 1]),
    ("IQ3_XXS", iq3_xxs, 256, [4, 12, 20, 28, 36, 44, 52, 62]),
    ("IQ3_S", iq3_s, 512, [1, 3, 5, 7, 9, 11, 13, 15]),
]

print("/* Made by tests/golden/quant/grids.py; see there. */")
for name, entry, count, levels in BOOKS:
    print(f"\n#define ASH_{name}_CODES(E)", end="")
    for i in range(count):
        values = entry(i)
        bits = 16 // len(values) if len(values) == 8 else 3
        code = sum(levels.index(v) << bits * j for j, v in enumerate(values))
        print(" \\\n    " if i % PER_LINE == 0 else " ", end="")
        print(f"E({code:#06x})", end="")
    print()
