"""What the benchmarks share: the server as a child process, medians, the reference peer's folder."""
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ASHLEY = os.environ.get("BENCH_PROGRAM") or os.path.join(ROOT, "build", "ashley")
MODEL = os.path.join(ROOT, "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
MODEL_ID = "smollm2-135m-instruct"
MIB = 1 << 20


def need(path, what):
    if not os.path.exists(path):
        sys.exit(f"{path} is not there: {what}")


def spread(values, digits=1):
    """median (lowest-highest, count)"""
    return (f"{statistics.median(values):.{digits}f} "
            f"({min(values):.{digits}f}-{max(values):.{digits}f}, {len(values)})")


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        name = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "?")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True,
                            text=True, check=False).stdout.strip()
    load = os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} CPUs, load {load:.1f} at the start, commit {commit or '?'}"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def memory(pid):
    """{"rss", "peak", "anonymous"} of a process in bytes"""
    out = {}
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        for line in f:
            key, _, value = line.partition(":")
            if key in ("VmRSS", "VmHWM", "RssAnon"):
                out[{"VmRSS": "rss", "VmHWM": "peak", "RssAnon": "anonymous"}[key]] = \
                    int(value.split()[0]) * 1024
    return out


class Server:
    """ashley serve with its own state folder and no upstream key; `with Server(...) as s`."""

    def __init__(self, preload="", **env):
        need(ASHLEY, "run scripts/run --no-serve first")
        self.port = free_port()
        self.state = tempfile.mkdtemp(prefix="ashley-bench-")
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("ASHLEY_", "OPENAI_"))}
        self.env = keep | {"ASHLEY_PORT": str(self.port), "ASHLEY_HOST": "127.0.0.1",
                           "ASHLEY_STATE_DIR": self.state, "PRELOAD_MODELS": preload,
                           "DEFAULT_MODEL": MODEL_ID} | env

    def __enter__(self):
        self.log = open(os.path.join(self.state, "log"), "w+", encoding="utf-8")
        self.started = time.perf_counter()
        self.process = subprocess.Popen([ASHLEY, "serve"], cwd=ROOT, env=self.env,
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.state, ignore_errors=True)

    def get(self, path, timeout=10):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request("GET", path)
            r = c.getresponse()
            return r.status, r.read().decode()
        finally:
            c.close()

    def wait_for(self, path, limit=120, pause=0.0):
        """Seconds from exec to the first 200 of path."""
        while time.perf_counter() - self.started < limit:
            try:
                if self.get(path)[0] == 200:
                    return time.perf_counter() - self.started
            except OSError:
                if self.process.poll() is not None:
                    break
            if pause:
                time.sleep(pause)
        self.log.seek(0)
        sys.exit(f"{path} did not answer 200:\n{self.log.read()[-2000:]}")

    def chat(self, text, tokens, **more):
        """Streams one greedy answer: {"text", "tokens", "first", "end"}, times from perf_counter."""
        body = {"model": MODEL_ID, "messages": [{"role": "user", "content": text}], "stream": True,
                "temperature": 0, "max_tokens": tokens, "ignore_eos": True,
                "stream_options": {"include_usage": True}} | more
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        out = {"text": "", "tokens": 0, "first": 0.0, "end": 0.0}
        try:
            c.request("POST", "/v1/chat/completions", json.dumps(body),
                      {"Content-Type": "application/json"})
            r = c.getresponse()
            if r.status != 200:
                sys.exit(f"chat: {r.status} {r.read().decode()[:500]}")
            for line in r:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if event.get("usage"):
                    out["tokens"] = event["usage"]["completion_tokens"]
                for choice in event.get("choices", []):
                    piece = choice.get("delta", {}).get("content")
                    if piece:
                        out["first"] = out["first"] or time.perf_counter()
                        out["text"] += piece
                        out["end"] = time.perf_counter()
        finally:
            c.close()
        return out


def metric(text, name, **labels):
    """The value of one Prometheus sample, or None."""
    for line in text.splitlines():
        if line.startswith(name + "{") or line.startswith(name + " "):
            if all(f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.rsplit(None, 1)[1])
    return None
