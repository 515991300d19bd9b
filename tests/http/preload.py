"""PRELOAD_MODELS as its user meets it: one test for each thing that can come of it.

Each begins as a user does, with a `.env` in a folder and `ashley serve` there, and asks over curl, the
openai package or plain HTTP. What is to be fetched is at a local hub (tests/hub/server.py). The models are
SmolLM2 and what its first and last layer alone make up, which answers nonsense at a third of the size.
"""

import concurrent.futures
import contextlib
import functools
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import openai

import harness
from fake_upstream import WORDS, Upstream
from harness import Server, Skip, check, data_events, equal, error_of, events, test, text_of
from real import model_file
from server import File, Hub

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TIMES = "QUEUE LOAD FIRST_TOKEN IDLE".split()


@functools.lru_cache(maxsize=None)
def nonsense_file():
    """Two of SmolLM2's thirty layers."""
    folder = tempfile.mkdtemp(prefix="ashley-preload-")
    out = os.path.join(folder, "nonsense.gguf")
    middle = ",".join(str(n) for n in range(1, 29))
    deepen = os.path.join(ROOT, "bench", "deepen.py")
    subprocess.run([sys.executable, deepen, model_file(), out, "--drop", middle], check=True)
    return out


@functools.lru_cache(maxsize=None)
def on_the_hub(path):
    with open(path, "rb") as f:
        return File("m", f.read(), "lfs")


class Home:
    """A user's folder: .env, the catalogue, the hub's cache. Models "small" and "nonsense" are files there,
    "far" and "far-nonsense" are at the hub; more(name, ...) adds others."""

    def __init__(self, hub):
        self.hub, self.path = hub, tempfile.mkdtemp(prefix="ashley-preload-")
        self.cache = os.path.join(self.path, "hub")
        self.entries = {}
        for name, path in (("small", model_file()), ("nonsense", nonsense_file())):
            repo = f"acme/{name}-GGUF"
            hub.repo(repo).commit({"README.md": "# A model\n", f"{name}.Q4_1.gguf": on_the_hub(path)})
            self.more(name, path=path)
            self.more("far" if name == "small" else "far-" + name, repo=repo)

    def more(self, name, **fields):
        entry = {"format": "gguf", "size": "small", "description": "x", "context": 512}
        self.entries[name] = entry | fields

    def write(self, **settings):
        """The .env: as it comes, with what keeps a test on this machine."""
        with open(os.path.join(self.path, "models.json"), "w", encoding="utf-8") as f:
            json.dump(self.entries, f)
        # a busy machine is no failure
        base = {f"ASHLEY_{name}_TIMEOUT": "5m" for name in TIMES} | {
            "ASHLEY_PORT": "0",
            "ASHLEY_MODELS_FILE": "models.json",
            "ASHLEY_STATE_DIR": "state",
            "DEFAULT_MODEL": "small",
            "HF_ENDPOINT": self.hub.url,
            "HF_HUB_CACHE": self.cache,
        }
        with open(os.path.join(self.path, ".env"), "w", encoding="utf-8") as f:
            f.write("# What this machine serves\n")
            for key, value in (base | settings).items():
                f.write(f"{key}='{value}'\n" if "[" in value else f"{key}={value}\n")

    def run(self, *words):
        """Another command in that folder: (exit status, standard output)."""
        r = subprocess.run([harness.ARGS.binary, *words], cwd=self.path, env=self.environment(), text=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           check=False)  # fmt: skip
        return r.returncode, r.stdout

    def environment(self):
        more = {k: v for k, v in os.environ.items() if "SAN_OPTIONS" in k}
        return {"PATH": os.environ["PATH"], "HOME": self.path} | more

    @contextlib.contextmanager
    def serving(self, *words):
        s = Started(harness.ARGS.binary, "serve", *words, cwd=self.path, env=self.environment(),
                    stdin=subprocess.DEVNULL)  # fmt: skip
        try:
            yield s
            check(s.process.poll() is None, "it ended by itself:", s.errors[-5:])
        finally:
            status = s.stop()
        equal(status, 0, "exit status")


