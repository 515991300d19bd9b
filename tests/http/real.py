"""The real program over a real model, and over a fake upstream: what a user of issue 3 does."""

import atexit
import concurrent.futures
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import harness
import ollama
from fake_upstream import WORDS, Upstream
from harness import Server, check, data_events, equal, error_of, events, read_all, test, text_of

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
KEY = "sk-upstream-secret"
MODEL = "smollm2"
SAY = [{"role": "user", "content": "Name three colours."}]
_shared = {}
atexit.register(lambda: [s.process.kill() for s in _shared.values()])  # with --only its end is not asked for


def model_file():
    path = harness.ARGS.model or os.path.join(ROOT, "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
    check(os.path.exists(path), f"no model at {path}: scripts/run --no-serve fetches it")
    return os.path.abspath(path)


class Real(Server):
    """ashley serve in a folder of its own, with a catalogue of the real model under several names."""

    def __init__(self, **env):
        self.home = tempfile.mkdtemp(prefix="ashley-http-")
        broken = os.path.join(self.home, "broken.gguf")
        with open(model_file(), "rb") as f, open(broken, "wb") as out:
            out.write(f.read(1 << 20))
        entry = {
            "path": model_file(),
            "format": "gguf",
            "size": "small",
            "description": "x",
            "context": 2048,
        }
        catalogue = {
            MODEL: entry,
            "cold": entry,
            "on-error": entry | {"path": broken, "fallback": "on-error"},
            "not-ready": entry | {"fallback": "on-not-ready"},
            "broken": entry | {"path": broken},
            "absent": {"repo": "example/absent", "format": "gguf", "size": "small", "description": "x"},
        }
        with open(os.path.join(self.home, "models.json"), "w", encoding="utf-8") as f:
            json.dump(catalogue, f)
        base = {
            "PATH": os.environ["PATH"],
            "HOME": self.home,
            "ASHLEY_MODELS_FILE": os.path.join(self.home, "models.json"),
            "ASHLEY_PERSONAS_DIR": os.path.join(ROOT, "personas"),
            "ASHLEY_STATE_DIR": os.path.join(self.home, "state"),
            "ASHLEY_PORT": "0",
            "DEFAULT_MODEL": MODEL,
            "HF_HUB_OFFLINE": "1",  # "absent" stays so
        }
        # a busy machine is no failure
        base |= {f"ASHLEY_{name}_TIMEOUT": "5m" for name in ("QUEUE", "FIRST_TOKEN", "IDLE")}
        self.env = base | {k: v for k, v in os.environ.items() if "SAN_OPTIONS" in k} | env
        super().__init__(harness.ARGS.binary, "serve", env=self.env, cwd=self.home)

    def ready(self, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.get("/readyz").status == 200:
                return self
            check(self.process.poll() is None, "ended:", self.errors[-5:])
            time.sleep(0.05)
        raise AssertionError(f"not ready: {self.get('/readyz').body}")

    def state(self, model):
        return json.loads(self.get(f"/v1/models/{model}").body)["status"]

    def wait_for(self, value, seconds=20):
        """The first value of `value()` that is not None."""
        end = time.monotonic() + seconds
        while value() is None and time.monotonic() < end:
            time.sleep(0.01)
        return value()

    def wait_state(self, model, value, seconds=60):
        end = time.monotonic() + seconds
        while self.state(model)["value"] != value and time.monotonic() < end:
            time.sleep(0.05)
        equal(self.state(model)["value"], value, model)

    def running(self):
        text = self.get("/metrics").body.decode()
        return sum(
            float(line.split()[1]) for line in text.splitlines() if line.startswith("ashley_running{")
        )

    def stop(self, how=signal.SIGTERM, seconds=30):
        try:
            return super().stop(how, seconds)
        finally:
            shutil.rmtree(self.home, ignore_errors=True)


def shared():
    """One server with the model preloaded, for all tests that change nothing."""
    if "server" not in _shared or _shared["server"].process.poll() is not None:
        _shared["server"] = Real(PRELOAD_MODELS=MODEL).ready()
    return _shared["server"]


def say(s, headers=None, **fields):
    body = {"messages": SAY, "temperature": 0, "max_tokens": 24} | fields
    return s.post("/v1/chat/completions", body, headers)


def content(r):
    equal(r.status, 200, r.body[:400])
    return json.loads(r.body)["choices"][0]["message"]["content"]


@test
def preloaded_model_answers():
    s = shared()
    r = say(s)
    text = content(r)
    check(len(text) > 10, text)
    equal((r.headers["x-ashley-model"], r.headers["x-ashley-served-by"]), (MODEL, "local"))
    b = json.loads(r.body)
    check(0 < b["usage"]["completion_tokens"] <= 24 and b["usage"]["prompt_tokens"] > 5, b["usage"])
    r = say(s, stream=True, stream_options={"include_usage": True})
    chunks = data_events(r.body)
    equal(chunks[-1], "[DONE]")
    equal(text_of(chunks[:-1]), text, "stream against whole")
    equal(chunks[-2]["usage"]["completion_tokens"], b["usage"]["completion_tokens"])
    check(chunks[-2]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0, "the prompt was not cached")
    state = s.state(MODEL)
    equal((state["value"], state["progress"]), ("loaded", 1.0))
    equal(s.state("cold")["value"], "unloaded")


@test
def settings_have_their_effect():
    s = shared()
    whole = content(say(s))
    equal(json.loads(say(s, max_tokens=5).body)["usage"]["completion_tokens"], 5)
    equal(json.loads(say(s, max_tokens=5).body)["choices"][0]["finish_reason"], "length")
    word = whole.split()[2]
    stopped = json.loads(say(s, stop=word).body)["choices"][0]
    equal((stopped["message"]["content"], stopped["finish_reason"]), (whole[: whole.index(word)], "stop"))
    hot = [content(say(s, temperature=1.5, seed=seed)) for seed in (7, 7, 8)]
    equal(hot[0], hot[1], "same seed")
    check(hot[0] != hot[2], "another seed, the same text")
    two = json.loads(say(s, n=2, temperature=1.5, seed=7).body)["choices"]
    equal(len({c["message"]["content"] for c in two}), 2, "choices")
    lp = json.loads(say(s, logprobs=True, top_logprobs=3, max_tokens=4).body)["choices"][0]["logprobs"]
    equal((len(lp["content"]), {len(e["top_logprobs"]) for e in lp["content"]}), (4, {3}))
    check(all(e["logprob"] <= 0 and e["top_logprobs"][0]["token"] == e["token"] for e in lp["content"]), lp)
    first = lp["content"][0]["top_logprobs"][0]
    check(isinstance(first["bytes"], list) and bytes(first["bytes"]).decode() == first["token"], first)
    equal(json.loads(say(s, ignore_eos=True, max_tokens=300).body)["usage"]["completion_tokens"], 300)
    error_of(say(s, logit_bias={"49152": 1}), 400, param="logit_bias", kind="invalid_request_error")
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [call]},
              {"role": "tool", "tool_call_id": "1", "content": "5"}]
    equal(say(s, messages=called, max_tokens=4).status, 200, "a tool's result to a template without tools")


