#!/usr/bin/env python3
"""A trained model in every kind of checkpoint, against torch with those very weights. Run by hand: it takes
some 90 minutes on one core, most of it in GPTQ quantisation, and 4 GB of disk.

    python3 -m venv venv && venv/bin/pip install torch transformers gguf safetensors gptqmodel
    venv/bin/python tests/golden/trained.py make OUT [variant...]
    venv/bin/python tests/golden/trained.py compare OUT [--binary build/ashley] [variant...]

make takes the weights of models/SmolLM2-135M-Instruct.Q4_1.gguf (scripts/run fetches it), dequantised, and
writes them as safetensors and .bin in each type, as FP8 with block scales (as DeepSeek's), and as GPTQ by
GPTQModel's own quantiser in each variant.

compare runs every checkpoint in OUT through `ashley eval` and `ashley perplexity`, and LlamaForCausalLM
in float32 with the weights that the files hold (GPTQ ones dequantised here by the formula), and prints a
table. It exits 1 unless, by the float reference, every greedy id is the same, by the fast kernels each that
the oracle chooses clearly, and by both the perplexity is within 0.5 %. That is narrow for the fast kernels,
which moved it by up to 0.7 %; and a model that 2 bits have spoilt is moved by anything at all.
"""
import argparse
import json
import math
import os
import subprocess
import sys

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(HERE, "logits"), os.path.join(HERE, "hf")]
GGUF = os.path.join(ROOT, "models", "SmolLM2-135M-Instruct.Q4_1.gguf")

PLAIN = {"safetensors-bf16": torch.bfloat16, "safetensors-f16": torch.float16,
         "safetensors-f32": torch.float32, "safetensors-bf16-sharded": torch.bfloat16,
         "bin-bf16": torch.bfloat16, "bin-f16-sharded": torch.float16, "bin-f32-legacy": torch.float32}
# bits, group_size, desc_act, sym, format. 576 inputs are no multiple of 128: the last group is half as long.
GPTQ = {
    "gptq-4b-128g": (4, 128, False, True, "gptq"),
    "gptq-4b-64g-act": (4, 64, True, True, "gptq"),
    "gptq-4b-32g-act-asym": (4, 32, True, False, "gptq_v2"),
    "gptq-4b-32g": (4, 32, False, True, "gptq_v2"),
    "gptq-4b-channel-act": (4, -1, True, True, "gptq"),
    "gptq-4b-128g-act": (4, 128, True, True, "gptq"),
    "gptq-8b-128g-act": (8, 128, True, True, "gptq"),
    "gptq-8b-channel": (8, -1, False, True, "gptq"),
    "gptq-3b-32g-act": (3, 32, True, True, "gptq"),
    "gptq-3b-64g": (3, 64, False, True, "gptq"),
    "gptq-2b-32g-act": (2, 32, True, True, "gptq"),
    "gptq-2b-64g-asym": (2, 64, False, False, "gptq_v2"),
}
FP8 = {"fp8-128": 128}  # rows and columns of a block with one scale; 576 are no multiple here, too
PROMPTS = ["<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
           "<|im_end|>\n<|im_start|>user\nName three colours of the rainbow.<|im_end|>\n"
           "<|im_start|>assistant\n",
           "The lighthouse stood at the end of a long spit of sand, and for most of the year"]
N_GREEDY = 64
CLEAR = 0.2  # deviations by which the first logit beats the second in a clear step: as far as int8 moves them
WINDOW = 512
TEXT = 90000       # characters of the text, some 20,000 tokens: what is left by chance is 0.06 % or so
TEXT_SCALAR = 9000 # of which the float reference, which is slow, gets these


# ---------------------------------------------------------------------------------------------- make

def write_tokenizer(folder):
    """tokenizer.json from the vocabulary and merges of the GGUF, with the pre-tokeniser that `smollm` stands
    for (transformers' own conversion loses the digits)."""
    import gguf
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    fields = gguf.GGUFReader(GGUF).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ", 1)) for m in fields["tokenizer.ggml.merges"].contents()]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    t = Tokenizer(models.BPE({s: i for i, s in enumerate(tokens)}, merges))
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, normalized=False) for s, k in zip(tokens, kinds) if k == 3])
    t.save(os.path.join(folder, "tokenizer.json"))
    eos = tokens[fields["tokenizer.ggml.eos_token_id"].contents()]
    bos = tokens[fields["tokenizer.ggml.bos_token_id"].contents()]
    config = {"tokenizer_class": "GPT2Tokenizer", "bos_token": bos, "eos_token": eos,
              "unk_token": "<|endoftext|>", "pad_token": eos, "model_max_length": 8192,
              "add_prefix_space": False,
              "chat_template": fields["tokenizer.chat_template"].contents()}
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump(config, f, indent=1)