@contextlib.contextmanager
def home():
    with Hub() as hub:
        h = Home(hub)
        try:
            yield h
        finally:
            shutil.rmtree(h.path)


class Started(Server):
    def states(self):
        return {m["id"]: m["status"]["value"] for m in json.loads(self.get("/v1/models").body)["data"]}

    def status_of(self, model):
        listed = json.loads(self.get("/v1/models").body)["data"]
        return next(m["status"] for m in listed if m["id"] == model)

    def error(self, model):
        """The code of a failed one."""
        st = self.status_of(model)
        equal(st["value"], "failed", st)
        check(st["error"]["message"] and st["error"]["hint"], st)
        return st["error"]["code"]

    def until(self, what, wanted, seconds=60):
        end = time.monotonic() + seconds
        while (got := what()) != wanted and time.monotonic() < end:
            time.sleep(0.02)
        equal(got, wanted)

    def ready(self):
        self.until(lambda: self.get("/readyz").status, 200)

    def becomes(self, model, state):
        self.until(lambda: self.status_of(model)["value"], state)

    def client(self):
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0)

    def answers(self, model):
        """Over the openai package, as a stream."""
        with self.client() as c:
            chunks = c.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Name a colour."}], max_tokens=6,
                temperature=0, stream=True, extra_body={"ignore_eos": True},
            )  # fmt: skip
            text = "".join(ch.choices[0].delta.content or "" for ch in chunks if ch.choices)
        check(text, f"no text from {model}")
        return text


def curl_as_told(s):
    """What the greeting says to try: the answer's JSON."""
    line = s.wait_line(lambda t: t.startswith("Try: curl "), 5)
    words = line.removeprefix("Try: ").replace("curl ", "curl -sS ", 1)
    r = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(r.stdout)


@test
def an_empty_list():
    with home() as h:
        h.write(PRELOAD_MODELS="")
        with h.serving() as s:
            r = s.get("/readyz")
            equal((r.status, json.loads(r.body)["ready"]), (200, True))
            equal(set(s.states().values()), {"unloaded"}, "loaded without being asked for")
            s.answers("small")
            told = curl_as_told(s)["choices"][0]["message"]["content"]
            check(told, "no answer to the curl of the greeting")
            equal({m for m, st in s.states().items() if st != "unloaded"}, {"small"})
        equal(h.hub.requests(), [], "requests to the hub")


@test
def a_small_list():
    with home() as h:
        h.write(PRELOAD_MODELS="small", ASHLEY_KEEP_ALIVE="100ms")
        with h.serving() as s:
            s.ready()
            equal(s.states()["small"], "loaded", "ready before the model is")
            (told,) = [m for m in json.loads(s.get("/readyz").body)["models"] if m["preload"]]
            equal((told["model"], told["required"], told["state"]), ("small", True, "loaded"))
            check(s.wait_line(lambda t: "small" in t and "ready" in t, 5, s.errors), "the log does not tell")
            began = s.status_of("small")["started_at"]
            time.sleep(0.4)  # a preload is pinned: keep_alive is for what is loaded on demand
            r = s.chat(max_tokens=4)
            equal((r.status, r.headers["x-ashley-model"]), (200, "small"), r.body)
            equal(s.status_of("small")["started_at"], began, "it was loaded again")
        equal(h.hub.requests(), [], "requests to the hub for what is here")


