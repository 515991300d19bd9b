"""Drives GPTQModel's kernels for CPUs under transformers, for bench/vs_peers.py, which installs it.
usage: python gptqmodel_peer.py FOLDER N_PROMPT N_DECODE THREADS SEQUENCES
Prints one JSON line as openvino_peer.py does, and the kernel that it chose.
"""
import json
import os
import resource
import sys
import time

prompt, decode, threads = map(int, sys.argv[2:5])
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # fewer are refused
import torch  # noqa: E402
torch.set_num_threads(threads)
from gptqmodel import GPTQModel  # noqa: E402

start = time.perf_counter()
loaded = GPTQModel.load(sys.argv[1], device="cpu")
net = loaded.model
out = {"load_s": time.perf_counter() - start,
       "kernel": next(type(m).__name__ for m in net.modules() if hasattr(m, "g_idx"))}


def run(n, length, new):
    """Seconds to the first token of n random prompts, and for `new` steps after it."""
    ids = torch.randint(1000, 20000, (n, length))
    start = time.perf_counter()
    r = net(ids, use_cache=True, logits_to_keep=1)
    first = time.perf_counter()
    for _ in range(new):
        r = net(r.logits[:, -1:].argmax(-1), past_key_values=r.past_key_values, use_cache=True)
    return first - start, time.perf_counter() - first


with torch.inference_mode():
    run(1, 64, 4)
    out["prefill"] = prompt / run(1, prompt, 0)[0]
    for n in map(int, sys.argv[5].split(",")):
        out["decode" if n == 1 else f"decode {n}"] = n * decode / run(n, 8, decode)[1]
        out.setdefault("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(json.dumps(out))
