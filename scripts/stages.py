#!/usr/bin/env python3
"""The stages of scripts/test, which has installed what they need.

Each stage is a function that runs commands through `Stage.command` and returns nothing; what it counts
is taken from the runners' own words. A command that fails without a counted failure counts as one. The
output of a stage is in build-test/logs/STAGE.log; what failed is also shown.

A skipped meson test (exit 77) is a failure. Cases that a cmocka or HTTP test skips by itself, because
this CPU lacks the instructions it checks, are counted as skipped.
"""
import contextlib
import glob
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = "smollm2-135m-instruct"
LOGS = os.path.join(ROOT, "build-test", "logs")
# Not detect_stack_use_after_return: the stack that it makes up is not aligned for AVX-512 (gcc 12).
SANITIZERS = {
    # SIGSEGV is ASan's even where cmocka would take it; SIGILL is not: tests run AMX by it.
    "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:handle_segv=2",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:suppressions="
                    + os.path.join(ROOT, "tests", "tsan.supp"),
}


class Stage:
    def __init__(self, name):
        self.name = name
        self.passed = self.failed = self.skipped = 0
        self.log = open(os.path.join(LOGS, name + ".log"), "w+", encoding="utf-8", errors="replace")

    def command(self, argv, limit, env=None, cwd=ROOT):
        """Runs argv, at most limit seconds; returns (exit status, output). A hang is ended and fails."""
        self.log.write(f"$ {' '.join(argv)}\n")
        self.log.flush()
        start = self.log.tell()
        try:
            p = subprocess.Popen(argv, cwd=cwd, env=os.environ | SANITIZERS | (env or {}),
                                 stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
                                 start_new_session=True)
        except OSError as e:
            self.log.write(f"{argv[0]}: {e.strerror}\n")
            return 127, ""
        try:
            status = p.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()
            status = 124
        self.log.seek(0, os.SEEK_END)
        if status == 124:
            self.log.write(f"\nstages: ended after {limit} s\n")
        self.log.flush()
        self.log.seek(start)
        output = self.log.read()
        self.log.seek(0, os.SEEK_END)
        return status, output

    def must(self, argv, limit, **more):
        """A command that is one step of the stage, not a test: its failure is one failure."""
        status, _ = self.command(argv, limit, **more)
        if status:
            self.failed += 1
        return status == 0

    def count_closing_line(self, status, output):
        """Counts by the runner's last line "N passed, N failed[, N skipped]"."""
        lines = re.findall(r"^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$", output, re.M)
        if lines:
            passed, failed, skipped = (int(n or 0) for n in lines[-1])
            self.passed += passed
            self.failed += failed or (1 if status else 0)
            self.skipped += skipped
        else:
            self.log.write("stages: no closing line\n")
            self.failed += 1

    def setup(self, folder, *options, env=None, suite=None):
        """A build folder of its own with these options, built (only what the suite's tests need, if one
        is named); begun anew if a stop left half of one."""
        path = os.path.join(ROOT, folder)
        if not os.path.exists(os.path.join(path, "build.ninja")):
            if not self.must(["rm", "-rf", "--", *glob.glob(path + "/meson-*")], 60):
                return False
            if not self.must(["meson", "setup", folder, "-Dtests=true", *options], 300, env=env):
                return False
        targets = []
        if suite:  # ninja first brings the list itself up to date
            if not self.must(["ninja", "-C", folder, "build.ninja"], 300):
                return False
            with open(os.path.join(path, "meson-info", "intro-tests.json"), encoding="utf-8") as f:
                targets = [os.path.relpath(t["cmd"][0], path) for t in json.load(f)
                           if any(x.endswith(":" + suite) for x in t["suite"])]
        return self.must(["ninja", "-C", folder, "-k", "0", *targets], 1800)

    def meson_test(self, folder, *options, limit=900, wrapper=(), env=None):
        """Runs meson's tests and counts the cases within them where the runner is cmocka."""
        results = os.path.join(ROOT, folder, "meson-logs", "testlog.json")
        if os.path.exists(results):
            os.unlink(results)
        status, _ = self.command([*wrapper, "meson", "test", "-C", folder, "--no-rebuild",
                                  "--print-errorlogs", *options], limit, env=env)
        failed = self.failed
        tests = []
        if os.path.exists(results):
            with open(results, encoding="utf-8") as f:
                tests = [json.loads(line) for line in f if line.strip()]
        for t in tests:
            text = t.get("stdout", "") + t.get("stderr", "")
            cases = sum(int(n) for n in re.findall(r"\[  PASSED  \] (\d+) test", text))
            self.skipped += sum(int(n) for n in re.findall(r"\[  SKIPPED \] (\d+) test", text))
            if t["result"] == "OK":
                self.passed += cases or 1
            else:
                self.passed += cases
                self.failed += max(1, sum(int(n) for n in re.findall(r"\[  FAILED  \] (\d+) test", text)))
        if not tests or (status and self.failed == failed):
            self.log.write("stages: meson ran no test, or failed without saying which\n")
            self.failed += 1