@test
def several_models_cached_and_not():
    with home() as h:
        listed = [{"model": "far", "ctx": 300}, "nonsense",
                  {"model": "far-nonsense", "required": False}, {"model": "smal", "required": False}]
        h.write(PRELOAD_MODELS=json.dumps(listed))
        status, out = h.run("pull", "far", "--quiet")
        equal(status, 0, out)
        h.hub.forget()
        h.hub.faults.add(side="cdn", method="GET", rate=2_000_000)
        with h.serving() as s:
            s.ready()  # what is required is here; the rest comes meanwhile
            s.becomes("far-nonsense", "downloading")
            states = s.states()
            equal((states["far"], states["nonsense"]), ("loaded", "loaded"), states)
            equal(s.get("/readyz").status, 200)
            by_name = {m["model"]: m for m in json.loads(s.get("/readyz").body)["models"] if m["preload"]}
            equal(set(by_name), {"far", "nonsense", "far-nonsense", "smal"})
            equal((s.error("smal"), by_name["smal"]["required"]), ("model_not_found", False))
            check("'small'" in s.status_of("smal")["error"]["message"], by_name["smal"])
            e = error_of(s.chat(model="smal"), 404, "model_not_found")
            check("did you mean 'small'" in e["message"], e)
            equal(json.loads(s.get("/v1/models/far").body)["meta"]["n_ctx"], 300)
            with concurrent.futures.ThreadPoolExecutor(2) as pool:  # while the third is fetched
                texts = list(pool.map(s.answers, ("far", "nonsense")))
            check(texts[0] != texts[1], "two models, one text", texts)
            with h.hub.lock:
                h.hub.faults.clear()
            # the connections that were slowed end by being asked for anew
            equal(s.post("/models/cancel", {"model": "far-nonsense"}).status, 200)
            s.becomes("far-nonsense", "unloaded")
            equal(s.answers("far-nonsense"), texts[1], "the same model from elsewhere")
        paths = " ".join(r.path for r in h.hub.requests())
        check("small-GGUF" not in paths, "what was in the cache was asked for")
        h.hub.forget()
        with h.serving() as s:  # all is here now, also for a machine without network
            s.becomes("far-nonsense", "loaded")
        equal(h.hub.requests(), [], "requests at the next start")


@test
def what_is_cached_serves_without_network():
    with home() as h:
        h.write(PRELOAD_MODELS='["far-nonsense","far"]', HF_HUB_OFFLINE="1")
        with h.serving() as s:
            s.becomes("far", "failed")
            for model in ("far", "far-nonsense"):
                equal(s.error(model), "not_downloaded")
                error_of(s.chat(model=model), 503, "not_downloaded")
            equal(s.get("/readyz").status, 503)
            s.answers("small")
        h.write()
        equal(h.run("pull", "far-nonsense", "--quiet")[0], 0)
        h.hub.forget()
        h.write(PRELOAD_MODELS='["far-nonsense","far"]', HF_HUB_OFFLINE="1")
        with h.serving() as s:
            s.becomes("far-nonsense", "loaded")
            equal(s.error("far"), "not_downloaded")
            s.answers("far-nonsense")
        equal(h.hub.requests(), [], "requests of an offline server")


@test
def not_preloaded_and_loaded_on_demand():
    with home() as h:
        h.write(PRELOAD_MODELS="nonsense", ASHLEY_KEEP_ALIVE="300ms")
        with h.serving() as s:
            s.ready()
            equal(s.states()["far"], "unloaded")
            h.hub.faults.add(side="cdn", method="GET", rate=20_000_000)
            r = s.chat(model="far", stream=True, return_progress=True, max_tokens=4)
            chunks = data_events(r.body)
            equal((r.status, chunks[-1]), (200, "[DONE]"), r.body[-300:])
            check(text_of(chunks[:-1]), "no text")
            loading = [c["loading"] for c in chunks[:-1] if "loading" in c]
            check("fetch" in {p["stage"] for p in loading}, "not told that it is fetched", loading)
            shown = [p["progress"] for p in loading]
            check(shown == sorted(shown) and shown[0] < 1, "progress", shown)
            s.becomes("far", "unloaded")  # nobody asked for it again
            equal(s.states()["nonsense"], "loaded", "a preload stays")
            h.hub.forget()
            s.answers("far")
            equal(h.hub.requests(), [], "requests for what is here by now")


