"""Bytes on the wire: cut, huge, pipelined, slow and hostile requests. The server goes on after each."""

import json
import random
import socket
import time

from harness import check, dechunk, equal, fake, parse, read_all, readable, test

BODY = b'{"messages":[{"role":"user","content":"hi"}]}'


def alive(s):
    equal(s.get("/livez").status, 200, "after it")


@test
def truncated_requests():
    s = fake()
    whole = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(BODY)
    ) + BODY
    for n in range(0, len(whole), 7):
        with s.connect() as c:
            c.sendall(whole[:n])
    alive(s)
    starts = sum(t.startswith("start") for t in s.lines)
    with s.connect() as c:
        c.sendall(whole[:-1])
        c.shutdown(socket.SHUT_WR)
        check(not read_all(c, 1).startswith(b"HTTP/1.1 200"), "answered half a body")
    equal(sum(t.startswith("start") for t in s.lines), starts, "generations")


@test
def byte_by_byte():
    s = fake()
    whole = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % len(BODY)
    ) + BODY
    with s.connect() as c:
        for b in whole:
            c.sendall(bytes([b]))
        equal(parse(read_all(c, 3)).status, 200)


@test
def chunked_bodies():
    s = fake()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunks = b"".join(b"%x;ext=1\r\n%c\r\n" % (1, b) for b in BODY) + b"0\r\nTrailer: x\r\n\r\n"
    equal(parse(s.raw(head + chunks)).status, 200)
    for bad in (b"zz\r\nx\r\n", b"-1\r\nx\r\n", b"ffffffffffffffffff\r\nx", b"5\r\nabc"):
        check(not s.raw(head + bad).startswith(b"HTTP/1.1 200"), bad)
    alive(s)


