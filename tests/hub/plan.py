"""`ashley plan` over the local hub: sizes from listings and headers, and nothing else is fetched."""

import json
import os
import struct
import subprocess

import harness
from content import Made
from harness import check, equal, test
from server import File
from world import TOKEN, environment, fresh, good, tiny

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LOGITS = os.path.join(ROOT, "tests", "golden", "logits")
MIB = 1 << 20
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 400000,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}


def plan(hub, cache, status, *models, **env):
    """The plan's JSON, and its entries by model. It leaves no file behind."""
    home = os.path.dirname(cache)
    tmp = os.path.join(home, "tmp")
    os.makedirs(tmp, exist_ok=True)
    env = {k: os.environ[k] for k in ("PATH", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS") if k in os.environ} | {
        "HOME": home, "TMPDIR": tmp, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": cache,
        "ASHLEY_MODELS_FILE": os.path.join(ROOT, "pytorch_models.json")} | env
    p = subprocess.run([harness.ARGS.binary, "plan", "--json", *models], cwd=home, env=env, timeout=120,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       check=False)
    equal(p.returncode, status, f"exit status of plan {models}: {p.stderr[-600:]} {p.stdout[-600:]}")
    equal(os.listdir(tmp), [], "left behind")
    check(TOKEN not in p.stdout + p.stderr, "a secret is shown")
    v = json.loads(p.stdout)
    return v, {m["model"]: m for m in v["models"]}


def one_layer():
    """Configuration and safetensors file of a model whose vocabulary makes it 51 MB, all but empty."""
    e, ff, v = LLAMA["hidden_size"], LLAMA["intermediate_size"], LLAMA["vocab_size"]
    p = "model.layers.0."
    shapes = {"model.embed_tokens.weight": [v, e], "model.norm.weight": [e],
              p + "input_layernorm.weight": [e], p + "post_attention_layernorm.weight": [e]}
    shapes |= {p + f"self_attn.{x}_proj.weight": [e, e] for x in "qkvo"}
    shapes |= {p + "mlp.gate_proj.weight": [ff, e], p + "mlp.up_proj.weight": [ff, e],
               p + "mlp.down_proj.weight": [e, ff]}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    head = struct.pack("<Q", len(text)) + text
    return json.dumps(LLAMA), File("w", Made("w", len(head) + at, head=head, sha256="ab" * 32), "lfs")


@test
def a_plan_of_nothing_says_how_to_plan_something():
    with fresh() as (hub, cache):
        out = subprocess.run([harness.ARGS.binary, "plan"], env=environment(hub, cache), timeout=20,
                             cwd=os.path.dirname(cache), capture_output=True, text=True)
        check(out.returncode == 0 and "PRELOAD_MODELS is empty" in out.stdout, out)


@test
def a_safetensors_file_is_planned_by_its_header():
    with fresh() as (hub, cache):
        config, weights = one_layer()
        files = {"config.json": config, "tokenizer.json": "{}", "model.safetensors": weights}
        hub.repo("acme/one").commit(files)
        v, m = plan(hub, cache, 0, "acme/one")
        e = m["acme/one"]
        equal((e["verdict"], e["basis"], e["files"]), ("fits", "headers", 1))
        equal(e["bytes_to_fetch"], weights.size + len(config) + 2)
        check(51e6 < e["weight_bytes"] < 53e6 and e["kv_bytes"] > 0, e)
        equal(e["disk_after"], v["machine"]["disk_free"] - e["bytes_to_fetch"])
        check(not os.path.exists(os.path.join(cache, "models--acme--one", "blobs")), "blobs")


@test
def a_gguf_is_planned_as_it_is_once_it_is_here():
    with fresh() as (hub, cache):
        local = os.path.join(LOGITS, "tiny-q8-0.gguf")
        with open(local, "rb") as f:
            data = f.read()
        hub.repo("acme/q").commit({"m.Q8_0.gguf": File("x", data, "lfs"),
                                   "m.Q4_0.gguf": File("y", b"GGUF" * 99, "lfs")})
        _, m = plan(hub, cache, 0, "acme/q:Q8_0", local)
        there, here = m["acme/q:Q8_0"], m[local]
        equal(there["bytes_to_fetch"], len(data))
        for key in ("weight_bytes", "kv_bytes", "scratch_bytes", "n_ctx", "resident_bytes"):
            equal(there[key], here[key], key)
        _, m = plan(hub, cache, 6, "acme/q:Q4_0")  # its header says that it cannot be read
        e = m["acme/q:Q4_0"]
        check(e["verdict"] == "refused" and e["reason"].startswith("m.Q4_0.gguf: GGUF version"), e)


@test
def a_download_says_how_long_the_next_one_takes():
    with fresh() as (hub, cache):
        config, weights = one_layer()
        files = {"config.json": config, "tokenizer.json": "{}", "model.safetensors": weights}
        hub.repo("acme/one").commit(files)
        tiny(hub, size=16 * MIB)
        v, m = plan(hub, cache, 0, "acme/one")
        check(v["machine"]["fetch_rate"] is None and m["acme/one"]["fetch_seconds"] is None, m)
        hub.faults.add(side="cdn", method="GET", rate=4 * MIB)  # slow enough to be measured
        good(hub, cache)
        v, m = plan(hub, cache, 0, "acme/one")
        rate, e = v["machine"]["fetch_rate"], m["acme/one"]
        check(0.1 * MIB < rate < 1000 * MIB and e["fetch_basis"] == "fetch rate", v["machine"], e)
        equal(round(e["fetch_seconds"], 6), round(e["bytes_to_fetch"] / rate, 6))


@test
def deepseek_r1_is_planned_by_its_index():
    with fresh() as (hub, cache):
        config = {
            "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 7168,
            "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
            "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256,
            "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "moe_layer_freq": 1,
            "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
            "v_head_dim": 128, "n_group": 8, "topk_group": 4, "topk_method": "noaux_tc",
            "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.5,
            "rms_norm_eps": 1e-6, "rope_theta": 10000, "max_position_embeddings": 163840,
            "vocab_size": 129280, "hidden_act": "silu", "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096,
                             "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
            "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                    "weight_block_size": [128, 128]},
        }
        names = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
        for n in range(61):
            p = f"model.layers.{n}."
            names += [p + x + "layernorm.weight" for x in
                      ("input_", "post_attention_", "self_attn.q_a_", "self_attn.kv_a_")]
            two = ["self_attn." + x for x in
                   ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")]
            mlps = ["mlp."]
            if n >= 3:
                names += [p + "mlp.gate.weight", p + "mlp.gate.e_score_correction_bias"]
                mlps = [f"mlp.experts.{k}." for k in range(256)] + ["mlp.shared_experts."]
            two += [x + y + "_proj" for x in mlps for y in ("gate", "up", "down")]
            names += [p + x + end for x in two for end in (".weight", ".weight_scale_inv")]
        shards = [f"model-{i:05}-of-000163.safetensors" for i in range(1, 164)]
        where = {x: shards[i * 163 // len(names)] for i, x in enumerate(names)}
        index = {"metadata": {}, "weight_map": where}
        files = {"config.json": json.dumps(config), "tokenizer.json": "{}",
                 "model.safetensors.index.json": File("i", json.dumps(index).encode(), "git")}
        files |= {x: File(x, Made(x, 4224459679, sha256=f"{i:064x}"), "lfs") for i, x in enumerate(shards)}
        hub.repo("deepseek-ai/DeepSeek-R1").commit(files)
        v, m = plan(hub, cache, 3, "deepseek-r1")
        e = m["deepseek-r1"]
        equal((e["verdict"], e["basis"], e["files"]), ("does_not_fit_disk", "index", 163))
        check(e["bytes_to_fetch"] >= 163 * 4224459679 and 660e9 < e["weight_bytes"] < 690e9, e)
        check("This machine has" in e["warning"] and not v["fits"], e["warning"])
        equal(hub.requests(path=r"/resolve/.*\.safetensors$"), [], "shards")


@test
def what_is_not_to_be_had_is_said():
    with fresh() as (hub, cache):
        config, weights = one_layer()
        hub.repo("acme/gated").commit({"config.json": config, "model.safetensors": weights})
        hub.repo("acme/gated").gated = "manual"
        _, m = plan(hub, cache, 7, "acme/gated")
        equal(m["acme/gated"]["verdict"], "no_access")
        _, m = plan(hub, cache, 4, "acme/nothing", HF_TOKEN=TOKEN)
        equal(m["acme/nothing"]["verdict"], "not_found")
    _, m = plan(hub, cache, 0, "openhermes-2.5-mistral-7b-gptq")  # the hub is gone: the catalogue's word
    e = m["openhermes-2.5-mistral-7b-gptq"]
    equal((e["verdict"], e["basis"]), ("fits", "catalogue"))
