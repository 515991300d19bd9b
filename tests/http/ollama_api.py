"""Ollama's API: lists, answers in lines, loading by an empty request; with its own Python client."""

import datetime
import json
import time

import ollama
from harness import check, equal, fake, own_fake, test

HI = [{"role": "user", "content": "hi"}]
TEXT = "user:hi w1é w2é"  # of the fake engine


def client(s):
    return ollama.Client(host=f"http://127.0.0.1:{s.port}")


def state(s, model):
    return json.loads(s.get(f"/v1/models/{model}").body)["status"]


def refused(call, status):
    try:
        call()
    except ollama.ResponseError as e:
        equal(e.status_code, status, e.error)
        return e.error
    raise AssertionError("not refused")


@test
def lists():
    s = fake("--upstream")
    version = json.loads(s.get("/api/version").body)["version"]
    check(all(part.isdigit() for part in version.split(".")), version)
    names = [m.model for m in client(s).list().models]
    check({"tiny:latest", "cold:latest", "org/split:latest", "ashley:latest"} <= set(names), names)
    check("broken:latest" not in names, names)
    running = {m.model: m for m in client(s).ps().models}
    check({"tiny:latest", "other:latest"} <= set(running) and "cold:latest" not in running, running)
    years = running["tiny:latest"].expires_at - datetime.datetime.now(datetime.timezone.utc)
    check(years.days > 36500, "kept for ever", years)
    raw = json.loads(s.get("/api/ps").body)["models"][0]
    check(raw["expires_at"].endswith("+00:00") and raw["name"] == raw["model"], raw)
    shown = client(s).show("tiny:latest")
    equal((shown.modelinfo["general.context_length"], shown.capabilities), (2048, ["completion"]))
    check("did you mean" in refused(lambda: client(s).show("tinny"), 404))


@test
def chats_and_prompts():
    s = fake()
    r = client(s).chat("tiny:latest", HI, options={"num_predict": 5, "temperature": 0.5, "stop": ["x"]})
    equal((r.model, r.message.content, r.done, r.done_reason), ("tiny", TEXT, True, "stop"))
    check(r.eval_count == 3 and r.total_duration > 0, r)
    parts = list(client(s).chat("tiny", HI, stream=True))
    equal("".join(p.message.content for p in parts), TEXT)
    equal([p.done for p in parts], [False, False, False, True])
    g = client(s).generate("tiny", "hi", system="Be brief.")
    equal((g.response, g.done, g.done_reason), ("system:Be brief.|" + TEXT, True, "stop"))
    parts = client(s).generate("tiny", "hi", raw=True, stream=True)
    equal("".join(p.response for p in parts), '"hi" w1é w2é')
    r = s.post("/api/chat", {"model": "tiny", "messages": HI})  # a stream unless it says otherwise
    equal((r.status, r.headers["content-type"]), (200, "application/x-ndjson"))
    equal([json.loads(line)["done"] for line in r.body.splitlines()], [False, False, False, True])


@test
def an_upstream_answers_in_lines_too():
    s = fake("--upstream")
    r = client(s).chat("openai", HI)
    equal((r.model, r.message.content), ("gpt-4o-mini", "upstream says"))
    equal("".join(p.message.content for p in client(s).chat("openai", HI, stream=True)), "u0u1u2")
    equal(client(s).generate("openai", "hi").response, "upstream says")


@test
def errors_are_a_text():
    s = fake()
    check("does not exist" in refused(lambda: client(s).chat("nobody-knows-this", HI), 404))
    check("'format'" in refused(lambda: client(s).chat("tiny", HI, format="json"), 501))
    for body, status in (
        (b"{", 400),
        ({"model": 3, "messages": HI}, 400),
        ({"model": "tiny", "messages": "hi"}, 400),
        ({"model": "tiny", "messages": HI, "options": 7}, 400),
        ({"model": "tiny", "messages": HI, "options": {"temperature": "hot"}}, 400),
        ({"model": "tiny", "messages": HI, "options": {"num_predict": 1.5}}, 400),
        ({"model": "tiny", "messages": HI, "stream": "yes"}, 400),
        ({"model": "tiny", "messages": HI, "keep_alive": "soon"}, 400),
        ({"model": "tiny", "messages": [{"role": "user", "content": "a", "images": ["eA=="]}]}, 501),
    ):
        r = s.post("/api/chat", body)
        equal((r.status, type(json.loads(r.body)["error"])), (status, str), body)
    for body in ({"model": "tiny", "prompt": 7}, {"model": "tiny", "prompt": "a", "system": []}):
        equal(s.post("/api/generate", body).status, 400, body)
    r = s.request("GET", "/api/chat")
    equal((r.status, r.headers["allow"]), (405, "POST"))
    equal(s.post("/api/embed", {}).status, 501)


@test
def an_empty_request_loads_or_unloads():
    s = own_fake()
    try:
        began = time.monotonic()
        r = client(s).generate("cold", keep_alive="10m")
        equal((r.response, r.done, r.done_reason), ("", True, "load"))
        check(time.monotonic() - began >= 0.4, "it waits for the load")
        check(r.total_duration >= r.load_duration >= 3e8, "the wait is told", r)
        equal(client(s).generate("cold").done_reason, "load", "of a model that is there")
        told = state(s, "cold")
        equal((told["value"], told["kept"]), ("loaded", 600000))
        r = client(s).chat("cold", [], keep_alive=0)
        equal((r.message.content, r.done_reason), ("", "unload"))
        equal(state(s, "cold")["value"], "unloaded")
        r = s.post("/api/generate", {"model": "cold"}, {"X-Ashley-Load-Timeout": "1ms"})
        equal(r.status, 503)
        check("still loading" in json.loads(r.body)["error"], r.body)
        refused(lambda: client(s).generate("broken"), 400)
        refused(lambda: client(s).generate("tiny", keep_alive="soon"), 400)
        equal(client(s).chat("tiny", HI, keep_alive="1h").message.content, TEXT)
    finally:
        s.stop()