def load_source():
    """LlamaForCausalLM in float32 with the dequantised weights of the GGUF."""
    import make as logits
    model = logits.load_smollm2()
    model.config.bos_token_id, model.config.eos_token_id = 1, 2
    model.generation_config.bos_token_id, model.generation_config.eos_token_id = 1, 2
    return model


def make_plain(out, name, dtype):
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    model = load_source().to(dtype)
    if name.startswith("safetensors"):
        model.save_pretrained(folder, max_shard_size="90MB" if "sharded" in name else "9GB")
    else:
        model.config.dtype = dtype
        model.config.save_pretrained(folder)
        state = model.state_dict()  # tied: lm_head shares the storage of the embedding
        if "sharded" not in name:
            torch.save(state, os.path.join(folder, "pytorch_model.bin"),
                       _use_new_zipfile_serialization="legacy" not in name)
        else:
            names, index = list(state), {"metadata": {}, "weight_map": {}}
            for k in range(4):
                part = names[k * len(names) // 4:(k + 1) * len(names) // 4]
                file = f"pytorch_model-{k + 1:05}-of-00004.bin"
                torch.save({n: state[n].clone() for n in part}, os.path.join(folder, file))
                index["weight_map"] |= {n: file for n in part}
            with open(os.path.join(folder, "pytorch_model.bin.index.json"), "w") as f:
                json.dump(index, f)
    write_tokenizer(folder)


def blockwise(scales, block, shape):
    """scales [ceil(rows / block), ceil(cols / block)] -> one for each weight of a matrix."""
    return scales.repeat_interleave(block, 0)[:shape[0]].repeat_interleave(block, 1)[:, :shape[1]]


def make_fp8(out, name):
    """The linears of the layers as E4M3, the largest number of each block as 448; all else in bfloat16."""
    from safetensors.torch import save_file
    folder, block = os.path.join(out, name), FP8[name]
    os.makedirs(folder, exist_ok=True)
    model = load_source()
    model.config.quantization_config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                        "weight_block_size": [block, block]}
    model.config.dtype = torch.bfloat16
    model.config.save_pretrained(folder)
    tensors = {}
    for n, w in model.state_dict().items():
        if n == "lm_head.weight":  # tied
            continue
        if not n.endswith("_proj.weight"):
            tensors[n] = w.to(torch.bfloat16).clone()
            continue
        rows, cols = (-(-s // block) for s in w.shape)
        whole = torch.zeros(rows * block, cols * block)
        whole[:w.shape[0], :w.shape[1]] = w
        most = whole.reshape(rows, block, cols, block).abs().amax((1, 3))
        scales = torch.where(most == 0, 1.0, most / 448)
        tensors[n] = (w / blockwise(scales, block, w.shape)).to(torch.float8_e4m3fn)
        tensors[n + "_scale_inv"] = scales
    save_file(tensors, os.path.join(folder, "model.safetensors"), {"format": "pt"})
    write_tokenizer(folder)


def calibration():
    """Small, and of this project's own text: what counts is that the same weights are compared, not that
    they are the best possible. Not the text of compare."""
    text = ""
    for name in ("HACKING.md", "docs/API.md", "docs/CONFIGURATION.md", "docs/SPEED.md", "CONTRIBUTING.md"):
        with open(os.path.join(ROOT, name), encoding="utf-8") as f:
            text += f.read()
    return text


def make_gptq(out, name):
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # fewer are refused
    from gptqmodel import GPTQModel, QuantizeConfig
    from tokenizers import Tokenizer
    bits, group, act, sym, form = GPTQ[name]
    source = os.path.join(out, "safetensors-f32")
    folder = os.path.join(out, name)
    ids = Tokenizer.from_file(os.path.join(source, "tokenizer.json")).encode(calibration()).ids
    pieces = [ids[i:i + 256] for i in range(0, len(ids) - 255, 256)]
    data = [{"input_ids": p, "attention_mask": [1] * len(p)} for p in pieces]
    config = QuantizeConfig(bits=bits, group_size=group, desc_act=act, sym=sym, format=form,
                            act_group_aware=False)  # it wants groups
    model = GPTQModel.load(source, config, device="cpu")
    model.quantize(data, batch_size=1)
    model.save(folder)
    write_tokenizer(folder)


def make(out, names):
    os.makedirs(out, exist_ok=True)
    for name, dtype in PLAIN.items():
        if not names or name in names:
            make_plain(out, name, dtype)
    for name in FP8:
        if not names or name in names:
            make_fp8(out, name)
    for name in GPTQ:
        if (not names or name in names) and not os.path.exists(os.path.join(out, name)):
            # one process each: GPTQModel keeps what it has quantised
            command = [sys.executable, os.path.abspath(__file__), "make-one", out, name]
            if subprocess.run(command).returncode:
                print(f"{name}: GPTQModel failed", file=sys.stderr)


# ------------------------------------------------------------------------------------------- compare

def read_tensors(folder):
    from safetensors.torch import load_file
    out = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(".safetensors"):
            out |= load_file(path)
        elif name.endswith(".bin"):
            out |= torch.load(path, weights_only=True)
    return out


def unpack(words, bits):
    """words [n, m] -> fields [n * 32 / bits, m], the first field lowest; 3 bits: 32 of them in 3 words."""
    w = words.numpy().view(np.uint32).astype(np.uint64)
    n, m = w.shape
    if bits != 3:
        shifts = np.arange(0, 32, bits, dtype=np.uint64)[None, :, None]
        return ((w[:, None] >> shifts) & np.uint64(2 ** bits - 1)).reshape(-1, m).astype(np.int64)
    w = w.reshape(n // 3, 3, m)
    bit = np.unpackbits(w.astype("<u4").transpose(0, 2, 1).copy().view(np.uint8), axis=-1, bitorder="little")
    bit = bit.reshape(n // 3, m, 32, 3).astype(np.int64)
    return (bit * np.array([1, 2, 4])).sum(-1).transpose(0, 2, 1).reshape(-1, m)


def dequantise(t, module, bits, v2):
    """w [out, in] = (q - zero) * scale of the group, in float32; sizes from the tensors alone."""
    q = unpack(t[module + ".qweight"], bits)
    zeros = t[module + ".qzeros"]
    if not v2 and bits != 3:  # one less in each field, as words of 32 bits
        ones = sum(1 << (bits * j) for j in range(32 // bits))
        zeros = torch.from_numpy((zeros.numpy().view(np.uint32) + np.uint32(ones)).view(np.int32))
    z = unpack(zeros.T.contiguous(), bits).T + (1 if not v2 and bits == 3 else 0)
    g = t[module + ".g_idx"].numpy()
    scales = t[module + ".scales"].float().numpy()
    return torch.from_numpy(((q - z[g]).astype(np.float32) * scales[g]).T.copy())


def load_oracle(folder):
    """LlamaForCausalLM in float32 with the weights that the folder's files hold."""
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig.from_pretrained(folder)
    quantised = getattr(config, "quantization_config", None)
    config.quantization_config = None
    config._attn_implementation = "eager"
    settings = os.path.join(folder, "quantize_config.json")
    t = read_tensors(folder)
    state = {n: w.float() for n, w in t.items() if n.endswith(".weight")}
    for n in t:
        if n.endswith("_scale_inv"):
            w = n[:-len("_scale_inv")]
            state[w] *= blockwise(t[n], quantised["weight_block_size"][0], state[w].shape)
    if os.path.exists(settings):
        with open(settings) as f:
            q = json.load(f)
        for n in t:
            if n.endswith(".qweight"):
                module = n[:-len(".qweight")]
                v2 = q.get("checkpoint_format", q.get("format")) == "gptq_v2"
                state[module + ".weight"] = dequantise(t, module, q["bits"], v2)
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model = LlamaForCausalLM(config).float().eval()
    model.load_state_dict(state, strict=True)
    return model


def oracle_greedy(model, ids):
    """N_GREEDY ids, and the logits that chose them [N_GREEDY, n_vocab]."""
    out, rows, past, feed = [], [], None, ids
    with torch.no_grad():
        for _ in range(N_GREEDY):
            r = model(torch.tensor([feed]), past_key_values=past, use_cache=True)
            past = r.past_key_values
            rows.append(r.logits[0, -1].double().numpy())
            out.append(int(rows[-1].argmax()))
            feed = out[-1:]
    return out, np.array(rows)


def write_texts(out):
    """The text whose perplexity is taken, {level: path}: the reference of the Python language, which comes
    with every Python and is of this project's texts and of the calibration's none."""
    from pydoc_data.topics import topics
    text = "\n".join(topics[name] for name in sorted(topics))
    paths = {}
    for level, size in (("scalar", TEXT_SCALAR), ("", TEXT)):
        paths[level] = os.path.join(out, f"text-{level or 'fast'}.txt")
        with open(paths[level], "w", encoding="utf-8") as f:
            f.write(text[:size])
    return paths


def oracle_nats(model, ids):
    """What each scored token takes, in nats: windows as `ashley perplexity` has them."""
    nats = []
    with torch.no_grad():
        for at in range(0, len(ids), WINDOW):
            part = ids[at:at + WINDOW]
            if len(part) < 2:
                break
            p = model(torch.tensor([part])).logits[0, :-1].double().log_softmax(-1)
            nats.append(-p.gather(1, torch.tensor(part[1:])[:, None])[:, 0].numpy())
    return np.concatenate(nats)


def oracle_perplexity(model, ids):
    return math.exp(oracle_nats(model, ids).mean())


def ashley(binary, level, *args):
    """One command by the kernels of that level; "" is the fastest here."""
    p = subprocess.run([binary, *args, "--json"], capture_output=True, env=os.environ | {"ASHLEY_CPU": level})
    if p.returncode:
        raise RuntimeError(f"ashley {' '.join(args)[:200]}: {p.stderr.decode().strip()[-400:]}")
    return json.loads(p.stdout)


def steps_of(binary, level, folder, start, oracle):
    """Logits of each greedy step after the oracle's own text: one different choice does not spoil those
    after it, and if all are the same so is the text."""
    text = ",".join(map(str, start + oracle[:-1]))
    return np.array(ashley(binary, level, "eval", folder, "--ids", text, "--all")["logits"])[len(start) - 1:]


def compare_one(binary, folder, texts):
    import golden
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    model = load_oracle(folder)
    starts = [tokenizer.encode(p).ids for p in PROMPTS]
    oracles = [oracle_greedy(model, s) for s in starts]
    n = len(PROMPTS) * N_GREEDY
    good, cells = True, []
    for level in ("scalar", ""):
        with open(texts[level], encoding="utf-8") as f:
            ids = tokenizer.encode(f.read()).ids
        want = oracle_perplexity(model, ids)
        got = ashley(binary, level, "perplexity", folder, texts[level], "--ctx", str(WINDOW))
        off = got["ppl"] / want - 1
        same = clear = clear_same = 0
        noise = 0.0
        for start, (following, rows) in zip(starts, oracles):
            mine = steps_of(binary, level, folder, start, following)
            second, first = np.partition(rows, -2, axis=1)[:, -2:].T
            sure = first - second >= CLEAR * rows.std(axis=1)
            ok = mine.argmax(axis=1) == following
            same, clear, clear_same = same + ok.sum(), clear + sure.sum(), clear_same + (ok & sure).sum()
            noise += golden.kl(rows, mine) / len(PROMPTS)
        good &= got["tokens"] == len(ids) - -(-len(ids) // WINDOW) and abs(off) <= 0.005
        good &= same == n if level else clear == clear_same
        cells.append(f"{100 * off:+.4f} % | {same}/{n} | {noise:.2g}" if level else
                     f"{100 * off:+.2f} % | {same}/{n} | {clear_same}/{clear} | {noise:.2g}")
    print(f"| {os.path.basename(folder)} | {want:.3f} | " + " | ".join(cells) + " |"
          + ("" if good else " <- outside"), flush=True)
    said = ashley(binary, "", "eval", folder, "--ids", ",".join(map(str, starts[0])), "--greedy", "64")["ids"]
    print(f"{os.path.basename(folder)}: {tokenizer.decode(said[len(starts[0]):])!r}", file=sys.stderr,
          flush=True)
    return good


def compare(out, binary, names):
    folders = [os.path.join(out, n) for n in list(PLAIN) + list(FP8) + list(GPTQ) if not names or n in names]
    print("| checkpoint | perplexity, torch | float reference: difference | greedy ids | KL | fast kernels: "
          "difference | greedy ids | of the clear ones | KL |\n| " + "--- | " * 9)
    bad = 0
    texts = write_texts(out)
    for folder in folders:
        if not os.path.exists(os.path.join(folder, "tokenizer.json")):
            print(f"| {os.path.basename(folder)} | not made |")
            bad += 1
            continue
        try:
            bad += not compare_one(binary, folder, texts)
        except RuntimeError as e:
            print(f"| {os.path.basename(folder)} | {e} |", flush=True)
            bad += 1
    return bad


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["make", "make-one", "compare"])
    p.add_argument("out")
    p.add_argument("variants", nargs="*")
    p.add_argument("--binary", default=os.path.join(ROOT, "build", "ashley"))
    a = p.parse_intermixed_args()
    torch.set_num_threads(1)
    if a.what == "make":
        make(a.out, a.variants)
    elif a.what == "make-one":
        make_gptq(a.out, a.variants[0])
    else:
        sys.exit(compare(a.out, a.binary, a.variants) > 0)


if __name__ == "__main__":
    main()
