"""Lists of models, their management, the stream of changes, health and metrics."""

import json
import re
import time

from harness import check, data_events, equal, error_of, fake, own_fake, read_all, test


@test
def list_of_models():
    s = fake("--upstream")
    lists = [json.loads(s.get(p).body) for p in ("/v1/models", "/models")]
    equal(lists[0], lists[1])
    equal(lists[0]["object"], "list")
    by_id = {m["id"]: m for m in lists[0]["data"]}
    equal(
        [m["id"] for m in lists[0]["data"]],
        ["tiny", "other", "cold", "org/split", "broken", "ashley", "local-one", "openai"],
    )
    for m in by_id.values():
        check(m["object"] == "model" and isinstance(m["created"], int) and m["owned_by"], m)
        equal(m["loaded"], m["status"]["value"] == "loaded", m["id"])
    equal(by_id["tiny"]["status"]["value"], "loaded")
    equal(by_id["tiny"]["meta"]["n_ctx"], 2048)
    equal(by_id["broken"]["status"]["value"], "failed")
    equal(by_id["ashley"]["owned_by"], "persona")
    equal(
        by_id["ashley"]["meta"],
        {
            "name": "Ashley",
            "description": "A test persona",
            "first_message": "Hi.",
            "greetings": ["Hi.", "Hello."],
            "model": "tiny",
        },
    )
    equal(by_id["openai"]["meta"]["model"], "gpt-4o-mini")
    check("openai" not in s2_ids(), "an upstream that is not configured is listed")


def s2_ids():
    return [m["id"] for m in json.loads(fake().get("/v1/models").body)["data"]]


@test
def one_model():
    s = fake()
    for path, want in (
        ("/v1/models/tiny", "tiny"),
        ("/models/tiny", "tiny"),
        ("/v1/models/org/split", "org/split"),
        ("/v1/models/org%2Fsplit", "org/split"),
        ("/v1/models/tiny:latest", "tiny"),
        ("/v1/models/ashley", "ashley"),
    ):
        r = s.get(path)
        equal((r.status, json.loads(r.body).get("id")), (200, want), path)
    e = error_of(s.get("/v1/models/tinny"), 404, "model_not_found", "model", "not_found_error")
    check("'tiny'" in e["message"], e)
    error_of(s.get("/v1/models/openai"), 404, "model_not_found")
    error_of(s.get("/v1/models/" + "x" * 1000), 404, "model_not_found")


@test
def unknown_models():
    s = fake()
    e = error_of(s.chat(model="tinny"), 404, "model_not_found", "model", "not_found_error")
    check("did you mean 'tiny'?" in e["message"], e)
    e = error_of(s.chat(model="ashly"), 404, "model_not_found")
    check("'ashley'" in e["message"], e)
    check("did you mean" not in error_of(s.chat(model="zzzzzzzzzz"), 404)["message"], "nearest of nothing")
    error_of(s.chat(persona="nobody"), 404, "persona_not_found", "persona")
    e = error_of(fake("--default", "gone").chat(), 404, "model_not_found")
    check("DEFAULT_MODEL" in e["message"], e)


@test
def personas():
    s = fake()

    def told(**fields):
        r = s.chat(fake={"tokens": 1}, **fields)
        equal(r.status, 200, r.body)
        return r.headers["x-ashley-model"], json.loads(r.body)["choices"][0]["message"]["content"]

    equal(told(model="ashley"), ("tiny", "system:You are Ashley.|user:hi"))
    equal(told(persona="ashley"), ("tiny", "system:You are Ashley.|user:hi"))
    equal(told(persona="ashley", model="other"), ("other", "system:You are Ashley.|user:hi"))
    equal(told(model="local-one:latest"), ("tiny", "system:Be brief.|user:hi"))
    equal(
        told(
            model="ashley",
            messages=[{"role": "system", "content": "Speak French."}, {"role": "user", "content": "hi"}],
        ),
        ("tiny", "system:You are Ashley.\n\nSpeak French.|user:hi"),
    )
    parts = [
        {"role": "system", "content": [{"type": "text", "text": "Parts."}]},
        {"role": "user", "content": "hi"},
    ]
    name, text = told(model="ashley", messages=parts)
    check('"You are Ashley.\\n"' in text and '"Parts."' in text, text)
    equal(told(), ("tiny", "user:hi"))

    # sampling of the persona is a default only: it has max_tokens 77
    def reason(**fields):
        return json.loads(s.chat(model="ashley", **fields).body)["choices"][0]["finish_reason"]

    equal(reason(fake={"tokens": 77}), "length")
    equal(reason(fake={"tokens": 77}, max_tokens=100), "stop")
    equal(reason(fake={"tokens": 77}, max_completion_tokens=100), "stop")


