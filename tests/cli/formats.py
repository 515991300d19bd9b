"""Every architecture in every format: the golden checkpoints' own weights, written anew as PyTorch files,
GPTQ and FP8. PyTorch files must give the same logits to the bit; GPTQ and FP8, made of random words and
scales, those of the same numbers written out as floats. Plain Python, since tests need no numpy."""
import json
import os
import random
import shutil
import struct
import zipfile

ARCHITECTURES = ("llama-bf16", "mistral", "qwen2", "qwen3", "deepseek-v2-lite", "deepseek-v2", "deepseek-v3")
STORAGE = {"BF16": "BFloat16Storage", "F16": "HalfStorage", "F32": "FloatStorage", "I32": "IntStorage"}
KEPT = ("embed_tokens", "lm_head", "norm", "mlp.gate.weight", "shared_head", "eh_proj")


def product(shape):
    n = 1
    for x in shape:
        n *= x
    return n


def read(folder):
    """{name: (dtype, shape, bytes)} of model.safetensors"""
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    return {name: (t["dtype"], t["shape"], data[slice(*t["data_offsets"])])
            for name, t in header.items() if name != "__metadata__"}


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def write_mixture(folder):
    """A mixture whose experts have pages of their own, so that they can come and go: a golden's, as floats,
    with a token for each printable character."""
    here = os.path.dirname(os.path.abspath(__file__))
    golden = os.path.join(os.path.dirname(here), "golden/hf/deepseek-v2-lite")
    os.mkdir(folder)
    shutil.copy(os.path.join(golden, "config.json"), folder)
    wide = {}
    for name, (_, shape, data) in read(golden).items():
        out = bytearray(2 * len(data))
        out[2::4], out[3::4] = data[::2], data[1::2]
        wide[name] = ("F32", shape, bytes(out))
    write_safetensors(os.path.join(folder, "model.safetensors"), wide)
    steps = {"type": "ByteLevel", "add_prefix_space": False}
    vocab = {chr(33 + i): i for i in range(80)}
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="ascii") as f:
        json.dump({"model": {"type": "BPE", "vocab": vocab, "merges": []}, "pre_tokenizer": steps,
                   "decoder": steps}, f)


