"""Drives OpenVINO GenAI, for bench/vs_peers.py, which installs it.
usage: python openvino_peer.py MODEL.gguf N_PROMPT N_DECODE THREADS SEQUENCES
Prints one JSON line: tokens/s of prefill and of decode after 8 tokens, "decode N" of N sequences in one batch
together, the seconds that loading took, peak resident bytes. SEQUENCES is like 1,8,16.
"""
import json
import resource
import sys
import time

import numpy as np
import openvino as ov
import openvino_genai as genai

model, prompt, decode, threads = sys.argv[1], *map(int, sys.argv[2:5])
start = time.perf_counter()
pipe = genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)
load = time.perf_counter() - start
rng = np.random.default_rng(1)


def run(n, length, new):
    """Seconds for n prompts of that length and `new` tokens each; other prompts every time."""
    ids = rng.integers(1000, 20000, (n, length), dtype=np.int64)
    config = genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = new
    config.ignore_eos, config.do_sample = True, False
    start = time.perf_counter()
    out = pipe.generate(genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids))), config)
    took = time.perf_counter() - start
    assert out.perf_metrics.get_num_generated_tokens() == n * new
    return took


run(1, 64, 8)
got = {"prefill": prompt / run(1, prompt, 1), "load_s": load}
for n in map(int, sys.argv[5].split(",")):
    first = run(n, 8, 1)
    got["decode" if n == 1 else f"decode {n}"] = n * decode / (run(n, 8, decode + 1) - first)
    got.setdefault("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(json.dumps(got))