@test
def a_large_one_with_a_warning():
    with home() as h:
        h.more("large", repo="acme/small-GGUF", warning="Takes hours and most of a disk.")
        h.write(PRELOAD_MODELS='["large","nonsense"]')
        with h.serving() as s:
            s.becomes("nonsense", "loaded")
            equal(s.error("large"), "consent_needed")
            told = s.status_of("large")["error"]
            check("confirm" in told["hint"] + told["message"], "what to do is not said", told)
            error_of(s.post("/models/load", {"model": "large"}), 403, "consent_needed", "confirm")
            equal(s.post("/api/generate", {"model": "large"}).status, 403)
            e = error_of(s.chat(model="large"), 503, "consent_needed")
            check("hours" in e["message"] and "hours" in told["message"], "the warning is not shown", e, told)
            check('"confirm":true in POST /models' in e["message"], "what to do is not said", e)
            equal(s.get("/readyz").status, 503)
            s.answers("nonsense")
        equal(h.hub.requests(), [], "fetched without consent")
        h.write(PRELOAD_MODELS='[{"model":"large","confirm":true},"nonsense"]')
        with h.serving() as s:
            s.ready()
            s.answers("large")


HOG = """
import sys
taken = []
for line in sys.stdin:  # megabytes
    taken.append(bytearray(int(line) << 20))
    print("taken", flush=True)
"""


class Group:
    """A control group, of either version of cgroups(7), with a limit of memory."""

    def __init__(self, limit):
        self.v2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        self.path = f"/sys/fs/cgroup/{'' if self.v2 else 'memory/'}ashley-test-{os.getpid()}"
        self.limit = limit
        try:
            os.mkdir(self.path)
            self._write("memory.max" if self.v2 else "memory.limit_in_bytes", limit)
        except OSError as e:
            self.close()
            raise Skip(f"no control group with a limit of memory here: {e}") from None

    def _write(self, name, value):
        with open(os.path.join(self.path, name), "w", encoding="ascii") as f:
            f.write(str(value))

    def join(self, pid):
        self._write("cgroup.procs", pid)

    def room(self):
        """What is left, page cache counted as free."""
        with open(os.path.join(self.path, "memory.current" if self.v2 else "memory.usage_in_bytes"),
                  encoding="ascii") as f:  # fmt: skip
            used = int(f.read())
        total = "" if self.v2 else "total_"
        with open(os.path.join(self.path, "memory.stat"), encoding="ascii") as f:
            stat = dict(line.split() for line in f)
        return self.limit - used + sum(int(stat[f"{total}{kind}_file"]) for kind in ("inactive", "active"))

    def close(self):
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.path)


@test
def memory_that_another_process_takes():
    """Within a control group: what is idle goes, what is pinned answers on, and the other is back later."""
    group = Group(1200 << 20)
    try:
        with home() as h:
            h.write(PRELOAD_MODELS='["small",{"model":"nonsense","pin":false,"required":false}]')
            with h.serving() as s:
                group.join(s.process.pid)
                s.becomes("small", "loaded")
                s.becomes("nonsense", "loaded")
                told = s.answers("small"), s.answers("nonsense")
                memory = json.loads(s.get("/readyz?verbose=1").body)["report"]["memory"]
                check(memory["budget"] < 1200 << 20 and not memory["lowered"], memory)
                packs = os.path.join(h.path, "state", "packs")
                s.until(lambda: len(glob.glob(os.path.join(packs, "*.pack"))), 2)
                os.sync()  # pages that are to be written make no room at once
                hog = subprocess.Popen([sys.executable, "-c", HOG], text=True, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE)  # fmt: skip
                with hog:
                    group.join(hog.pid)
                    end = time.monotonic() + 60
                    while s.status_of("nonsense")["value"] == "loaded":
                        check(time.monotonic() < end, "nothing was given up", group.room())
                        room = group.room() >> 20
                        if room < 4:  # the server looks once a second
                            time.sleep(0.1)
                            continue
                        hog.stdin.write(f"{8 if room > 24 else 1}\n")
                        hog.stdin.flush()
                        check(hog.stdout.readline(), "the other process ended")
                    why = s.wait_line(lambda t: "evicting nonsense" in t, 5, s.errors)
                    check(why and "memory is short" in why, "the log does not say why", why)
                    memory = json.loads(s.get("/readyz?verbose=1").body)["report"]["memory"]
                    check(memory["lowered"], memory)
                    equal(s.answers("small"), told[0])
                    equal(s.states()["small"], "loaded")
                    hog.stdin.close()
                s.until(lambda: s.status_of("nonsense")["value"], "loaded", 180)
                equal((s.answers("small"), s.answers("nonsense")), told)
    finally:
        group.close()