@contextlib.contextmanager
def real_server(s):
    """The built program with the default model, on a free port and without a .env; yields its URL. The
    context of 300 tokens bounds an answer: a small model may go on and on."""
    preload = json.dumps([{"model": MODEL, "ctx": 300}])
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "log"), "w+b") as out:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("ASHLEY_", "OPENAI_"))}
        env |= {"ASHLEY_PORT": "0", "PRELOAD_MODELS": preload, "DEFAULT_MODEL": MODEL}
        empty = os.path.join(folder, "empty.env")
        with open(empty, "w", encoding="utf-8"):
            pass
        p = subprocess.Popen(["build/ashley", "serve", "--env-file", empty], cwd=ROOT, env=env,
                             stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        try:
            url = None
            for _ in range(600):
                out.seek(0)
                found = re.search(rb"listens on (http://[\w.:]+)", out.read())
                if found or p.poll() is not None:
                    url = found and found.group(1).decode()
                    break
                time.sleep(0.05)
            if not url:
                out.seek(0)
                s.log.write("stages: the server did not start: " + out.read().decode("utf-8", "replace"))
                s.failed += 1
            yield url or "http://127.0.0.1:9"
        finally:
            p.terminate()
            try:
                p.wait(40)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()


def gates(s):
    """rules about the sources: direction of includes, sizes, banned functions, links, ..."""
    s.count_closing_line(*s.command(["tests/gates/run.py"], 120))


def setup(s):
    """scripts/run and scripts/test themselves, over a made-up machine"""
    s.count_closing_line(*s.command(["tests/scripts/run.py"], 300))


def unit(s):
    """gcc with -Werror, all unit tests and golden files"""
    if s.setup("build-test", "-Dwerror=true"):
        s.meson_test("build-test", "--no-suite", "gates", "--no-suite", "fuzz")


def asan(s):
    """the unit tests once more under AddressSanitizer and UndefinedBehaviorSanitizer"""
    if s.setup("build-asan", "-Db_sanitize=address,undefined"):
        s.meson_test("build-asan", "--no-suite", "gates", "--no-suite", "fuzz", "-t", "5")


def fuzz(s):
    """every parser's fuzzer over its corpus and a fixed count of mutations, sanitizers on"""
    if s.setup("build-asan", "-Db_sanitize=address,undefined", suite="fuzz"):
        s.meson_test("build-asan", "--suite", "fuzz", "-t", "5")


def tsan(s):
    """the tests of suite 'threads' under ThreadSanitizer"""
    if s.setup("build-tsan", "-Db_sanitize=thread", suite="threads"):
        # Debian 12's ThreadSanitizer does not start where the kernel spreads addresses widely.
        still = ["setarch", os.uname().machine, "-R"]
        if subprocess.run([*still, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
            still = []
        s.meson_test("build-tsan", "--suite", "threads", "-t", "10", wrapper=still)


def clang(s):
    """the whole build with clang and -Werror"""
    if s.setup("build-clang", "-Dwerror=true", env={"CC": "clang"}):
        s.passed += 1


def arm(s):
    """the kernels cross-compiled for AArch64, tested under qemu-user as an old and a new processor"""
    if s.setup("build-arm", "-Dwerror=true", "-Dkernels_only=true",
               "--cross-file", "tests/cross/aarch64.ini"):
        few = ["elem", "matmul_fp8", "matmul_gptq", "pack_version", "decode", "gptq", "linear_formats", "moe"]
        s.meson_test("build-arm", *few, "-t", "3", env={"QEMU_CPU": "cortex-a72"})  # Armv8.0
        s.meson_test("build-arm", *few, "matmul", "layers", "-t", "3", env={"QEMU_CPU": "max"})


def cli(s):
    """the command line: outputs, exit statuses, refusals"""
    s.count_closing_line(*s.command(["tests/cli/run"], 600))


def http(s):
    """the built server over HTTP: statuses, streams, limits, the openai clients for Python and npm"""
    if s.setup("build-test", "-Dwerror=true"):  # it has the server over fake parts
        s.count_closing_line(*s.command(["tests/http/run"], 900))


def hub(s):
    """the hub client over a local hub, which the Python client proves faithful"""
    s.count_closing_line(*s.command(["tests/hub/run"], 600))


def web(s):
    """the page in Chromium, against a made-up server and the real one"""
    if s.must(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], 300,
              cwd=os.path.join(ROOT, "tests/web")):
        s.count_closing_line(*s.command(["node", "tests/web/run.mjs"], 600))
        with real_server(s) as url:
            s.count_closing_line(*s.command(["node", "tests/web/run.mjs", "--url", url, "--model", MODEL],
                                            300))


STAGES = [gates, setup, unit, asan, fuzz, tsan, clang, arm, cli, http, hub, web]


def show_failure(s):
    s.log.flush()
    with open(s.log.name, encoding="utf-8", errors="replace") as f:
        lines = [x for x in f.read().splitlines() if not re.match(r"\[\d+/\d+\] (Comp|Link|Gen)", x)]
    told = [n for n, line in enumerate(lines)
            if re.search(r"\berror:|\[  FAILED  \]|^FAIL|Sanitizer|^stages:|Traceback|not ok", line)]
    if told and told[0] < len(lines) - 60:
        print(f"     {s.name}.log from line {max(1, told[0] - 3)}:")
        for line in lines[max(0, told[0] - 4):told[0] + 36]:
            print("     | " + line)
    print(f"     the end of {s.name}.log:")
    for line in lines[-60:]:
        print("     | " + line)


def main(args):
    names = [f.__name__ for f in STAGES]
    if args == ["--list"]:
        for f in STAGES:
            print(f"{f.__name__:8} {f.__doc__}")
        return 0
    unknown = [a for a in args if a not in names]
    if unknown:
        print(f"scripts/test: no stage {' '.join(unknown)}; there are: {' '.join(names)}", file=sys.stderr)
        return 2
    os.makedirs(LOGS, exist_ok=True)
    begin = time.monotonic()
    done = []
    for f in STAGES:
        if args and f.__name__ not in args:
            continue
        s = Stage(f.__name__)
        print(f"---- {s.name:8} {f.__doc__}", flush=True)
        t = time.monotonic()
        try:
            f(s)
        except Exception as e:  # one broken stage must not hide the others
            s.log.write(f"stages: {type(e).__name__}: {e}\n")
            s.failed += 1
        if s.passed + s.failed == 0:
            s.log.write("stages: ran no test\n")
            s.failed += 1
        skipped = f", {s.skipped} skipped" if s.skipped else ""
        print(f"{'FAIL' if s.failed else 'ok  '} {s.name:8} {time.monotonic() - t:6.1f} s  "
              f"{s.passed} passed, {s.failed} failed{skipped}", flush=True)
        if s.failed:
            show_failure(s)
        done.append(s)
    failed = [s.name for s in done if s.failed]
    print(f"{time.monotonic() - begin:.0f} s in all; logs in build-test/logs/"
          + (f"; failed: {' '.join(failed)}" if failed else ""))
    skipped = sum(s.skipped for s in done)
    print(f"{sum(s.passed for s in done)} passed, {sum(s.failed for s in done)} failed"
          + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
