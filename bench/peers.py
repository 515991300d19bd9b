"""The engines that bench/vs_peers.py compares, each installed from its registry the first time into
~/.cache/ashley-bench, and one run of each: a process of its own that loads, warms up and measures.

A run's result is a dictionary: "prefill" and "decode" in tokens a second, "decode N" of N sequences together,
"peak" in bytes of resident memory, and what else an engine tells. Raises Failed where a process fails.
"""
import json
import os
import subprocess
import sys

from common import ASHLEY, ROOT

NODE, NODE_VERSION = "node-llama-cpp", "3.22.1"
PYTHON = {"openvino": ("openvino-genai", "2026.4.1.0"), "ctranslate2": ("ctranslate2", "4.8.5"),
          "gptqmodel": ("gptqmodel", "7.7.0")}


class Failed(Exception):
    pass


def installed(name, version, install):
    """The folder of a peer, which install(folder) fills the first time."""
    folder = os.path.join(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"),
                          "ashley-bench", f"{name}-{version}")
    stamp = os.path.join(folder, ".installed")
    if not os.path.exists(stamp):
        print(f"installing {name} {version} into {folder}", file=sys.stderr)
        os.makedirs(folder, exist_ok=True)
        install(folder)
        with open(stamp, "w", encoding="utf-8"):
            pass
    return folder


def install_node(folder):
    with open(os.path.join(folder, "package.json"), "w", encoding="utf-8") as f:
        json.dump({"name": "peer", "private": True}, f)
    subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error",
                    f"{NODE}@{NODE_VERSION}"], cwd=folder, check=True)


def python(peer):
    """The interpreter of a virtual environment that has the peer's package."""
    name, version = PYTHON[peer]

    def install(folder):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [os.path.join(folder, "bin", "pip"), "install", "-q"]
        if peer == "gptqmodel":  # builds with the torch that is there
            subprocess.run(pip + ["torch", "transformers", "setuptools"], check=True)
        subprocess.run(pip + [f"{name}=={version}"], check=True)

    return os.path.join(installed(name, version, install), "bin", "python")


def run(argv, limit=None, messages=subprocess.PIPE):
    """The output of one process; its messages, shown only if it fails, or part of it (STDOUT)."""
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=messages, stdin=subprocess.DEVNULL)
    try:
        out, log = p.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        p.kill()
        p.communicate()
        raise Failed(f"longer than {limit} s") from None
    if p.returncode:
        raise Failed(f"{os.path.basename(argv[0])} ended with {p.returncode}: "
                     f"{(log or out).decode(errors='replace').strip()[-300:]}")
    return out


def measured(argv):
    """The last line of a driver's output, which is JSON."""
    return json.loads(run(argv).splitlines()[-1])


def sizes(o):
    return [str(o.prompt), str(o.decode), str(o.threads), ",".join(map(str, o.sequences))]


def ashley(o, path, memory=True):
    """With "share TEST", the share of the limit that the same process measured, and the limits."""
    out = json.loads(run([ASHLEY, "bench", path, "-p", str(o.prompt), "-n", str(o.decode), "-r", "1", "-s",
                          ",".join(map(str, o.sequences)), "--json", "--quiet"]))
    got = {"limits": out["limits"]}
    for r in out["results"]:
        kind, _, count = r["test"].partition("-")
        test = f"decode {count.split('x')[1]}" if "x" in count else kind
        got |= {test: r["median"], f"share {test}": r["limit_fraction"]}
    if memory:  # the bench itself holds buffers to measure the machine with: not what a user's process holds
        letters = 20 if os.path.isdir(path) else 40  # random vocabularies have shorter tokens
        words = ("The tide came in and the tide went out. " * (o.prompt // 10))[:o.prompt // 10 * letters]
        got["peak"] = peak([ASHLEY, "run", path, words, "-n", str(o.decode), "-t", "0", "--quiet"])
    return got


def peak(argv):
    """Peak resident bytes of one process."""
    p = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise Failed(f"{argv[0]} {argv[1]} ended with {p.returncode}")
    return usage.ru_maxrss * 1024


def llamacpp(o, path):
    folder = installed(NODE, NODE_VERSION, install_node)
    return measured(["node", os.path.join(ROOT, "bench", "llamacpp.mjs"), folder, path] + sizes(o))


def openvino(o, path):
    return measured([python("openvino"), os.path.join(ROOT, "bench", "openvino_peer.py"), path] + sizes(o))


def ctranslate2(o, path):
    """8-bit weights of its own kind whatever the file: only the shape is the same."""
    driver = os.path.join(ROOT, "bench", "ctranslate2_peer.py")
    return measured([python("ctranslate2"), driver, json.dumps(o.shape_config), path + ".ct2"] + sizes(o))


def gptqmodel(o, path):
    return measured([python("gptqmodel"), os.path.join(ROOT, "bench", "gptqmodel_peer.py"), path] + sizes(o))


def ik(o, path):
    """ik_llama.cpp from where its user has built it, options included; several sequences by the
    llama-batched-bench beside it, if that was built too."""
    threads = ["-t", str(o.threads)]
    tests = ["-p", str(o.prompt), "-n", str(o.decode), "-r", "1", "-o", "json"]
    out = json.loads(run(o.ik + ["-m", path] + tests + threads))
    got = {"prefill" if r["n_prompt"] else "decode": r["avg_ts"] for r in out}
    batched = os.path.join(os.path.dirname(o.ik[0]), "llama-batched-bench")
    several = [n for n in o.sequences if n > 1]
    if several and os.path.exists(batched):
        room = max(several) * (8 + o.decode) + 64
        switches = [w for w in o.ik[1:] if w != "1"]  # llama-bench's "-rtr 1" is "-rtr" here
        text = run([batched] + switches + ["-m", path, "-c", str(room), "-npp", "8", "-ntg", str(o.decode),
                                           "-npl", ",".join(map(str, several))] + threads,
                   messages=subprocess.STDOUT).decode()  # its table is among its messages
        for line in text.splitlines():  # | PP | TG | B | N_KV | T_PP | S_PP | T_TG | S_TG | ...
            cells = [c.strip() for c in line.strip("|").split("|")]
            if len(cells) > 7 and cells[0].isdigit():
                got[f"decode {cells[2]}"] = float(cells[7])
    return got


# What reads which files; the first is compared with all others.
GGUF_PEERS = {"llama.cpp": llamacpp, "openvino": openvino, "ctranslate2": ctranslate2, "ik": ik}
GPTQ_PEERS = {"gptqmodel": gptqmodel}
# Resident bytes a byte of the file, about: a side that does not fit the memory is left out.
MEMORY = {"llama.cpp": 2.1, "openvino": 3.3, "ctranslate2": 2, "ik": 1.3, "gptqmodel": 2.5}
