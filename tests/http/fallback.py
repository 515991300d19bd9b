"""Who answers when: the default model, the upstream, and the policies of ASHLEY_FALLBACK."""

import json

from harness import check, data_events, equal, error_of, fake, test, text_of


def who(r):
    equal(r.status, 200, r.body[:300])
    return (
        r.headers.get("x-ashley-served-by"),
        r.headers.get("x-ashley-model"),
        r.headers.get("x-ashley-reason"),
    )


LOCAL_FAILS = {"only": "local", "error": {"status": 503, "code": "engine_failed", "after": -1}}


@test
def default_model_openai():
    s = fake("--default", "openai", "--upstream")
    for fields in ({}, {"model": "openai"}, {"model": "ashley"}, {"model": "gpt-4o-mini"}, {"model": None}):
        equal(who(s.chat(**fields)), ("openai", "gpt-4o-mini", "default"), fields)
    equal(who(s.chat(model="tiny")), ("local", "tiny", None))
    r = s.chat(stream=True)
    equal(who(r), ("openai", "gpt-4o-mini", "default"))
    chunks = data_events(r.body)
    equal((text_of(chunks[:-1]), chunks[-1]), ("u0u1u2", "[DONE]"))


@test
def without_an_upstream_the_key_is_named():
    s = fake("--default", "openai")
    for fields in ({}, {"model": "openai"}, {"model": "ashley"}):
        e = error_of(s.chat(**fields), 503, "upstream_not_configured", kind="unavailable_error")
        check("OPENAI_API_KEY" in e["message"], e)
    equal(who(s.chat(model="tiny")), ("local", "tiny", None))
    error_of(s.chat(model="gpt-4o-mini"), 404, "model_not_found")


@test
def never():
    for s in (fake("--upstream"), fake("--upstream", "--fallback", "never")):
        e = error_of(s.chat(model="tiny", fake=LOCAL_FAILS), 503, "engine_failed")
        check("fake failure of local" in e["message"], e)
        equal(who(s.chat(model="cold")), ("local", "cold", None))


@test
def on_error():
    s = fake("--upstream", "--fallback", "on-error")
    equal(who(s.chat(model="tiny")), ("local", "tiny", None))
    equal(who(s.chat(model="tiny", fake=LOCAL_FAILS)), ("openai", "gpt-4o-mini", "failed"))
    r = s.chat(model="tiny", stream=True, fake=LOCAL_FAILS)
    equal(who(r), ("openai", "gpt-4o-mini", "failed"))
    equal(text_of(data_events(r.body)[:-1]), "u0u1u2")
    after_head = {"only": "local", "error": {"status": 503, "code": "queue_timeout", "after": 0}}
    equal(who(s.chat(model="tiny", stream=True, fake=after_head)), ("openai", "gpt-4o-mini", "busy"))
    late = {"only": "local", "wait_ms": 5000}
    equal(
        who(s.chat({"X-Ashley-Load-Timeout": "100ms"}, model="tiny", fake=late)),
        ("openai", "gpt-4o-mini", "loading"),
    )


@test
def on_error_not_after_the_first_token_nor_for_the_clients_mistakes():
    s = fake("--upstream", "--fallback", "on-error")
    r = s.chat(
        model="tiny",
        stream=True,
        fake={"only": "local", "tokens": 3, "error": {"status": 503, "code": "broken", "after": 1}},
    )
    chunks = data_events(r.body)
    equal(chunks[-1]["error"]["code"], "broken")
    equal(who(r)[0], "local")
    error_of(
        s.chat(
            model="tiny",
            fake={
                "only": "local",
                "error": {"status": 400, "code": "context_length_exceeded", "after": -1},
            },
        ),
        400,
        "context_length_exceeded",
    )
    error_of(s.chat(model="tiny", fake={"start": -1}), 400)
    error_of(s.chat(model="nobody-knows-this", fake=LOCAL_FAILS), 404, "model_not_found")


@test
def both_fail():
    s = fake("--upstream", "--fallback", "on-error")
    e = error_of(
        s.chat(model="tiny", fake={"error": {"status": 502, "code": "upstream", "after": -1}}), 502
    )
    check("fake failure of openai" in e["message"] and "fake failure of local" in e["message"], e)


@test
def the_upstream_that_was_asked_instead_fails():
    s = fake("--upstream", "--fallback", "on-not-ready")
    fails = {"only": "openai", "error": {"status": 502, "code": "upstream", "after": -1}}
    e = error_of(s.chat(model="broken", fake=fails), 502)
    check("fake failure of openai" in e["message"] and "instead of 'broken': failed" in e["message"], e)
    e = error_of(s.chat(model="openai", fake=fails), 502)
    check("instead" not in e["message"], e)


@test
def headers_before_it_is_sure_who_answers():
    s = fake("--upstream", "--fallback", "on-error")
    r = s.chat(
        model="tiny",
        stream=True,
        headers={"X-Ashley-Load-Timeout": "1700ms"},
        fake={"only": "local", "wait_ms": 9000},
    )
    equal(r.status, 200)
    check("x-ashley-served-by" not in r.headers, r.headers)
    chunks = data_events(r.body)[:-1]
    told = [(c["served_by"], c["reason"]) for c in chunks if "served_by" in c]
    equal(told, [("openai", "loading")], "then a chunk says it")
    equal(text_of(chunks), "u0u1u2")


@test
def what_was_left_out_is_told():
    s = fake()
    cut = {"truncated": 3}
    want = {"messages": 3, "tokens": 300}
    r = s.chat(model="tiny", fake=cut)
    equal(r.headers.get("x-ashley-truncated"), "messages=3, tokens=300")
    equal(json.loads(r.body)["truncated"], want)
    r = s.chat(model="tiny", stream=True, fake=cut)
    equal(r.headers.get("x-ashley-truncated"), "messages=3, tokens=300")
    equal([c["truncated"] for c in data_events(r.body)[:-1] if "truncated" in c], [want])
    r = s.chat(model="tiny")
    check("truncated" not in json.loads(r.body) and "x-ashley-truncated" not in r.headers)


@test
def on_not_ready():
    s = fake("--upstream", "--fallback", "on-not-ready")
    s.post("/models/unload", {"model": "cold"})
    equal(who(s.chat(model="cold")), ("openai", "gpt-4o-mini", "loading"))
    check(
        json.loads(s.get("/v1/models/cold").body)["status"]["value"] in ("loading", "loaded"),
        "the load goes on",
    )
    equal(who(s.chat(model="broken")), ("openai", "gpt-4o-mini", "failed"))
    equal(who(s.chat(model="tiny")), ("local", "tiny", None))
    equal(who(s.chat(model="tiny", fake=LOCAL_FAILS)), ("openai", "gpt-4o-mini", "failed"))
    error_of(s.chat(model="nobody-knows-this"), 404, "model_not_found")


@test
def always():
    s = fake("--upstream", "--fallback", "always")
    equal(who(s.chat(model="broken")), ("openai", "gpt-4o-mini", "failed"))
    equal(who(s.chat(model="other")), ("local", "other", None))
    # the fake engine of "tiny" has two waiting and one running
    equal(who(s.chat(model="tiny")), ("openai", "gpt-4o-mini", "busy"))


@test
def upstream_errors_keep_their_meaning():
    s = fake("--default", "openai", "--upstream", "--fallback", "on-error")
    for status, code in ((400, "bad"), (429, "rate_limit_exceeded"), (502, "upstream_error")):
        error_of(s.chat(fake={"error": {"status": status, "code": code, "after": -1}}), status, code)