@test
def load_and_unload():
    s = own_fake()
    try:

        def state():
            return json.loads(s.get("/v1/models/cold").body)["status"]["value"]

        equal(state(), "unloaded")
        watcher = s.connect()
        watcher.sendall(b"GET /models/sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.2)
        equal(json.loads(s.post("/models/load", {"model": "cold"}).body), {"success": True})
        equal(state(), "loading")
        time.sleep(1.2)
        equal(state(), "loaded")
        equal(s.post("/v1/models/unload", {"model": "cold"}).status, 200)
        equal(state(), "unloaded")
        for fields, kept in (({"keep_alive": "10m"}, 600000), ({"ttl": 60}, 60000), ({"keep_alive": -1}, -1)):
            equal(s.post("/models/load", {"model": "org/split"} | fields).status, 200)
            equal(json.loads(s.get("/v1/models/org/split").body)["status"]["kept"], kept, fields)
        for wrong in (0, "soon", True):
            r = s.post("/models/load", {"model": "org/split", "keep_alive": wrong})
            error_of(r, 400, param="keep_alive")
        equal(s.post("/models/retry", {"model": "cold:latest"}).status, 200)
        equal(s.post("/models/cancel", {"model": "cold"}).status, 200)
        equal(state(), "unloaded")
        time.sleep(0.5)
        text = read_all(watcher, 0.5).decode()
        body = "".join(
            line + "\n"
            for line in text.split("\r\n\r\n", 1)[1].split("\r\n")
            if line and not all(c in "0123456789abcdef" for c in line)
        )
        told = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: ")]
        equal([e["model"] for e in told[:5]], ["tiny", "other", "cold", "org/split", "broken"])
        equal({e["event"] for e in told[:5]}, {"model_status"})
        states = [e["state"] for e in told if e["model"] == "cold"]
        equal(states, ["unloaded", "loading", "loaded", "unloaded"])
        equal([e["data"]["status"] for e in told if e["model"] == "cold"], states)
        equal({e["event"] for e in told[5:]}, {"status_change"})
        watcher.close()
        error_of(s.post("/models/load", {}), 400, param="model")
        error_of(s.post("/models/load", {"model": 3}), 400, param="model")
        error_of(s.post("/models/load", {"model": "nope"}), 404, "model_not_found")
        error_of(s.post("/models/load", b"{"), 400, "invalid_json")
        e = error_of(s.post("/models/load", {"model": "broken"}), 400)
        check("not a GGUF file" in e["message"], e)
    finally:
        equal(s.stop(), 0)


@test
def health():
    s = own_fake()
    try:
        equal(json.loads(s.get("/livez").body), {"status": "ok"})
        equal(s.get("/health").status, 200)
        r = s.get("/readyz")
        body = json.loads(r.body)
        equal((r.status, body["ready"]), (200, True))
        equal([(m["model"], m["required"]) for m in body["models"]][:2], [("tiny", True), ("other", False)])
        check("report" not in body, body)
        check("steps" in json.loads(s.get("/readyz?verbose=1").body)["report"], "report")
        s.post("/models/unload", {"model": "tiny"})
        r = s.get("/readyz")
        equal((r.status, json.loads(r.body)["ready"]), (503, False))
        for _ in range(3):  # supervisors ask each second: the log has what changed
            equal(s.get("/readyz").status, 503)
        equal(s.get("/livez").status, 200)
        s.post("/models/load", {"model": "tiny"})
        end = time.monotonic() + 20
        while s.get("/readyz").status != 200 and time.monotonic() < end:
            time.sleep(0.02)
        equal(s.get("/readyz").status, 200)
        equal(s.get("/nope").status, 404)
        check(s.wait_line(lambda t: "GET /nope" in t, 20, s.errors), "no log")
        told = [re.search(r"GET /readyz (\d+)", line)[1] for line in s.errors if "GET /readyz" in line]
        equal(told, ["503", "200"])
    finally:
        equal(s.stop(), 0)


@test
def metrics():
    s = own_fake()
    try:
        s.chat()
        s.chat(stream=True)
        s.chat(temperature="x")
        s.get("/nope")
        r = s.get("/metrics")
        check(r.headers["content-type"].startswith("text/plain; version=0.0.4"), r.headers)
        values, kinds = {}, {}
        for line in r.body.decode().splitlines():
            if line.startswith("# TYPE"):
                kinds[line.split()[2]] = line.split()[3]
            elif not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                check(name not in values, "twice:", name)
                values[name] = float(value)
        equal(values['ashley_requests_total{route="/chat/completions",status="200"}'], 2)
        equal(values['ashley_requests_total{route="/chat/completions",status="400"}'], 1)
        equal(values['ashley_requests_total{route="none",status="404"}'], 1)
        equal(values['ashley_tokens_total{kind="prompt"}'], 12)
        equal(values['ashley_tokens_total{kind="cached"}'], 4)
        equal(values['ashley_tokens_total{kind="completion"}'], 6)
        equal(values["ashley_request_duration_seconds_count"], 4)
        equal(values["ashley_time_to_first_token_seconds_count"], 2)
        equal(values['ashley_request_duration_seconds_bucket{le="+Inf"}'], 4)
        equal(values['ashley_model_state{model="tiny",state="loaded"}'], 1)
        equal(values['ashley_model_state{model="tiny",state="failed"}'], 0)
        equal(values['ashley_model_bytes{model="tiny",kind="weights"}'], 1000)
        equal(values['ashley_model_bytes{model="tiny",kind="untouched"}'], 150)
        equal((values['ashley_queue_length{model="tiny"}'], values['ashley_running{model="tiny"}']), (2, 1))
        for name in values:
            base = name.split("{")[0]
            base = base if base in kinds else base.rsplit("_", 1)[0]
            check(base in kinds, "no TYPE for", name)
    finally:
        equal(s.stop(), 0)