@test
def completions_and_going_on():
    s = shared()
    r = s.post("/v1/completions", {"prompt": "The capital of France is", "max_tokens": 6, "temperature": 0})
    b = json.loads(r.body)
    check("Paris" in b["choices"][0]["text"], b)
    r = s.post(
        "/v1/completions", {"prompt": ["One two three", "A b c"], "max_tokens": 3, "n": 2, "seed": 1}
    )
    equal(sorted(c["index"] for c in json.loads(r.body)["choices"]), [0, 1, 2, 3])
    messages = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "1, 2, 3, 4,"}]
    text = content(
        say(s, messages=messages, continue_final_message=True, add_generation_prompt=False, max_tokens=4)
    )
    check("5" in text, text)


@test
def context_overflow():
    s = shared()
    r = say(s, messages=[{"role": "user", "content": "word " * 5000}])
    e = error_of(r, 400, "context_length_exceeded")
    check(e["n_prompt"] > 4000 and e["n_ctx"] == 2048, e)


@test
def progress_of_a_long_prompt():
    s = shared()
    text = " ".join(str(i) for i in range(150))
    r = say(
        s, messages=[{"role": "user", "content": text}], stream=True, return_progress=True, max_tokens=2
    )
    told = [c["prompt_progress"] for c in data_events(r.body) if "prompt_progress" in c]
    check(told and told[-1]["processed"] <= told[-1]["total"] and told[-1]["total"] > 150, told)


