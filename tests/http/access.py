"""Who may call: keys, Host, Origin, CORS."""

import json

from harness import check, equal, error_of, fake, test

BODY = {"messages": [{"role": "user", "content": "hi"}]}


@test
def without_key_host_must_be_loopback():
    s = fake()
    for host in (
        "localhost",
        "localhost:1",
        "127.0.0.1",
        f"127.0.0.1:{s.port}",
        "[::1]",
        "[::1]:80",
        "LOCALHOST",
    ):
        equal(s.get("/v1/models", Host=host).status, 200, host)
    for host in (
        "example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "127.0.0.1:x",
        "evil@localhost",
        "localhost:123456",
        "[::1",
        "10.0.0.1",
        "localhost.",
    ):
        error_of(s.get("/v1/models", Host=host), 403, "host_not_allowed")
        equal(s.get("/livez", Host=host).status, 403, host)


@test
def without_key_foreign_origin_may_not_change_state():
    s = fake()
    for origin in (
        "https://example.com",
        "null",
        "http://localhost.example.com",
        "file://",
        "http://127.0.0.1:1.example.com",
    ):
        for path, body in (("/v1/chat/completions", BODY), ("/models/unload", {"model": "tiny"})):
            error_of(s.post(path, body, {"Origin": origin}), 403, "origin_not_allowed")
        r = s.get("/v1/models", Origin=origin)
        equal(r.status, 200, origin)
        check("access-control-allow-origin" not in r.headers, "CORS for", origin)
    for origin in (
        "http://localhost:3000",
        "http://127.0.0.1",
        "https://[::1]:8443",
        "tauri://localhost",
        "app://x",
        "vscode-webview://abc",
    ):
        r = s.post("/v1/chat/completions", BODY, {"Origin": origin})
        equal(r.status, 200, origin)
        equal(r.headers["access-control-allow-origin"], origin)
        check("Origin" in r.headers["vary"], "Vary")


@test
def configured_origins_replace_the_defaults():
    s = fake("--origin", "https://chat.example", "--origin", "myapp://")
    for origin in ("https://chat.example", "myapp://anything"):
        equal(s.post("/v1/chat/completions", BODY, {"Origin": origin}).status, 200, origin)
    for origin in ("https://chat.example.evil", "http://chat.example", "http://localhost:3000"):
        error_of(s.post("/v1/chat/completions", BODY, {"Origin": origin}), 403)
    # the server's own page
    equal(s.post("/v1/chat/completions", BODY, {"Origin": f"http://127.0.0.1:{s.port}"}).status, 200)


@test
def preflight():
    s = fake()
    r = s.request(
        "OPTIONS",
        "/v1/chat/completions",
        None,
        {
            "Origin": "http://localhost:5173",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    equal(r.status, 204)
    equal(r.headers["access-control-allow-origin"], "http://localhost:5173")
    check("POST" in r.headers["access-control-allow-methods"], r.headers)
    equal(r.headers["access-control-allow-headers"], "authorization,content-type")
    r = s.request("OPTIONS", "/v1/chat/completions", None, {"Origin": "https://example.com"})
    check("access-control-allow-origin" not in r.headers, r.headers)


@test
def keys():
    s = fake("--key", "sk-first-key", "--key", "sk-second")
    error_of(s.post("/v1/chat/completions", BODY), 401, "missing_api_key", kind="authentication_error")
    for header in (
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer sk-first-ke"},
        {"Authorization": "Bearer sk-first-keyy"},
        {"Authorization": "Basic sk-first-key"},
        {"Authorization": "Bearer "},
        {"x-api-key": "nope"},
    ):
        r = s.post("/v1/chat/completions", BODY, header)
        error_of(r, 401)
        equal(r.headers["www-authenticate"], "Bearer")
        check(b"sk-" not in r.body, "a key shows in", r.body)
    for header in (
        {"Authorization": "Bearer sk-first-key"},
        {"Authorization": "bearer  sk-second"},
        {"x-api-key": "sk-second"},
    ):
        equal(s.post("/v1/chat/completions", BODY, header).status, 200, header)
    for path in ("/livez", "/health", "/readyz", "/metrics", "/"):
        equal(s.get(path).status, 200, path)
    for path in ("/v1/models", "/models", "/models/sse", "/nothing"):
        equal(s.get(path).status, 401, path)
    equal(s.request("OPTIONS", "/v1/models").status, 204)
    # with a key, other names of this machine and other origins are fine
    equal(s.get("/v1/models", Host="box.example", Authorization="Bearer sk-second").status, 200)
    equal(
        s.post(
            "/v1/chat/completions",
            BODY,
            {"Authorization": "Bearer sk-second", "Origin": "https://example.com"},
        ).status,
        200,
    )


@test
def keys_are_checked_before_the_body():
    s = fake("--key", "sk-first-key", "--key", "sk-second")
    error_of(s.post("/v1/chat/completions", b"{rubbish" * 200000), 401)


@test
def request_ids():
    s = fake()
    equal(s.get("/livez", X_Request_Id="abc-1.2:3_x").headers["x-request-id"], "abc-1.2:3_x")
    for bad in ("a b", "x" * 300, "<script>", ""):
        made = s.get("/livez", X_Request_Id=bad).headers["x-request-id"]
        check(made.startswith("req-"), bad, made)
    first, second = (s.get("/livez").headers["x-request-id"] for _ in range(2))
    check(first != second, "the same id twice")


@test
def page_and_assets():
    s = fake("--key", "sk-first-key", "--key", "sk-second")
    equal(s.get("/").body, b"Ollama is running")
    r = s.get("/", Accept="text/html,application/xhtml+xml")
    equal(r.status, 200)
    check(b"<!doctype html" in r.body[:200].lower(), r.body[:100])
    check("default-src 'none'" in r.headers["content-security-policy"], r.headers)
    equal(r.headers["x-content-type-options"], "nosniff")
    equal(r.headers["referrer-policy"], "no-referrer")
    etag = r.headers["etag"]
    again = s.get("/", Accept="text/html", If_None_Match=etag)
    equal((again.status, again.body), (304, b""))
    zipped = s.get("/", Accept="text/html", Accept_Encoding="gzip, br")
    equal(zipped.headers.get("content-encoding"), "gzip")
    import gzip

    equal(gzip.decompress(zipped.body), r.body, "inflated page")
    plain = s.get("/", Accept="text/html", Accept_Encoding="gzip;q=0")
    check("content-encoding" not in plain.headers, plain.headers)
    head = s.request("HEAD", "/", None, {"Accept": "text/html"})
    equal((head.status, head.body), (200, b""))
    for path in (
        "/assets/../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/assets/",
        "/assets/none",
    ):
        equal(json.loads(s.get(path).body)["error"]["type"], "not_found_error", path)