@test
def out_of_disk():
    with home() as h:
        os.mkdir(h.cache)
        mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "none", h.cache]
        if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
            raise Skip("nothing may be mounted here")
        try:
            h.write(PRELOAD_MODELS="far,far-nonsense")
            with h.serving() as s:
                s.becomes("far-nonsense", "loaded")
                equal(s.error("far"), "does_not_fit_disk")
                message = s.status_of("far")["error"]["message"]
                check(re.search(r"needs \d+ MB more on disk.* has \d+ MB free", message), message)
                equal(s.get("/readyz").status, 503)
                s.answers("far-nonsense")
                error_of(s.chat(model="far"), 503, "does_not_fit_disk")
                asked = " ".join(r.path for r in h.hub.requests("cdn"))
                check(on_the_hub(model_file()).sha256 not in asked, "bytes of what does not fit were fetched")
                subprocess.run(["mount", "-o", "remount,size=300m", h.cache], check=True)
                equal(s.post("/models/load", {"model": "far"}).status, 200)
                s.ready()
                s.answers("far")
        finally:
            subprocess.run(["umount", "-l", h.cache], check=True)


@test
def out_of_memory():
    with home() as h:
        h.more("twin", path=nonsense_file())
        h.write(PRELOAD_MODELS='["small","nonsense"]', ASHLEY_MEMORY_BUDGET="120M")
        with h.serving() as s:
            s.becomes("nonsense", "loaded")
            equal(s.error("small"), "does_not_fit")
            message = s.status_of("small")["error"]["message"]
            check(re.search(r"needs 0\.\d+ GB of memory.*0\.12 GB", message), message)
            equal(s.get("/readyz").status, 503)
            error_of(s.chat(model="small"), 503, "does_not_fit")
            s.answers("nonsense")
            # what is pinned stays: one that would fit alone has no room beside it, and that is said
            error_of(s.chat(model="twin"), 503, "does_not_fit")
        h.write(PRELOAD_MODELS='[{"model":"nonsense","pin":false}]', ASHLEY_MEMORY_BUDGET="120M")
        with h.serving() as s:
            s.ready()
            for model in ("twin", "nonsense"):  # one goes for the other
                s.answers(model)
                equal([m for m, st in s.states().items() if st == "loaded"], [model])


@test
def a_slow_start():
    with home() as h:
        h.hub.faults.add(side="cdn", method="GET", rate=12_000_000)
        h.write(PRELOAD_MODELS="far", DEFAULT_MODEL="far")
        with h.serving() as s:
            equal(s.get("/livez").status, 200)
            s.becomes("far", "downloading")
            waiting = []
            clients = [
                threading.Thread(target=lambda n=n: waiting.append(s.chat(stream=n, max_tokens=4)))
                for n in (True, False)
            ]
            for t in clients:
                t.start()
            with s.connect() as leaves:  # one that does not wait does not stop it
                body = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
                leaves.sendall(head.encode() + b"\r\nContent-Type: application/json\r\n\r\n" + body)
            seen = []
            while (r := s.get("/readyz")).status != 200:
                equal(r.status, 503, r.body)
                (told,) = [m for m in json.loads(r.body)["models"] if m["preload"]]
                seen.append((told["progress"], told["stage"], told.get("bytes_per_second")))
                check(told["state"] in ("downloading", "loading", "downloaded", "unloaded"), told)
                equal(s.get("/livez").status, 200)
                check(len(seen) < 600, "never ready", seen[-1])
                time.sleep(0.1)
            shown = [p for p, _, _ in seen]
            check(shown == sorted(shown) and shown[0] < 0.5 < shown[-1] < 1, "progress", shown)
            check(max(rate or 0 for _, stage, rate in seen if stage == "fetch") > 1_000_000, "rate", seen)
            for t in clients:
                t.join()
            check(all(r.status == 200 for r in waiting), waiting)
            streamed = next(r for r in waiting if r.headers["content-type"].startswith("text/event-stream"))
            equal(events(streamed.body)[0], ": ping", "a comment while it waits")
            equal(data_events(streamed.body)[-1], "[DONE]")


