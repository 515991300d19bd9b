"""Request bodies: what is refused and how, what is tolerated."""

import json
import time

from harness import Skip, check, data_events, equal, error_of, fake, parse, read_all, readable, test, text_of

HI = [{"role": "user", "content": "hi"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@test
def malformed_json_tells_the_position():
    s = fake()
    for body, at in (
        (b"{", 1),
        (b'{"a":1,}', 8),
        (b'{"a":"\xff"}', None),
        (b"\x00\x01", None),
        (b'{"messages": [}', 15),
        (b"[" * 70, 64),
    ):
        e = error_of(s.post(CHAT, body), 400, "invalid_json", kind="invalid_request_error")
        check("at byte" in e["message"], e)
        if at is not None:
            check(f"at byte {at}" in e["message"], e, "wanted byte", at)
    check("has no body" in error_of(s.post(CHAT, b""), 400, "invalid_json")["message"], "an empty one")
    for body in (b"[]", b'"x"', b"3", b"null"):
        check("must be a JSON object" in error_of(s.post(CHAT, body), 400)["message"], body)


@test
def wrong_types_name_the_parameter():
    s = fake()
    wrong = {
        "temperature": ["hot", 101, -1, True, [1]],
        "top_p": [1.5, "x"],
        "min_p": [2],
        "top_k": ["x", 1.5],
        "presence_penalty": [3],
        "frequency_penalty": [-3],
        "repeat_penalty": [0, -1, "x", 1e-320],
        "seed": ["x", 1.5],
        "max_tokens": ["x", -2, 1.5],
        "max_completion_tokens": [-5],
        "n_predict": ["x"],
        "n": [0, 17, "x"],
        "stop": [1, [1], ["x"] * 65, "x" * 1025],
        "stream": ["yes", 1],
        "stream_options": ["x"],
        "logit_bias": ["x", {"x": 1}, {"1": "x"}, [[1]], [["a", 1]]],
        "logprobs": ["x", 3],
        "top_logprobs": [21, -1, "x"],
        "return_progress": [1],
        "ignore_eos": ["x"],
        "cache_prompt": ["x"],
        "tools": ["x", {}],
        "continue_final_message": [1],
        "add_generation_prompt": ["x"],
        "response_format": ["x", {}],
        "model": [1, ["tiny"]],
        "persona": [1],
    }
    for key, values in wrong.items():
        for value in values:
            r = s.chat(**{key: value})
            e = error_of(r, 400, kind="invalid_request_error")
            equal(e["param"], key, f"{key}={value!r}: {e['message']}")
    equal(error_of(s.chat(top_logprobs=2), 400)["param"], "top_logprobs")
    equal(
        error_of(s.chat(stream_options={"include_usage": "x"}), 400)["param"],
        "stream_options.include_usage",
    )
    equal(
        error_of(s.chat(continue_final_message=True, add_generation_prompt=True), 400)["param"],
        "continue_final_message",
    )
    equal(error_of(s.post(CHAT, {}), 400)["param"], "messages")
    equal(error_of(s.post(CHAT, {"messages": []}), 400)["param"], "messages")
    equal(error_of(s.post(CHAT, {"messages": [{"content": "x"}]}), 400)["param"], "messages[0].role")
    equal(error_of(s.post(TEXT, {}), 400)["param"], "prompt")
    for prompt in (1, {}, [], [1.5], [-1], [[]], [["a"]], ["a", 1], ["a"] * 17):
        equal(error_of(s.post(TEXT, {"prompt": prompt}), 400)["param"], "prompt", prompt)


@test
def what_is_not_built_is_501_by_name():
    s = fake()
    for key, value in (
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("grammar", "root ::= x"),
        ("json_schema", {}),
    ):
        e = error_of(s.chat(**{key: value}), 501, "unsupported_parameter", key, "not_supported_error")
    for key, value in (("echo", True), ("suffix", "x"), ("best_of", 3)):
        e = error_of(s.post(TEXT, {"prompt": "x", key: value}), 501, kind="not_supported_error")
        equal(e["param"], key)
    image = [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": "x"}}]
    e = error_of(s.chat(messages=[{"role": "user", "content": image}]), 501, kind="not_supported_error")
    check("image_url" in e["message"] and "messages[0]" in e["param"], e)


@test
def tolerance():
    s = fake()
    nothing = {
        k: None
        for k in (
            "model",
            "temperature",
            "top_p",
            "max_tokens",
            "stop",
            "stream",
            "seed",
            "n",
            "logit_bias",
            "logprobs",
            "tools",
            "response_format",
            "stream_options",
            "top_logprobs",
            "persona",
            "user",
            "presence_penalty",
        )
    }
    equal(s.chat(**nothing).status, 200, "nulls")
    equal(s.chat(unknown={"x": [1]}, user="me", metadata={}, store=False, service_tier="auto").status, 200)
    for good in (
        {"seed": -1},
        {"seed": 0},
        {"max_tokens": -1},
        {"stop": "x"},
        {"stop": ["a", "b"]},
        {"stop": []},
        {"stop": ""},
        {"top_k": -1},
        {"top_p": 0},
        {"temperature": 0},
        {"n": 1.0},
        {"model": ""},
        {"logit_bias": {"5": -100}},
        {"logit_bias": [[5, -1.5], [6, False]]},
        {"logit_bias": {}},
        {"tools": []},
        {"response_format": {"type": "text"}},
        {"logprobs": False},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"logprobs": True, "top_logprobs": 20},
        {"continue_final_message": True},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"cache_prompt": False},
        {"model": "tiny:latest"},
        {"model": "org/split"},
    ):
        equal(s.chat(**good).status, 200, good)
    for prompt in ("x", ["a", "b"], [1, 2, 3], [[1, 2], [3]], ["a", [1]], ""):
        equal(s.post(TEXT, {"prompt": prompt}).status, 200, prompt)


@test
def of_two_names_llama_cpps_wins():
    s = fake()

    def reason(**fields):
        return json.loads(s.chat(fake={"tokens": 5}, **fields).body)["choices"][0]["finish_reason"]

    equal(reason(max_tokens=3), "length")
    equal(reason(n_predict=9, max_tokens=3), "stop")
    equal(reason(n_predict=3, max_tokens=9, max_completion_tokens=9), "length")
    equal(reason(max_completion_tokens=3), "length")
    equal(reason(n_predict=None, max_tokens=3), "length")


@test
def budgets_from_headers():
    s = fake()
    for bad in ("soon", "-1s", "1d", "", "1e3", "99999999h"):
        e = error_of(s.chat({"X-Ashley-Load-Timeout": bad}), 400)
        equal(e["param"], "X-Ashley-Load-Timeout", bad)
    for good in ("500ms", "1.5s", "10m", "2h", "30"):
        equal(s.chat({"X-Ashley-Queue-Timeout": good}).status, 200, good)
    e = error_of(
        s.chat({"X-Ashley-Load-Timeout": "150ms"}, model="tiny", fake={"wait_ms": 5000}),
        503,
        "model_loading",
        kind="unavailable_error",
    )
    equal(e["loading"]["state"], "loading")
    error_of(s.chat(model="other", fake={"wait_ms": 5000}), 503, "model_loading")  # its own budget
    equal(s.chat({"X-Ashley-Load-Timeout": "10s"}, model="other", fake={"wait_ms": 300}).status, 200)


@test
def bodies_over_the_cap_are_413():
    s = fake()
    big = b'{"messages":[{"role":"user","content":"' + b"x" * (33 << 20) + b'"}]}'
    error_of(s.post(CHAT, big), 413, "body_too_large")
    r = s.request("POST", CHAT, b"", {"Content-Length": str(1 << 40), "Expect": "100-continue"})
    error_of(r, 413)
    r = s.request("POST", CHAT, b"", {"Content-Length": str(40 << 20), "Expect": "100-continue"})
    error_of(r, 413)
    equal(s.chat().status, 200, "after it")


@test
def a_body_of_many_megabytes_is_read():
    s = fake()
    text = "a" * (5 << 20)
    r = s.chat(messages=[{"role": "user", "content": text}], fake={"bytes": 10}, stream=True)
    equal(text_of(data_events(r.body)), "x" * 30)


@test
def bodies_whose_tree_would_be_huge():
    s = fake()
    for body in (b"[" + b"{}," * (10 << 20) + b"{}]", b'{"prompt":[' + b"1," * (8 << 20) + b"1]}"):
        e = error_of(s.post(TEXT, body), 400, "invalid_json")
        check("at byte" in e["message"], e)
    prompt = [1] * 100000
    equal(s.post(TEXT, {"prompt": prompt}).status, 200, "a long prompt of ids")
    text = '[{,"' * 200000
    equal(s.post(TEXT, {"prompt": text, "fake": {"bytes": 3}}).status, 200, "signs within a text")


@test
def too_many_bodies_at_once():
    s = fake()
    body = b'{"messages":[{"role":"user","content":"' + b"x" * (30 << 20) + b'"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    waiting = []
    for _ in range(8):  # all but their last byte
        c = s.connect()
        c.sendall(head + body[:-1])
        waiting.append(c)
    deadline = time.monotonic() + 60
    while s.post(CHAT, body).status != 503 and time.monotonic() < deadline:
        time.sleep(0.1)  # until the eight are read
    error_of(s.post(CHAT, body), 503, "out_of_memory")
    equal(s.chat().status, 200, "a small one")
    for c in waiting:
        c.close()
    while s.post(CHAT, body).status != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    equal(s.post(CHAT, body).status, 200, "when they are gone")


def tree_of(values, **fields):
    """A chat whose tree takes many times its text."""
    return {"messages": HI, "x": [0] * values} | fields


@test
def large_bodies_do_not_hold_up_the_rest():
    s = fake()
    message = {"role": "user", "content": "x" * 100000}
    data = json.dumps({"messages": [message], "fake": {"start_ms": 1000}}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data)
    large = []
    for _ in range(8):  # one after the other: each on a thread that is free, while there is one
        large.append(s.connect())
        large[-1].sendall(head + data)
        time.sleep(0.1)
    equal(s.chat().status, 200, "a small one")
    answered = sum(readable(c, 0) for c in large)
    check(answered < 3, "a small request waited for", answered, "large ones")
    for c in large[3:]:
        c.close()  # these are not served any more
    for c in large[:3]:
        check(readable(c, 20), "a large one got no answer")
        c.close()
    equal(s.chat().status, 200, "after it")


@test
def trees_of_bodies_are_bounded_together():
    s = fake()
    body = json.dumps(tree_of(800000, fake={"wait_ms": 60000})).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    waiting, refused = [], None
    while not refused and len(waiting) < 6:
        c = s.connect()
        c.sendall(head + body)
        if readable(c, 3):
            refused = parse(read_all(c, 1))
        waiting.append(c)
    check(refused, "six trees of 100 MB were made")
    error_of(refused, 503, "out_of_memory")
    equal(s.chat().status, 200, "a small one")
    for c in waiting:
        c.close()
    deadline = time.monotonic() + 20
    while s.post(CHAT, tree_of(800000)).status != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    equal(s.post(CHAT, tree_of(800000)).status, 200, "when they are gone")


@test
def memory_of_large_bodies_goes_back_to_the_machine():
    s = fake()
    with open(f"/proc/{s.process.pid}/maps", encoding="utf-8") as f:
        if "libasan" in f.read():
            raise Skip("AddressSanitizer keeps what is freed")

    def resident():
        with open(f"/proc/{s.process.pid}/status", encoding="ascii") as f:
            return int(next(line for line in f if line.startswith("VmRSS")).split()[1]) << 10

    s.chat()
    before = resident()
    messages = [{"role": "user", "content": f"{i}"} for i in range(100000)]
    for _ in range(3):
        equal(s.chat(messages=messages).status, 200)
    deadline = time.monotonic() + 20
    while resident() > before + (24 << 20) and time.monotonic() < deadline:
        time.sleep(0.1)
    more = resident() - before
    check(more <= 24 << 20, more >> 20, "MB are kept")
