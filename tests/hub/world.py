"""What the hub's tests share: repositories, and a fresh hub and cache for each test."""

import collections
import contextlib
import functools
import json
import os
import re
import struct
import subprocess
import tempfile
import time

import harness
from content import Made
from server import File, Hub

TOKEN, OTHER = "hf_testTokenOfTheOwner", "hf_testTokenOfAnother"
SMALL = {
    "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}),
    "generation_config.json": "{}",
    "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}),
    "tokenizer_config.json": json.dumps({"model_max_length": 2048}),
    "README.md": "# A model\n",
    ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
}
MIB = 1 << 20
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


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


# What `ashley pull` of tiny() brings.
NEEDED = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]
CHUNK = 4 * MIB  # ASH_HUB_CHUNK of src/hub/hub.h

DONE, USAGE, NOT_FOUND, NO_ROOM, NETWORK, BAD_INPUT, AUTH = 0, 2, 4, 3, 5, 6, 7  # exit statuses

Result = collections.namedtuple("Result", "status out err seconds")


def environment(hub, cache, **more):
    env = {k: os.environ[k] for k in ("PATH", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS") if k in os.environ}
    home = os.path.dirname(cache)
    env |= {"HOME": home, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": cache}
    return env | {"ASHLEY_MODELS_FILE": os.path.join(ROOT, "pytorch_models.json")} | more


def start(hub, cache, *words, env=None, **popen):
    """A running `ashley pull`; the working directory has no .env."""
    options = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(
        [harness.ARGS.binary, "pull", *words],
        cwd=os.path.dirname(cache),
        env=environment(hub, cache, **(env or {})),
        **options | popen,
    )


def ended(process, seconds=60):
    began = time.monotonic()
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end in {seconds} s: {err[-500:]}") from None
    for token in (TOKEN, OTHER, "Signature="):
        harness.check(token not in out + err, "a secret is shown:", out[-500:], err[-500:])
    return Result(process.returncode, out, err, time.monotonic() - began)


def pull(hub, cache, *words, seconds=60, **more):
    return ended(start(hub, cache, *(words or ["acme/tiny"]), **more), seconds)


def good(hub, cache, *words, **more):
    """Pulls, which must succeed; the path that it prints."""
    r = pull(hub, cache, *words, **more)
    harness.equal(r.status, DONE, f"exit status of pull {' '.join(words)}: {r.err[-600:]}")
    return r.out.rstrip("\n")


def bad(hub, cache, status, what, *words, **more):
    """Pulls, which must fail with that status and words of `what` (a pattern) in its one message."""
    if status == NETWORK:  # given up after three times that, not a minute
        more["env"] = {"HF_HUB_DOWNLOAD_TIMEOUT": "2"} | more.get("env", {})
    r = pull(hub, cache, *words, **more)
    harness.equal(r.status, status, f"exit status, with {r.err[-600:]!r}")
    harness.check(re.search(what, r.err), f"no {what!r} in", r.err[-600:])
    harness.equal(r.out, "", "standard output of a failure")
    return r


def same(folder, repo, paths=NEEDED, revision="main"):
    """The snapshot has exactly these files, with the right content, under the names of their hashes."""
    files = repo.commits[repo.find(revision)]
    got = sorted(
        os.path.relpath(os.path.join(d, n), folder) for d, _, names in os.walk(folder) for n in names
    )
    harness.equal(got, sorted(paths), "files of the snapshot")
    for path in paths:
        with open(os.path.join(folder, path), "rb") as opened:
            harness.check(opened.read() == content_of(files[path]), "content of", path)
        blob = os.path.basename(os.path.realpath(os.path.join(folder, path)))
        harness.equal(blob, files[path].etag, f"blob of {path}")


def blobs(cache, name="acme/tiny"):
    try:
        return sorted(os.listdir(os.path.join(folder_of(cache, name), "blobs")))
    except FileNotFoundError:
        return []


def journal(cache, file, name="acme/tiny"):
    """The chunks of an unfinished file that its journal calls written (src/hub/journal.c)."""
    end = ".journal"
    for blob in blobs(cache, name):
        if blob.startswith(file.etag) and blob.endswith(end):
            with open(os.path.join(folder_of(cache, name), "blobs", blob), "rb") as f:
                data = f.read()
            return {struct.unpack_from("<Q", data, at)[0] for at in range(32, len(data) - 23, 24)}
    return set()