@contextlib.contextmanager
def busy(s, model, n):
    """n long answers at once, which end when this does."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Count."}], "stream": True,
                       "ignore_eos": True, "max_tokens": 7000}).encode()  # fmt: skip
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with contextlib.ExitStack() as open_ones:
        connections = [open_ones.enter_context(s.connect()) for _ in range(n)]
        for c in connections:
            c.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        for c in connections:
            check(b"200 OK" in c.recv(4096), "no stream")
        yield


@test
def each_time_budget_has_its_own_code():
    with home() as h:
        h.more("waits", path=model_file(), context=8192)
        h.more("impatient", path=model_file(), context=8192, first_token_timeout="1ms")
        h.hub.faults.add(side="cdn", method="GET", rate=12_000_000)
        h.write(PRELOAD_MODELS="waits,impatient", ASHLEY_LOAD_TIMEOUT="200ms")
        with h.serving() as s:
            s.ready()
            # load: of the .env; the load goes on
            e = error_of(s.chat(model="far"), 503, "model_loading", kind="unavailable_error")
            equal((e["loading"]["model"], e["loading"]["state"]), ("far", "downloading"))
            # first token: of the catalogue's entry
            long = [{"role": "user", "content": "word " * 3000}]
            error_of(s.chat(model="impatient", messages=long), 503, "first_token_timeout")
            # idle: of the request
            r = s.chat({"X-Ashley-Idle-Timeout": "1ms"}, model="waits", stream=True, ignore_eos=True,
                       max_tokens=4000)  # fmt: skip
            last = data_events(r.body)[-1]
            equal(last["error"]["code"], "idle_timeout", "the end of the stream")
            # queue: all places are taken
            with busy(s, "waits", 32):
                late = s.chat({"X-Ashley-Queue-Timeout": "300ms"}, model="waits", max_tokens=1)
                error_of(late, 503, "queue_timeout")
            s.until(lambda: s.chat(model="waits", max_tokens=1).status, 200)
            s.becomes("far", "loaded")


@test
def default_model_openai():
    up = Upstream()
    try:
        with home() as h:
            h.write(PRELOAD_MODELS="nonsense", DEFAULT_MODEL="openai")
            with h.serving() as s:  # no key yet: said where it is looked for
                s.ready()
                told = s.wait_line(lambda t: "OPENAI_API_KEY" in t, 5)
                check("DEFAULT_MODEL=nonsense" in told, told)
                e = error_of(s.chat(), 503, "upstream_not_configured")
                check("OPENAI_API_KEY" in e["message"], e)
                s.answers("nonsense")
            h.write(PRELOAD_MODELS="nonsense", DEFAULT_MODEL="openai", OPENAI_API_KEY="sk-upstream-secret",
                    OPENAI_BASE_URL=up.url, FALLBACK_MODEL="gpt-4o-mini")  # fmt: skip
            with h.serving() as s:
                s.ready()
                r = s.chat()
                equal((r.status, r.headers["x-ashley-served-by"]), (200, "openai"), r.body)
                equal(json.loads(r.body)["choices"][0]["message"]["content"], "".join(WORDS))
                equal(s.answers("openai"), "".join(WORDS))
                seen = len(up.seen)
                r = s.chat(model="nonsense", max_tokens=4, ignore_eos=True)
                equal((r.status, r.headers["x-ashley-served-by"]), (200, "local"), r.body)
                equal(len(up.seen), seen, "a request for a local model left the machine")
                check("sk-upstream-secret" not in "\n".join(s.lines + s.errors), "the key is shown")
    finally:
        up.close()


@test
def end_of_the_models():
    """What was made for all of the above goes."""
    if nonsense_file.cache_info().currsize:
        shutil.rmtree(os.path.dirname(nonsense_file()))