def write_torch(path, tensors):
    """As torch.save does: protocol 2, each tensor rebuilt from a storage of its own."""
    def text(s):
        return b"X" + struct.pack("<I", len(s.encode())) + s.encode()

    def sizes(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", v) for v in values) + b"t"

    pickle = [b"\x80\x02}("]
    with zipfile.ZipFile(path, "w") as z:
        for i, (name, (dtype, shape, data)) in enumerate(tensors.items()):
            strides = [product(shape[k + 1:]) for k in range(len(shape))]
            pickle += [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n((", text("storage"),
                       f"ctorch\n{STORAGE[dtype]}\n".encode(), text(str(i)), text("cpu"),
                       b"J" + struct.pack("<i", product(shape)), b"tQK\0", sizes(shape), sizes(strides),
                       b"\x89ccollections\nOrderedDict\n)RtR"]
            z.writestr(f"archive/data/{i}", data)
        z.writestr("archive/data.pkl", b"".join(pickle) + b"u.")
        z.writestr("archive/version", "3\n")


def floats(t):
    dtype, shape, data = t
    n = product(shape)
    if dtype == "BF16":
        return struct.unpack(f"<{n}f", b"".join(b"\0\0" + data[2 * i:2 * i + 2] for i in range(n)))
    return struct.unpack(f"<{n}{'e' if dtype == 'F16' else 'f'}", data)


def as_f32(shape, values):
    return "F32", shape, struct.pack(f"<{len(values)}f", *values)


def gptq(r, name, n_out, n_in):
    """A random linear of 4 bits with act-order: its tensors, and W [out, in]."""
    size = 32
    groups = n_in // size
    order = [i // size for i in range(n_in)]
    r.shuffle(order)
    q = [[r.randrange(16) for _ in range(n_out)] for _ in range(n_in)]
    zero = [[r.randrange(1, 16) for _ in range(n_out)] for _ in range(groups)]
    scale = [[struct.unpack("<e", struct.pack("<e", r.uniform(0.004, 0.03)))[0] for _ in range(n_out)]
             for _ in range(groups)]
    qweight = [sum(q[8 * w + k][o] << 4 * k for k in range(8))
               for w in range(n_in // 8) for o in range(n_out)]
    qzeros = [sum(zero[g][8 * w + k] - 1 << 4 * k for k in range(8))
              for g in range(groups) for w in range(n_out // 8)]
    m = name[:-len("weight")]
    tensors = {m + "qweight": ("I32", [n_in // 8, n_out], struct.pack(f"<{len(qweight)}I", *qweight)),
               m + "qzeros": ("I32", [groups, n_out // 8], struct.pack(f"<{len(qzeros)}I", *qzeros)),
               m + "scales": ("F16", [groups, n_out], b"".join(struct.pack(f"<{n_out}e", *s) for s in scale)),
               m + "g_idx": ("I32", [n_in], struct.pack(f"<{n_in}i", *order))}
    w = [(q[i][o] - zero[order[i]][o]) * scale[order[i]][o] for o in range(n_out) for i in range(n_in)]
    return tensors, as_f32([n_out, n_in], w)


def e4m3(code):
    exponent, mantissa = code >> 3 & 15, code & 7
    value = mantissa / 8 * 2.0 ** -6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -value if code & 128 else value


def fp8(r, name, n_out, n_in, block):
    rows, cols = -(-n_out // block), -(-n_in // block)
    code = [r.choice((0, 128)) | r.randrange(40, 104) for _ in range(n_out * n_in)]
    scale = [struct.unpack("<f", struct.pack("<f", r.uniform(0.005, 0.02)))[0] for _ in range(rows * cols)]
    w = [e4m3(code[o * n_in + i]) * scale[o // block * cols + i // block]
         for o in range(n_out) for i in range(n_in)]
    return ({name: ("F8_E4M3", [n_out, n_in], bytes(code)), name + "_scale_inv": as_f32([rows, cols], scale)},
            as_f32([n_out, n_in], w))


def quantised(tensors, kind):
    """The checkpoint with its linears replaced by random ones, and the same as floats."""
    r = random.Random(7)
    packed, plain, n = {}, {}, 0
    for name, t in tensors.items():
        shape = t[1]
        linear = name.endswith(".weight") and len(shape) == 2 and not any(k in name for k in KEPT)
        if linear and kind == "gptq" and shape[0] % 32 == 0 and shape[1] % 32 == 0:
            new, plain[name] = gptq(r, name, *shape)
        elif linear and kind == "fp8":
            new, plain[name] = fp8(r, name, *shape, 16)
        else:
            packed[name] = t
            plain[name] = as_f32(shape, floats(t))
            continue
        packed.update(new)
        n += 1
    return packed, plain, n


SETTINGS = {"gptq": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": False},
            "fp8": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 16]}}


def folder_with(source, work, name, settings=None):
    folder = os.path.join(work, name)
    os.makedirs(folder)
    with open(os.path.join(source, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    if settings:
        config["quantization_config"] = settings
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    return folder


def distance(a, b):
    """Largest root mean square difference of a position's logits, in their standard deviations."""
    worst = 0.0
    for x, y in zip(a, b):
        mean = sum(y) / len(y)
        deviation = (sum((v - mean) ** 2 for v in y) / len(y)) ** 0.5
        worst = max(worst, (sum((u - v) ** 2 for u, v in zip(x, y)) / len(y)) ** 0.5 / deviation)
    return worst


def check_all(root, work, logits, check):
    """logits(folder) are those of the scalar kernels, every position of one prompt."""
    for name in ARCHITECTURES:
        source = os.path.join(root, "tests/golden/hf", name)
        tensors = read(source)
        torch = folder_with(source, work, name + "-bin")
        write_torch(os.path.join(torch, "pytorch_model.bin"), tensors)
        check(logits(torch) == logits(source), name, "as a PyTorch file")
        for kind, settings in SETTINGS.items():
            packed, plain, n = quantised(tensors, kind)
            check(n >= 4, name, kind, n, "linears")
            a = folder_with(source, work, f"{name}-{kind}", settings)
            b = folder_with(source, work, f"{name}-{kind}-plain")
            write_safetensors(os.path.join(a, "model.safetensors"), packed)
            write_safetensors(os.path.join(b, "model.safetensors"), plain)
            error = distance(logits(a), logits(b))
            check(error < 1e-3, name, kind, f"{n} linears, error", error)
        for made in os.listdir(work):
            shutil.rmtree(os.path.join(work, made))
