"""Answers: bodies and streams as OpenAI's, waiting, errors in streams, clients that leave, drain."""

import json
import signal
import socket
import subprocess
import time

from harness import (
    check,
    data_events,
    dechunk,
    equal,
    error_of,
    events,
    fake,
    own_fake,
    parse,
    read_all,
    test,
    text_of,
)

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = "user:hi w1\u00e9 w2\u00e9"


def stream(s, path=CHAT, headers=None, **fields):
    body = (
        ({"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {})
        | {"stream": True}
        | fields
    )
    r = s.post(path, body, headers)
    equal(r.status, 200, r.body[:300])
    equal(r.headers["content-type"].split(";")[0], "text/event-stream")
    equal(r.headers["cache-control"], "no-cache")
    equal(r.headers["x-accel-buffering"], "no")
    equal(r.headers["x-test-whole"], "yes", "chunked end")
    return r


@test
def chat_completion():
    s = fake()
    r = s.chat(model="tiny")
    b = json.loads(r.body)
    equal(b["object"], "chat.completion")
    check(b["id"].startswith("chatcmpl-") and isinstance(b["created"], int) and b["system_fingerprint"], b)
    equal(b["model"], "tiny")
    equal(
        b["choices"],
        [
            {
                "index": 0,
                "message": {"role": "assistant", "content": HELLO},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
    )
    equal(
        b["usage"],
        {
            "prompt_tokens": 8,
            "completion_tokens": 3,
            "total_tokens": 11,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    )
    equal((b["timings"]["prompt_n"], b["timings"]["cache_n"], b["timings"]["predicted_n"]), (6, 2, 3))
    equal((r.headers["x-ashley-model"], r.headers["x-ashley-served-by"]), ("tiny", "local"))
    check("x-ashley-reason" not in r.headers, r.headers)
    equal(
        json.loads(s.post("/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}).body)[
            "choices"
        ],
        b["choices"],
        "without /v1",
    )


@test
def chat_stream():
    s = fake()
    r = stream(s)
    chunks = data_events(r.body)
    equal(chunks[-1], "[DONE]")
    chunks = chunks[:-1]
    equal({(c["object"], c["model"]) for c in chunks}, {("chat.completion.chunk", "tiny")})
    equal(len({c["id"] for c in chunks}), 1, "ids")
    equal(chunks[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
    equal(text_of(chunks), HELLO)
    equal([c["choices"][0]["finish_reason"] for c in chunks], [None] * 4 + ["stop"])
    equal(chunks[-1]["choices"][0]["delta"], {})
    check("timings" in chunks[-1] and not any("usage" in c for c in chunks), chunks)
    chunks = data_events(stream(s, stream_options={"include_usage": True}).body)
    equal(chunks[-2]["choices"], [])
    equal(chunks[-2]["usage"]["total_tokens"], 11)
    equal(chunks[-1], "[DONE]")


@test
def several_choices():
    s = fake()
    b = json.loads(s.chat(n=3).body)
    equal([(c["index"], c["message"]["content"]) for c in b["choices"]], [(i, HELLO) for i in range(3)])
    chunks = data_events(stream(s, n=3).body)[:-1]
    for i in range(3):
        equal(text_of(chunks, i), HELLO)
        mine = [c for c in chunks if c["choices"][0]["index"] == i]
        equal(mine[0]["choices"][0]["delta"]["role"], "assistant")
        equal(
            [c["choices"][0]["finish_reason"] for c in mine if c["choices"][0]["finish_reason"]], ["stop"]
        )


@test
def completions():
    s = fake()
    b = json.loads(s.post(TEXT, {"prompt": "abc", "model": "other"}).body)
    equal((b["object"], b["model"]), ("text_completion", "other"))
    check(b["id"].startswith("cmpl-"), b["id"])
    equal(
        b["choices"],
        [{"index": 0, "text": '"abc" w1\u00e9 w2\u00e9', "logprobs": None, "finish_reason": "stop"}],
    )
    equal(len(json.loads(s.post(TEXT, {"prompt": ["a", "b"], "n": 2}).body)["choices"]), 4)
    chunks = data_events(stream(s, TEXT, prompt="abc").body)
    equal(chunks[-1], "[DONE]")
    equal({c["object"] for c in chunks[:-1]}, {"text_completion"})
    equal(text_of(chunks[:-1]), '"abc" w1\u00e9 w2\u00e9')
    equal(chunks[-2]["choices"][0]["finish_reason"], "stop")


@test
def logprobs():
    s = fake()
    b = json.loads(s.chat(logprobs=True, top_logprobs=1).body)
    entries = b["choices"][0]["logprobs"]["content"]
    equal("".join(e["token"] for e in entries), HELLO)
    equal((entries[0]["logprob"], len(entries[0]["top_logprobs"])), (-0.25, 1))
    chunks = data_events(stream(s, logprobs=True).body)[:-1]
    equal(
        [len(c["choices"][0]["logprobs"]["content"]) for c in chunks if c["choices"][0]["logprobs"]],
        [1, 1, 1],
    )
    old = json.loads(s.post(TEXT, {"prompt": "x", "logprobs": 1}).body)["choices"][0]["logprobs"]
    equal(old["tokens"], ['"x"', " w1\u00e9", " w2\u00e9"])
    equal(old["token_logprobs"], [-0.25] * 3)
    equal(old["text_offset"], [0, 3, 7])
    equal(old["top_logprobs"][0], {'"x"': -0.25})


@test
def progress_of_the_prompt():
    s = fake()
    chunks = data_events(stream(s, return_progress=True, fake={"progress": True}).body)[:-1]
    told = [c["prompt_progress"] for c in chunks if "prompt_progress" in c]
    equal(told, [{"total": 8, "cache": 2, "processed": 6, "time_ms": 1}])
    equal(text_of(chunks), HELLO)
    chunks = data_events(stream(s, fake={"progress": True}).body)[:-1]
    check(not any("prompt_progress" in c for c in chunks), "progress not asked for")


@test
def a_loading_model_is_waited_for():
    s = fake()
    began = time.monotonic()
    r = stream(s, fake={"wait_ms": 1800})
    check(time.monotonic() - began > 1.7, "did not wait")
    all_events = events(r.body)
    equal(all_events[0], ": ping", "a comment while it waits")
    equal(text_of(data_events(r.body)[:-1]), HELLO)
    equal(r.headers["x-ashley-model"], "tiny")
    chunks = data_events(stream(s, return_progress=True, fake={"wait_ms": 120}).body)
    loading = [c["loading"] for c in chunks if "loading" in c]
    check(loading and loading[0]["state"] == "loading", chunks)
    equal(json.loads(s.chat(fake={"wait_ms": 200}).body)["choices"][0]["message"]["content"], HELLO)


@test
def a_spent_load_budget():
    s = fake()
    short = {"X-Ashley-Load-Timeout": "200ms"}
    for streaming in (False, True):
        r = s.chat(short, stream=streaming, fake={"wait_ms": 3000})
        e = error_of(r, 503, "model_loading", kind="unavailable_error")
        equal(e["loading"], {"model": "tiny", "state": "loading", "progress": 0.5})
        equal(r.headers["retry-after"], "7")
    r = s.chat({"X-Ashley-Load-Timeout": "1600ms"}, stream=True, fake={"wait_ms": 5000})
    equal(r.status, 200, "headers were out")
    last = data_events(r.body)
    equal([e["error"]["code"] for e in last], ["model_loading"])


@test
def errors_before_and_in_a_stream():
    s = fake()
    for status, code in ((400, "context_length_exceeded"), (503, "queue_timeout"), (429, "slow_down")):
        wrong = {"error": {"status": status, "code": code, "after": -1}}
        for streaming in (False, True):
            error_of(s.chat(stream=streaming, fake=wrong), status, code)
    r = stream(s, fake={"tokens": 5, "error": {"status": 503, "code": "idle_timeout", "after": 2}})
    chunks = data_events(r.body)
    equal(chunks[-1]["error"]["code"], "idle_timeout")
    check("[DONE]" not in chunks, "a broken stream ended as a whole one")
    check(
        not any(c["choices"][0]["finish_reason"] for c in chunks[:-1]), "finish_reason in a broken stream"
    )
    error_of(s.chat(fake={"tokens": 5, "error": {"status": 503, "code": "idle_timeout", "after": 2}}), 503)
    for code, status in ((-1, 400), (-4, 404), (-6, 501), (-2, 503)):
        e = error_of(s.chat(fake={"start": code}), status)
        equal(e["param"], "fake.start")


@test
def pings_every_15_seconds():
    s = fake()
    r = stream(s, fake={"tokens": 1, "interval_ms": 16000})
    comments = [e for e in events(r.body) if isinstance(e, str) and e.startswith(":")]
    equal(comments, [": ping"])


@test
def a_client_that_has_all_of_its_stream_did_not_leave():
    """Those that close at [DONE], before the last chunk's end: the log does not say that they left."""
    s = own_fake()
    try:
        for i in range(20):
            c, ident = begin(s, stream=True)
            out = b""
            while b"[DONE]" not in out:
                got = c.recv(1 << 16)
                check(got, "closed early:", out[-200:])
                out += got
            c.close()
            line = s.wait_line(lambda t, ident=ident: ident in t and "POST" in t, 20, s.errors)
            check(line and "client left" not in line, line)
        c, ident = begin(s, stream=True, fake={"tokens": 200, "interval_ms": 20})
        c.recv(1 << 16)
        c.close()
        line = s.wait_line(lambda t: ident in t and "POST" in t, 20, s.errors)
        check(line and "client left" in line, line)
    finally:
        s.stop()


def begin(s, **fields):
    """Sends a chat and leaves the connection open."""
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}]} | fields).encode()
    c = s.connect()
    ident = f"leave-{time.monotonic_ns()}"
    c.sendall(
        (
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {ident}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
    )
    check(s.wait_line(lambda t: t.startswith("start") and ident in t, 20), "not started")
    return c, ident


def noticed(s, ident):
    """Long before its minute is over; how soon is measured in bench/."""
    check(s.wait_line(lambda t: t.startswith("canceled") and ident in t, 20), "not noticed")


@test
def a_client_that_leaves_while_it_waits_is_noticed():
    s = fake()
    for streaming in (False, True):
        for fields in ({"wait_ms": 60000}, {"tokens": 2, "interval_ms": 60000}):
            c, ident = begin(s, stream=streaming, fake=fields)
            time.sleep(0.3)
            c.close()
            noticed(s, ident)


@test
def a_client_that_leaves_amid_a_stream_is_noticed():
    s = fake()
    for how in ("close", "reset", "half"):
        c, ident = begin(s, stream=True, fake={"tokens": 100000, "interval_ms": 5})
        check(b"data:" in c.recv(4096) + c.recv(4096), "no stream")
        if how == "reset":
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if how == "half":
            c.shutdown(socket.SHUT_WR)
        else:
            c.close()
        noticed(s, ident)
        c.close()


@test
def a_slow_reader_pauses_its_provider():
    s = fake()
    c, ident = begin(s, stream=True, fake={"tokens": 600, "bytes": 60000})
    check(s.wait_line(lambda t: t.startswith("paused") and ident in t, 30), "not paused")
    time.sleep(0.2)
    data = read_until_end(c)
    check(s.wait_line(lambda t: t.startswith("resumed") and ident in t, 20), "not resumed")
    chunks = data_events(parse(data).body)
    equal(chunks[-1], "[DONE]")
    equal(len(text_of(chunks[:-1])), 600 * 60000)
    c.close()


@test
def leaving_while_paused_ends_the_provider():
    s = fake()
    c, ident = begin(s, stream=True, fake={"tokens": 600, "bytes": 60000})
    check(s.wait_line(lambda t: t.startswith("paused") and ident in t, 30), "not paused")
    c.close()
    noticed(s, ident)


@test
def many_streams_at_once():
    s = fake()
    conns = [begin(s, stream=True, fake={"tokens": 40, "interval_ms": 10}) for _ in range(200)]
    for c, _ in conns:
        chunks = data_events(parse(read_until_end(c)).body)
        equal(chunks[-1], "[DONE]")
        equal(len(chunks), 43)
        c.close()


def read_until_end(c):
    out = bytearray()
    c.settimeout(20)
    end = time.monotonic() + 60
    while not out.endswith(b"0\r\n\r\n"):
        check(time.monotonic() < end, "no end:", out[-200:])
        got = c.recv(1 << 16)
        check(got, "closed early:", out[-200:])
        out += got
    return bytes(out)


@test
def drain_lets_answers_finish():
    s = own_fake("--drain-ms", "10000")
    watcher = s.connect()
    watcher.sendall(b"GET /models/sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
    c, _ = begin(s, stream=True, fake={"tokens": 10, "interval_ms": 150})
    idle = s.connect()
    s.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    error_of(s.chat(), 503, "shutting_down", kind="unavailable_error")
    equal(s.get("/livez").status, 200)
    equal(s.get("/readyz").status, 503)
    chunks = data_events(parse(read_until_end(c)).body)
    equal(chunks[-1], "[DONE]")
    equal(s.process.wait(30), 0)
    check(s.wait_line(lambda t: t == "closed", 2), "not closed")
    for other in (c, idle, watcher):
        other.close()


@test
def a_second_signal_ends_at_once():
    s = own_fake("--drain-ms", "60000")
    c, _ = begin(s, stream=True, fake={"tokens": 1000, "interval_ms": 1000})
    waiting, _ = begin(s, fake={"wait_ms": 100000})
    s.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    check(s.process.poll() is None, "did not wait")
    s.process.send_signal(signal.SIGTERM)
    equal(s.process.wait(30), 0)
    chunks = data_events(dechunk(read_all(c, 1).partition(b"\r\n\r\n")[2])[0])
    check(
        "[DONE]" not in chunks and not any(x["choices"][0]["finish_reason"] for x in chunks),
        "ended as whole",
    )
    c.close()
    waiting.close()


@test
def drain_has_an_end():
    s = own_fake("--drain-ms", "500")
    c, _ = begin(s, stream=True, fake={"tokens": 1000, "interval_ms": 1000})
    began = time.monotonic()
    equal(s.stop(seconds=30), 0)
    check(time.monotonic() - began >= 0.5, "did not wait")
    c.close()


@test
def python_client():
    import openai

    s = fake("--upstream")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{s.port}/v1", api_key="none", max_retries=0)
    check("tiny" in [m.id for m in client.models.list()], "models")
    equal(client.models.retrieve("org/split").id, "org/split")
    r = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], n=2, logprobs=True, top_logprobs=1
    )
    equal([c.message.content for c in r.choices], [HELLO, HELLO])
    equal(r.usage.prompt_tokens_details.cached_tokens, 2)
    equal(r.choices[0].logprobs.content[0].logprob, -0.25)
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            stream=True,
            stream_options={"include_usage": True},
            messages=[{"role": "user", "content": "hi"}],
        )
    )
    equal("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), HELLO)
    equal(chunks[-1].usage.total_tokens, 11)
    equal(client.completions.create(model="tiny", prompt=["a", "b"]).choices[1].index, 1)
    try:
        client.chat.completions.create(model="tyni", messages=[{"role": "user", "content": "hi"}])
        check(False, "no error")
    except openai.NotFoundError as e:
        equal((e.code, e.param), ("model_not_found", "model"))
    try:
        client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hi"}],
            extra_headers={"X-Ashley-Load-Timeout": "100ms"},
            extra_body={"fake": {"wait_ms": 3000}},
        )
        check(False, "no error")
    except openai.InternalServerError as e:
        equal((e.status_code, e.code, e.body["loading"]["model"]), (503, "model_loading", "tiny"))
    got = []
    try:
        for chunk in client.chat.completions.create(
            model="tiny",
            stream=True,
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"fake": {"error": {"status": 503, "code": "idle_timeout", "after": 1}}},
        ):
            got.append(chunk)
        check(False, "no error")
    except openai.APIError as e:
        equal(e.code, "idle_timeout")
    check(got, "no chunk before the error")
    r = client.chat.completions.create(model="openai", messages=[{"role": "user", "content": "hi"}])
    equal(r.choices[0].message.content, "upstream says")


@test
def what_stays_as_it_is_is_not_tried_again():
    import httpx
    import openai

    s = fake()
    sent = []
    http = httpx.Client(event_hooks={"request": [lambda r: sent.append(r.url.path)]})
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{s.port}/v1", api_key="none", http_client=http)
    hi = [{"role": "user", "content": "hi"}]
    for call, status in (
        (lambda: client.embeddings.create(model="tiny", input="x"), 501),
        (lambda: client.chat.completions.create(model="tiny", messages=hi, logprobs=1), 400),
        (
            lambda: client.chat.completions.create(
                model="tiny", messages=hi, response_format={"type": "json_object"}
            ),
            501,
        ),
        (lambda: client.chat.completions.create(model="openai", messages=hi), 503),
    ):
        sent.clear()
        try:
            call()
            check(False, "no error")
        except openai.APIStatusError as e:
            equal((e.status_code, len(sent)), (status, 1), e)
    busy = s.chat(fake={"error": {"status": 503, "code": "queue_timeout"}})
    error_of(busy, 503, "queue_timeout")
    check("x-should-retry" not in busy.headers, busy.headers)


@test
def npm_client():
    import os

    s = fake("--upstream")
    here = os.path.dirname(os.path.abspath(__file__))
    p = subprocess.run(
        ["node", os.path.join(here, "client.mjs"), f"http://127.0.0.1:{s.port}/v1", "tiny"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    equal(p.returncode, 0, p.stderr[-1500:])
    out = json.loads(p.stdout)
    equal(out["whole"], HELLO)
    equal(out["streamed"], HELLO)
    equal(out["usage"], 11)
    equal(out["finish"], "stop")
    equal(out["missing"], "model_not_found")
    check("tiny" in out["models"], out)
