"""Drives CTranslate2, for bench/vs_peers.py, which installs it.
usage: python ctranslate2_peer.py CONFIG FOLDER N_PROMPT N_DECODE THREADS SEQUENCES
Writes into FOLDER, if it is not there, a Llama of CONFIG's shape (the JSON of a config.json) with random
8-bit weights, the narrowest that it runs on a CPU. Prints one JSON line as openvino_peer.py does.
"""
import json
import os
import resource
import sys
import time

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec

SCALE = 1500.0  # of random weights from -127 to 127: a deviation of 0.05


def write(c, folder):
    d, ff, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        c["num_hidden_layers"], heads, activation=common_spec.Activation.SWISH, pre_norm=True, ffn_glu=True,
        rms_norm=True, rotary_dim=0, rotary_interleave=False, rotary_base=c.get("rope_theta", 1e4),
        num_heads_kv=kv)
    noise = np.random.default_rng(1).integers(-127, 128, max(vocab, ff, d) * max(ff, d), dtype=np.int8)

    def matrix(place, n_out, n_in):
        place.weight = noise[:n_out * n_in].reshape(n_out, n_in)
        place.weight_scale = np.full(n_out, SCALE, np.float32)

    matrix(spec.decoder.embeddings, vocab, d)
    matrix(spec.decoder.projection, vocab, d)
    spec.decoder.scale_embeddings = False
    norms = [spec.decoder.layer_norm]
    for layer in spec.decoder.layer:
        norms += [layer.self_attention.layer_norm, layer.ffn.layer_norm]
        matrix(layer.self_attention.linear[0], d + 2 * (d // heads * kv), d)
        matrix(layer.self_attention.linear[1], d, d)
        matrix(layer.ffn.linear_0, ff, d)
        matrix(layer.ffn.linear_0_noact, ff, d)
        matrix(layer.ffn.linear_1, d, ff)
    for norm in norms:
        norm.gamma = np.ones(d, np.float32)
    spec.register_vocabulary(["<unk>", "<s>", "</s>"] + [f"t{i}" for i in range(3, vocab)])
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = "<unk>", "<s>", "</s>"
    spec.config.layer_norm_epsilon = c["rms_norm_eps"]
    spec.validate()
    os.makedirs(folder)
    spec.save(folder)


def main():
    config, folder = json.loads(sys.argv[1]), sys.argv[2]
    prompt, decode, threads = map(int, sys.argv[3:6])
    if not os.path.exists(folder):
        if not os.fork():  # so that what writing takes is not in the peak
            write(config, folder)
            os._exit(0)
        if os.wait()[1]:
            sys.exit("could not write the model")
    start = time.perf_counter()
    model = ctranslate2.Generator(folder, device="cpu", compute_type="int8", inter_threads=1,
                                  intra_threads=threads)
    out = {"load_s": time.perf_counter() - start}
    rng = np.random.default_rng(2)

    def run(n, length, new):
        """Seconds for n prompts of that length and `new` tokens each; other prompts every time."""
        prompts = [[f"t{i}" for i in ids] for ids in rng.integers(1000, 20000, (n, length))]
        start = time.perf_counter()
        made = model.generate_batch(prompts, max_length=new, min_length=new, include_prompt_in_result=False)
        took = time.perf_counter() - start
        assert all(len(m.sequences_ids[0]) == new for m in made)
        return took

    run(1, 64, 8)
    out["prefill"] = prompt / run(1, prompt, 1)
    for n in map(int, sys.argv[6].split(",")):
        first = run(n, 8, 1)
        out["decode" if n == 1 else f"decode {n}"] = n * decode / (run(n, 8, decode + 1) - first)
        out.setdefault("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(json.dumps(out))


main()