@test
def eight_at_once_give_the_text_of_one():
    s = shared()
    asks = [[{"role": "user", "content": f"Write one sentence about the number {i}."}] for i in range(8)]
    alone = [content(say(s, messages=a)) for a in asks]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda a: content(say(s, messages=a)), asks))
    equal(together, alone)


@test
def a_client_that_leaves_ends_its_generation():
    s = shared()
    for streaming in (True, False):
        body = json.dumps(
            {"messages": SAY, "stream": streaming, "ignore_eos": True, "max_tokens": 2000}
        ).encode()
        end = time.monotonic() + 20
        while s.running() and time.monotonic() < end:  # those of the test before
            time.sleep(0.02)
        c = s.connect()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        c.sendall(head + body)
        end = time.monotonic() + 20
        while s.running() < 1 and time.monotonic() < end:
            time.sleep(0.02)
        equal(s.running(), 1, "running")
        c.close()
        end = time.monotonic() + 20
        while s.running() and time.monotonic() < end:
            time.sleep(0.02)
        equal(s.running(), 0, "still running")


@test
def python_client():
    import openai

    s = shared()
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{s.port}/v1", api_key="none", max_retries=0)
    check(MODEL in [m.id for m in client.models.list()], "models")
    r = client.chat.completions.create(model=MODEL, messages=SAY, temperature=0, max_tokens=24)
    chunks = list(
        client.chat.completions.create(model=MODEL, messages=SAY, temperature=0, max_tokens=24, stream=True)
    )
    equal("".join(c.choices[0].delta.content or "" for c in chunks), r.choices[0].message.content)
    equal(r.choices[0].message.content, content(say(s)))


@test
def npm_client():
    s = shared()
    argv = ["node", os.path.join(HERE, "client.mjs"), f"http://127.0.0.1:{s.port}/v1", MODEL]
    p = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    equal(p.returncode, 0, p.stderr[-1500:])
    out = json.loads(p.stdout)
    check(out["whole"] and out["whole"] == out["streamed"], out)
    equal(out["missing"], "model_not_found")


@test
def curl():
    s = shared()
    body = json.dumps({"messages": SAY, "temperature": 0, "max_tokens": 24})
    p = subprocess.run(
        ["curl", "-sS", f"http://127.0.0.1:{s.port}/v1/chat/completions", "-d", body],
        capture_output=True,
        text=True,
        timeout=60,
    )
    equal(json.loads(p.stdout)["choices"][0]["message"]["content"], content(say(s)))


@test
def page():
    s = shared()
    r = s.get("/", Accept="text/html")
    check(r.status == 200 and b"<!doctype html" in r.body[:100].lower(), r.body[:100])


@test
def end_of_the_shared_server():
    s = shared()
    check(not any(line.startswith("==") for line in s.errors), s.errors)
    equal(s.stop(), 0, "exit status")


