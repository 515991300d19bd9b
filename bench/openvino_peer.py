"""Drives OpenVINO GenAI, for bench/vs_peers.py, which installs it.
usage: python openvino_peer.py MODEL.gguf N_PROMPT N_DECODE THREADS
Prints one JSON line: tokens/s of prefill and of decode after 8 tokens, the seconds that loading took.
"""
import json
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


def run(n, new):
    """Milliseconds to the first token, and of each one after it; another prompt every time."""
    ids = rng.integers(1000, 20000, (1, n), dtype=np.int64)
    config = genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = new
    config.ignore_eos, config.do_sample = True, False
    out = pipe.generate(genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids))), config)
    assert out.perf_metrics.get_num_generated_tokens() == new
    return out.perf_metrics.get_ttft().mean, out.perf_metrics.get_tpot().mean


run(64, 8)
first, _ = run(prompt, 1)
_, each = run(8, decode + 1)
print(json.dumps({"prefill": 1000 * prompt / first, "decode": 1000 / each, "load_s": load}))
