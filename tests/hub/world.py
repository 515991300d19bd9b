"""What the hub's tests share: repositories, and a fresh hub and cache for each test."""

import contextlib
import functools
import json
import os
import tempfile

from content import Made
from server import File, Hub

TOKEN, OTHER = "hf_testTokenOfTheOwner", "hf_testTokenOfAnother"
SMALL = {
    "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}),
    "generation_config.json": "{}",
    "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}),
    "tokenizer_config.json": "{}",
    "README.md": "# A model\n",
    ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
}
MIB = 1 << 20


@functools.lru_cache(maxsize=None)
def weights(name, size, kind="lfs"):
    """A large file; the same one is hashed once."""
    return File(name, Made(name, size), kind)


def tiny(hub, name="acme/tiny", size=9 * MIB + 12345, kind="lfs"):
    """A model as there are many: small files, one file of weights, an older version, files that no
    model needs."""
    repo = hub.repo(name)
    old = dict(SMALL) | {
        "README.md": "# An older model\n",
        "model.safetensors": weights("old", 3 * MIB, kind),
    }
    repo.commit(old, "v1")
    now = dict(SMALL) | {
        "model.safetensors": weights("model.safetensors", size, kind),
        "pytorch_model.bin": weights("pytorch_model.bin", 5 * MIB + 1, kind),
        "original/consolidated.00.pth": weights("consolidated", 4 * MIB, kind),
        "a folder/with ünïcode.txt": "named so that it must be escaped\n",
    }
    repo.commit(now, "main")
    repo.commit(now | {"README.md": "# A proposal\n"}, "refs/pr/1")
    return repo


def gguf(hub, name="acme/tiny-GGUF", size=2 * MIB + 99):
    """One model in three quantisations, one of them in two parts."""
    repo = hub.repo(name)
    repo.commit(
        {
            "README.md": "# Quantised\n",
            "tiny.Q4_K_M.gguf": weights("tiny.Q4_K_M.gguf", size),
            "tiny.Q8_0.gguf": weights("tiny.Q8_0.gguf", 2 * size),
            "BF16/tiny-BF16-00001-of-00002.gguf": weights("bf16.1", size),
            "BF16/tiny-BF16-00002-of-00002.gguf": weights("bf16.2", size + 7),
        }
    )
    return repo


@contextlib.contextmanager
def fresh(**options):
    """(hub, cache folder); the hub knows both tokens."""
    with tempfile.TemporaryDirectory(prefix="ashley-hub-") as folder, Hub(**options) as hub:
        hub.tokens |= {TOKEN, OTHER}
        yield hub, os.path.join(folder, "hub")


def content_of(file):
    return b"".join(bytes(p) for p in file.content.pieces(0, file.size))


def folder_of(cache, name):
    return os.path.join(cache, "models--" + name.replace("/", "--"))