@test
def nothing_preloaded():
    s = Real(PRELOAD_MODELS="")
    try:
        equal(s.get("/livez").status, 200)
        equal(s.get("/readyz").status, 200)
        equal(s.state(MODEL)["value"], "unloaded")
        # three ask at once: one load serves all, and one of them leaves meanwhile
        e = error_of(say(s, {"X-Ashley-Load-Timeout": "1ms"}), 503, "model_loading")
        equal((e["loading"]["model"], e["loading"]["state"]), (MODEL, "loading"))
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(say, s, max_tokens=4) for _ in range(2)]
            streamed = pool.submit(say, s, stream=True, return_progress=True, max_tokens=4)
            texts = [content(a.result()) for a in asked]
        equal(texts[0], texts[1])
        chunks = data_events(streamed.result().body)
        equal((text_of(chunks[:-1]), chunks[-1]), (texts[0], "[DONE]"))
        equal(s.state(MODEL)["value"], "loaded")
        equal(s.post("/models/unload", {"model": MODEL}).status, 200)
        s.wait_state(MODEL, "unloaded")  # once the last answer has let go of it
        equal(content(say(s, max_tokens=4)), texts[0], "after loading again")
        end = s.wait_for(lambda: s.state(MODEL)["expires_at"])  # not while it is in use
        check(200 < end - time.time() < 301, "the usual five minutes", end)
        equal(content(say(s, max_tokens=4, keep_alive="30s")), texts[0])
        end = s.wait_for(lambda: s.state(MODEL)["expires_at"])
        check(20 < end - time.time() < 31, "as asked for", end)
        equal(content(say(s, max_tokens=4, keep_alive="0")), texts[0])
        s.wait_state(MODEL, "unloaded")  # once it has answered
        client = ollama.Client(host=f"http://127.0.0.1:{s.port}")
        equal(client.generate(MODEL, keep_alive="10m").done_reason, "load")
        equal([m.model for m in client.ps().models], [MODEL + ":latest"])
        listed = {m.model: m.size for m in client.list().models}
        size = os.path.getsize(model_file())
        shown, m = client.show(MODEL), client.list().models[0]
        want = ("llama", "134.52M", "Q4_1")
        equal((shown.details.family, shown.details.parameter_size, shown.details.quantization_level), want)
        info = shown.modelinfo
        equal((info["general.architecture"], info["llama.context_length"]), ("llama", 2048))
        equal((info["llama.embedding_length"], m.details), (576, shown.details))
        check(re.fullmatch("[0-9a-f]{64}", m.digest) and m.digest == client.ps().models[0].digest, m)
        check(len({m.digest for m in client.list().models}) == len(listed), "one each", listed)
        equal((listed[MODEL + ":latest"], s.state(MODEL)["file_bytes"]), (size, size))
        r = client.chat(MODEL, SAY, options={"num_predict": 4, "temperature": 0, "seed": 1})
        equal((r.message.content, r.eval_count, r.done_reason), (texts[0], 4, "length"))
        packs = os.path.join(s.home, "state", "packs", "*.pack")
        check(s.wait_for(lambda: glob.glob(packs) or None), "no pack is kept")
        equal(client.chat(MODEL, [], keep_alive=0).done_reason, "unload")
        s.wait_state(MODEL, "unloaded")
        equal(client.generate(MODEL).done_reason, "load")
        state = s.state(MODEL)  # from its pack: no byte of the file was read
        equal((state["bytes_done"], state["bytes_total"], state["file_bytes"]), (0, 0, size))
    finally:
        equal(s.stop(), 0)


@test
def one_bad_entry_never_stops_the_rest():
    s = Real(PRELOAD_MODELS=f'["no-such-model","broken",{{"model":"absent","required":false}},"{MODEL}"]')
    try:
        s.wait_state(MODEL, "loaded")
        content(say(s, max_tokens=4))
        r = s.get("/readyz?verbose=1")
        body = json.loads(r.body)
        equal((r.status, body["ready"]), (503, False), "required entries failed")
        failed = {m["model"]: m["error"] for m in body["models"] if m["state"] == "failed"}
        check({"no-such-model", "broken", "absent"} <= set(failed), failed)
        check(all(e["code"] and e["message"] for e in failed.values()), failed)
        check("no-such-model" in json.dumps(body["report"]), body["report"])
        check(s.wait_line(lambda t: "no-such-model" in t, 5, s.errors), "the log does not tell")
        error_of(say(s, model="no-such-model"), 404, "model_not_found")
        error_of(s.post("/models/load", {"model": "no-such-model"}), 404, "model_not_found", "model")
        error_of(say(s, model="broken"), 503)
        error_of(say(s, model="absent"), 503)
        listed = {m["id"]: m["status"]["value"] for m in json.loads(s.get("/v1/models").body)["data"]}
        equal((listed["broken"], listed[MODEL]), ("failed", "loaded"))
    finally:
        equal(s.stop(), 0)


