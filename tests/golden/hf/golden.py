"""Golden logits of checkpoint folders: what make.py, gptq.py and the scripts of other families share.

The format is described in README.md beside this file. A script makes a checkpoint, computes logits with
the original implementation in float32, and calls write():

    import golden
    logits = golden.logits_of(model)
    inputs = [golden.clear_ids(name, logits, 96, n) for n in (12, 100)]
    golden.write(folder, "DeepseekV3ForCausalLM of transformers", logits, inputs, weights="16-bit",
                 noisy=golden.noisy(model, quantised=lambda name, module: ...), every=2)

logits is a function: list of ids -> array [len(ids), n_vocab].
"""
import contextlib
import json
import os
import shutil

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
MARGIN = 0.02  # of a deviation: greedy steps closer than this say nothing about an implementation


def number(x):
    return float(f"{float(x):.6g}")


def logits_of(model):
    """The function that write() wants, of a transformers model: the whole prompt in one forward pass."""
    def run(ids):
        with torch.no_grad():
            return model(torch.tensor([ids]), use_cache=False).logits[0].double().numpy()
    return run


def int8_blocks(x, block=32):
    """x with each block of its last axis rounded to int8 at one scale, as quantised kernels see it."""
    width = x.shape[-1]
    pad = torch.nn.functional.pad(x, (0, -width % block)).unflatten(-1, (-1, block))
    scale = pad.abs().amax(-1, keepdim=True) / 127
    rounded = torch.where(scale > 0, (pad / scale.clamp(min=1e-30)).round(), 0) * scale
    return rounded.flatten(-2)[..., :width]


@contextlib.contextmanager
def rounded_inputs(model, quantised):
    """Inputs of linears are rounded: to int8 where quantised(name, module), to bfloat16 elsewhere."""
    hooks = []
    for name, m in model.named_modules():
        if isinstance(m, torch.nn.Linear):
            q = quantised(name, m)
            hooks.append(m.register_forward_pre_hook(
                lambda _, a, q=q: ((int8_blocks(a[0]) if q else a[0].bfloat16().float()), *a[1:])))
    try:
        yield
    finally:
        for h in hooks:
            h.remove()


def noisy(model, quantised=lambda name, module: False):
    """Logits of the model as a fast CPU would compute it, for write()."""
    def run(ids):
        with rounded_inputs(model, quantised):
            return logits_of(model)(ids)
    return run


def log_softmax(rows):
    rows = np.asarray(rows, np.float64)
    rows = rows - rows.max(-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(-1, keepdims=True))


def kl(want, got):
    """Mean over positions of sum p log(p / q)."""
    p, q = log_softmax(want), log_softmax(got)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def greedy(logits, ids, n):
    out, margins = [], []
    for _ in range(n):
        last = np.asarray(logits(ids + out)[-1], np.float64)
        second, first = np.partition(last, -2)[-2:]
        out.append(int(last.argmax()))
        margins.append(number((first - second) / last.std()))
    return out, margins


def generator(name):
    """Random numbers that are the same for the same name."""
    return np.random.default_rng(int.from_bytes(name.encode(), "little") % 2**32)


def clear_ids(name, logits, n_vocab, n, n_greedy=8):
    """A random prompt of n ids after which every greedy step is clear: another order of the same sums may
    choose no other. Half of the seeds or more will do."""
    rng = generator(f"ids {n} {name}")
    for _ in range(1000):
        ids = [int(i) for i in rng.integers(0, n_vocab, n)]
        if min(greedy(logits, ids, n_greedy)[1]) >= MARGIN:
            return ids
    raise RuntimeError(f"{name}: no prompt of {n} ids with clear greedy steps")


def pack_rows(rows):
    """float64 [n, n_vocab] -> low, step, u16: 16 bits of the range of this case's logits."""
    low, high = float(rows.min()), float(rows.max())
    step = (high - low) / 65535 or 1.0
    return low, step, np.rint((rows - low) / step).astype("<u2")


def write(folder, oracle, logits, inputs, weights, noisy, n_greedy=8, every=1):
    """golden.json and golden.u16 into folder. inputs: id lists; every: check each n-th position of inputs
    of more than 32 ids (and the last). weights: "f32", "16-bit" or "quantised". Returns the report."""
    cases, blob, offset = [], [], 0
    worst_margin, noises = 9e9, []
    for ids in inputs:
        rows = np.asarray(logits(ids), np.float64)
        assert np.isfinite(rows).all(), f"{folder}: the oracle's logits are not finite"
        at = list(range(len(ids)))
        if len(ids) > 32:
            at = sorted(set(at[::every]) | {len(ids) - 1})
        low, step, packed = pack_rows(rows[at])
        following, margins = greedy(logits, ids, n_greedy)
        worst_margin = min([worst_margin] + margins)
        noises.append((kl(rows[at], noisy(ids)[at]), len(at)))
        cases.append({"ids": ids, "positions": at, "first": offset, "low": low, "step": step,
                      "greedy": following, "margins": margins, "noise_kl": number(noises[-1][0])})
        blob.append(packed)
        offset += len(at)
    noise = sum(k * n for k, n in noises) / sum(n for _, n in noises)
    top = {"oracle": oracle, "n_vocab": int(blob[0].shape[1]), "weights": weights,
           "noise_kl": number(noise), "cases": cases}
    os.makedirs(folder, exist_ok=True)
    for name in ("golden.json", "golden.u16"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, name))
    with open(os.path.join(folder, "golden.json"), "w") as f:
        f.write(json.dumps(top, separators=(",", ":")).replace('{"ids"', '\n{"ids"') + "\n")
    np.concatenate(blob).tofile(os.path.join(folder, "golden.u16"))
    print(f"{os.path.basename(folder):28} {offset:4} positions, noise KL {noise:.2g}, smallest margin "
          f"{worst_margin:.3f}" + (" <- too small: take another seed" if worst_margin < MARGIN else ""))
    return top


def same_as(folder, other, names):
    """Symbolic links in folder to files of another one: weights or golden logits that are the same."""
    os.makedirs(folder, exist_ok=True)
    for name in names:
        path = os.path.join(folder, name)
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        os.symlink(os.path.join("..", os.path.basename(other), name), path)


def fresh(name):
    """An empty folder of that name beside this file."""
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder


def write_json(folder, name, value):
    path = os.path.join(folder, name)
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)  # never through a link
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")