@test
def pipelined_requests_are_answered_in_order():
    s = fake()
    post = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    ) + BODY
    get = b"GET /v1/models/tiny HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: p%d\r\n\r\n"
    data = (
        b"".join(get % i + post for i in range(10))
        + b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    answer = s.raw(data)
    equal(answer.count(b"HTTP/1.1 200 OK"), 21)
    order = [int(x.split(b"\r\n")[0]) for x in answer.split(b"X-Request-Id: p")[1:]]
    equal(order, list(range(10)))


@test
def keep_alive_after_a_stream():
    s = fake()
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
    post = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body
    with s.connect() as c:
        for _ in range(3):
            c.sendall(post)
            got = b""
            while not got.endswith(b"0\r\n\r\n"):
                got += c.recv(65536)
            check(b"[DONE]" in got, got[-200:])


@test
def huge_headers_and_paths():
    s = fake()
    for data in (
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"x" * 100000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 20000 + b"\r\n",
        b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"x" * 100000,
    ):
        answer = s.raw(data)
        check(not answer.startswith(b"HTTP/1.1 200"), answer[:100])
    check(
        parse(
            s.raw(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        ).status
        in (404, 414),
        "long path",
    )
    alive(s)


@test
def garbage():
    s = fake()
    rng = random.Random(7)
    for _ in range(300):
        n = rng.randrange(1, 400)
        with s.connect() as c:
            try:
                c.sendall(bytes(rng.randrange(256) for _ in range(n)) + b"\r\n\r\n")
            except OSError:
                pass
    for data in (
        b"\r\n" * 1000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 20 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        s.raw(data, read=False)
    alive(s)


@test
def ambiguous_framing_is_refused():
    s = fake()
    line = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    n = b"Content-Length: %d\r\n" % len(BODY)
    chunked = b"Transfer-Encoding: chunked\r\n"
    hidden = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for head in (
        n + b"Content-Length: 0\r\n",
        b"Content-Length: 0\r\n" + n,
        n + n,
        n + chunked,
        chunked + n,
        chunked + chunked,
        n + b"Host: other\r\n",
    ):
        answer = s.raw(line + head + b"\r\n" + BODY + hidden)
        check(b"200 OK" not in answer, head, answer[:300])
    alive(s)


@test
def mutated_requests():
    s = fake()
    rng = random.Random(11)
    whole = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % len(BODY)
    ) + BODY
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with s.connect() as c:
            try:
                c.sendall(data)
                c.shutdown(socket.SHUT_WR)
            except OSError:
                pass
    alive(s)


@test
def unknown_paths_and_methods():
    s = fake()
    for path in ("/nope", "/v1", "/v2/models", "/v1/chat", "/../etc/passwd", "/v1/v1/models", "//"):
        r = s.get(path)
        equal((r.status, json.loads(r.body)["error"]["type"]), (404, "not_found_error"), path)
    equal(s.get("/v1/models/tin%79").status, 200)
    for path in ("tiny%00", "tiny%00x", "tiny%", "tiny%0"):  # a name does not end at a NUL
        equal(s.get("/v1/models/" + path).status, 404, path)
    for method, path, allow in (
        ("GET", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models/tiny", "GET, HEAD"),
        ("PUT", "/v1/models", "GET, HEAD, POST, DELETE"),
        ("DELETE", "/livez", "GET, HEAD"),
        ("GET", "/models/load", "POST"),
    ):
        r = s.request(method, path)
        equal((r.status, r.headers.get("allow")), (405, allow), f"{method} {path}")
    for method, path in (
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/responses"),
        ("POST", "/tokenize"),
        ("GET", "/props"),
    ):
        r = s.request(method, path, b"{}" if method == "POST" else None)
        e = json.loads(r.body)["error"]
        equal((r.status, e["type"]), (501, "not_supported_error"), path)
        check(path in e["message"], e)


@test
def bodies_that_are_none_or_compressed():
    s = fake()
    e = json.loads(s.request("POST", "/v1/chat/completions", b"").body)["error"]
    equal((e["code"], e["message"]), ("invalid_json", "the request has no body"))
    for name, status in (("gzip", 415), ("br", 415), ("identity", 200), ("Identity", 200)):
        r = s.request("POST", "/v1/chat/completions", BODY, {"Content-Encoding": name})
        equal(r.status, status, name)
    r = s.post("/v1/completions", BODY, {"Content-Encoding": "gzip"})
    check("Content-Encoding" in json.loads(r.body)["error"]["message"], r.body)
    alive(s)


@test
def head_requests():
    s = fake()
    for path in ("/livez", "/v1/models", "/"):
        r = s.request("HEAD", path)
        equal((r.status, r.body), (200, b""), path)
        equal(int(r.headers["content-length"]), len(s.get(path).body), path)
    equal(s.request("HEAD", "/models/sse").status, 200)


@test
def http_1_0():
    s = fake()
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
    answer = s.raw(
        b"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    check(
        b"200 OK" in answer[:20] and b"[DONE]" in answer and b"chunked" not in answer.lower(), answer[:300]
    )


@test
def expect_continue():
    s = fake()
    with s.connect() as c:
        c.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        )
        check(readable(c, 5), "no 100")
        check(c.recv(1000).startswith(b"HTTP/1.1 100"), "no 100 Continue")
        c.sendall(BODY)
        equal(parse(read_all(c, 3)).status, 200)


@test
def idle_and_slow_connections_end():
    s = fake("--idle-ms", "1500")
    dawdling = [s.connect() for _ in range(20)]  # a byte of a header now and then
    silent = s.connect()
    half = s.connect()
    half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
    end = time.monotonic() + 40
    alive_ones = dawdling + [silent, half]
    for c in dawdling:
        c.sendall(b"GET / HTTP/1.1\r\nX")
    while alive_ones and time.monotonic() < end:
        for c in list(alive_ones):
            if readable(c, 0):
                try:
                    gone = not c.recv(4096)
                except OSError:
                    gone = True
                if gone:
                    alive_ones.remove(c)
            elif c not in (silent,):
                try:
                    c.sendall(b"x")
                except OSError:
                    alive_ones.remove(c)
        time.sleep(0.2)
        equal(s.get("/livez").status, 200)
    equal(len(alive_ones), 0, "connections that never end")
    # an answer that takes longer than that is not idle
    r = s.chat(fake={"tokens": 2, "interval_ms": 1300})
    equal(r.status, 200)


@test
def a_reader_that_stops_is_cut_off():
    s = fake("--idle-ms", "1500")
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "fake": {"tokens": 600, "bytes": 60000},
        }
    ).encode()
    c = s.connect()
    c.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: stopped\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    check(s.wait_line(lambda t: t.startswith("canceled") and "stopped" in t, 40), "still waiting for it")
    data = read_all(c, 1)
    check(not dechunk(data.partition(b"\r\n\r\n")[2])[1], "ended as a whole stream")
    c.close()


@test
def many_connections():
    s = fake()
    conns = []
    try:
        for _ in range(400):
            conns.append(s.connect())
        alive(s)
    finally:
        for c in conns:
            c.close()
    alive(s)