def with_upstream(up, **env):
    return Real(**({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": up.url, "DEFAULT_MODEL": "openai"} | env))


def ask(s, mode="", **fields):
    return say(s, messages=[{"role": "user", "content": f"hi mode:{mode}" if mode else "hi"}], **fields)


@test
def upstream_answers():
    up = Upstream()
    s = with_upstream(up)
    try:
        for fields in ({}, {"model": "openai"}, {"model": "ashley"}):
            r = ask(s, **fields)
            equal(content(r), "".join(WORDS))
            names = ("x-ashley-served-by", "x-ashley-model", "x-ashley-reason")
            equal([r.headers.get(n) for n in names], ["openai", "gpt-4o-mini", "default"], fields)
            got = up.seen[-1]
            equal(got["body"]["model"], "gpt-4o-mini")
            equal(got["headers"]["Authorization"], f"Bearer {KEY}")
        first = up.seen[-1]["body"]["messages"][0]
        check(first["role"] == "system" and "You are Ashley" in first["content"], first)
        equal(ask(s, unknown_field={"x": 1}).status, 200)
        equal(up.seen[-1]["body"]["unknown_field"], {"x": 1})
        r = ask(s, stream=True, stream_options={"include_usage": True})
        chunks = data_events(r.body)
        equal((text_of(chunks[:-1]), chunks[-1]), ("".join(WORDS), "[DONE]"))
        equal(chunks[-2]["usage"]["total_tokens"], 7)
        r = ask(s, "drip", model=MODEL, max_tokens=4)
        equal(r.headers["x-ashley-served-by"], "local")
        n = len(up.seen)
        ask(s, model=MODEL, max_tokens=2)
        equal(len(up.seen), n, "a local request left the machine")
    finally:
        equal(s.stop(), 0)
        up.close()


@test
def upstream_errors():
    up = Upstream()
    s = with_upstream(up)
    try:
        for streaming in (False, True):
            for mode, status, kind in (
                ("400", 400, "invalid_request_error"),
                ("429", 429, "rate_limit_error"),
                ("401", 502, "upstream_error"),
                ("500", 502, "upstream_error"),
                ("rubbish", 502, "upstream_error"),
            ):
                r = ask(s, mode, stream=streaming)
                error_of(r, status, kind=kind)
                check(KEY.encode() not in r.body, "the key shows:", r.body)
                if mode == "429":
                    equal(r.headers["retry-after"], "3")
        e = error_of(ask(s, "hidden"), 502, kind="upstream_error")
        check("no such model here" in e["message"], e)
        r = ask(s, "cut", stream=True)
        chunks = data_events(r.body)
        check("error" in chunks[-1] and "[DONE]" not in chunks, chunks[-2:])
        check(not any(c["choices"][0]["finish_reason"] for c in chunks if "choices" in c), "finish_reason")
        e = error_of(
            say(
                s,
                {"X-Ashley-First-Token-Timeout": "300ms"},
                messages=[{"role": "user", "content": "mode:hang"}],
            ),
            503,
            "first_token_timeout",
        )
        check(e["type"] == "unavailable_error", e)
        equal(content(ask(s, "slow")), "".join(WORDS))
        check(not any(KEY in line for line in s.errors), "the key is in the log")
    finally:
        equal(s.stop(), 0)
        up.close()


@test
def a_client_that_leaves_ends_the_upstream_request():
    up = Upstream()
    s = with_upstream(up)
    try:
        body = json.dumps({"messages": [{"role": "user", "content": "mode:drip"}], "stream": True}).encode()
        end = time.monotonic() + 20
        while s.running() and time.monotonic() < end:  # those of the test before
            time.sleep(0.02)
        c = s.connect()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        c.sendall(head + body)
        check(b"data:" in c.recv(65536) + c.recv(65536), "no stream")
        c.close()
        end = time.monotonic() + 20
        while not up.left and time.monotonic() < end:
            time.sleep(0.05)
        equal(up.left, ["drip"])
    finally:
        equal(s.stop(), 0)
        up.close()


@test
def without_a_key():
    s = Real(DEFAULT_MODEL="openai")
    try:
        for fields in ({}, {"model": "ashley"}, {"model": "openai"}):
            e = error_of(ask(s, **fields), 503, "upstream_not_configured")
            check("OPENAI_API_KEY" in e["message"], e)
    finally:
        equal(s.stop(), 0)


@test
def upstream_down():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        s = Real(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url, DEFAULT_MODEL="openai")
        try:
            for streaming in (False, True):
                error_of(ask(s, stream=streaming), 502, "upstream_error", kind="upstream_error")
            content(ask(s, model=MODEL, max_tokens=4))
        finally:
            equal(s.stop(), 0)


def who(r):
    equal(r.status, 200, r.body[:300])
    return [r.headers.get(n) for n in ("x-ashley-served-by", "x-ashley-model", "x-ashley-reason")]


@test
def policies():
    up = Upstream()
    s = with_upstream(up, DEFAULT_MODEL=MODEL)
    try:
        error_of(ask(s, model="broken"), 503)
        equal(len(up.seen), 0, "left the machine under never")
        equal(who(ask(s, model="on-error")), ["openai", "gpt-4o-mini", "failed"])
        equal(who(ask(s, model="on-error", stream=True)), ["openai", "gpt-4o-mini", "failed"])
        equal(who(ask(s, model="not-ready")), ["openai", "gpt-4o-mini", "loading"])
        s.wait_state("not-ready", "loaded")
        equal(who(ask(s, model="not-ready", max_tokens=4)), ["local", "not-ready", None])
        error_of(ask(s, model="nobody-knows-it"), 404, "model_not_found")
    finally:
        equal(s.stop(), 0)
        up.close()
    up = Upstream()
    s = with_upstream(up, DEFAULT_MODEL=MODEL, ASHLEY_FALLBACK="on-error")
    try:
        equal(who(ask(s, model="broken")), ["openai", "gpt-4o-mini", "failed"])
        late = say(s, {"X-Ashley-Load-Timeout": "1ms"}, model="cold", max_tokens=4)
        equal(who(late), ["openai", "gpt-4o-mini", "loading"])
        r = say(s, model=MODEL, messages=[{"role": "user", "content": "word " * 5000}])
        error_of(r, 400, "context_length_exceeded")
    finally:
        equal(s.stop(), 0)
        up.close()


@test
def drain():
    s = Real(PRELOAD_MODELS=MODEL).ready()
    body = json.dumps({"messages": SAY, "stream": True, "ignore_eos": True, "max_tokens": 60}).encode()
    c = s.connect()
    c.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    check(b"data:" in c.recv(65536) + c.recv(65536), "no stream")
    s.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    if s.process.poll() is None:
        try:
            error_of(say(s), 503, "shutting_down")
        except ConnectionError:
            pass  # the answer was short and the server is gone already
    equal(s.process.wait(30), 0)
    rest = read_all(c, 2)
    check(b"[DONE]" in rest, rest[-200:])
    s.stop()


@test
def a_second_signal():
    s = Real(PRELOAD_MODELS=MODEL).ready()
    body = json.dumps({"messages": SAY, "stream": True, "ignore_eos": True, "max_tokens": 2000}).encode()
    c = s.connect()
    c.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    check(b"data:" in c.recv(65536) + c.recv(65536), "no stream")
    s.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    check(s.process.poll() is None, "ended before the answer")
    s.process.send_signal(signal.SIGTERM)
    s.process.wait(20)  # the answer would take longer
    s.stop()


def serve_fails(**env):
    base = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "ASHLEY_PORT": "0"}
    p = subprocess.run(
        [harness.ARGS.binary, "serve"], env=base | env, capture_output=True, text=True, timeout=30
    )
    return p.returncode, p.stderr


@test
def refused_starts():
    env = {
        "ASHLEY_MODELS_FILE": os.path.join(ROOT, "pytorch_models.json"),
        "ASHLEY_PERSONAS_DIR": os.path.join(ROOT, "personas"),
    }
    code, text = serve_fails(ASHLEY_HOST="[::1]", **env)
    check(code == 2 and "without brackets" in text, code, text)
    code, text = serve_fails(ASHLEY_HOST="0.0.0.0", **env)
    check(code == 2 and "ASHLEY_API_KEYS" in text, code, text)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = serve_fails(ASHLEY_PORT=str(taken.getsockname()[1]), **env)
        check(code == 1 and "in use" in text, code, text)


@test
def keys():
    s = Real(ASHLEY_API_KEYS="sk-one,sk-two", ASHLEY_HOST="0.0.0.0")
    try:
        equal(s.get("/livez").status, 200)
        error_of(s.get("/v1/models"), 401)
        equal(s.get("/v1/models", Authorization="Bearer sk-two").status, 200)
        check(
            not any("sk-one" in line or "sk-two" in line for line in s.errors + s.lines), "a key is shown"
        )
    finally:
        equal(s.stop(), 0)
