#!/usr/bin/env python3
"""A server that speaks what the page uses (../shared/interfaces.md in short: models with states,
chats that stream), with answers made up from the question, so that every case can be had at will.

  mock.py [--port N] [--key SECRET] [--fast]     prints "listening on PORT"

What the last message says decides the answer: see ANSWERS and `chat`. /mock/requests returns the
bodies of all chats so far, /mock/fail?sse=1 takes /models/sse away, /mock/go ends every wait of a
"prefill" and of a load asked for with "hold".
"""

import argparse
import gzip
import http.server
import json
import pathlib
import sys
import threading
import time
import urllib.parse

WEB = pathlib.Path(__file__).resolve().parents[2] / "web"
sys.path.insert(0, str(WEB))
import bundle  # noqa: E402

CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
       "connect-src 'self'; font-src 'self'; form-action 'none'; base-uri 'none'; "
       "frame-ancestors 'none'")

MARKDOWN = """\
Merge sort splits a list in two, sorts each half, and **merges** the halves:

```python
def merge_sort(items: list[int]) -> list[int]:
    if len(items) < 2:          # nothing to sort
        return items
    middle = len(items) // 2
    left, right = merge_sort(items[:middle]), merge_sort(items[middle:])
    merged = []
    while left and right:
        merged.append((left if left[0] <= right[0] else right).pop(0))
    return merged + left + right
```

It is *stable*, and what it costs does not depend on the order of its input:

| | time | extra space |
| :-- | :-- | --: |
| best | n log n | n |
| worst | n log n | n |

- [x] stable
- [ ] in place

See [the article](https://example.org/merge-sort) for more.
"""

XSS = """\
<script>window.pwned = 1</script> <img src=x onerror="window.pwned=2">

[link](javascript:window.pwned=3) [data](data:text/html,<script>window.pwned=4</script>)
![image](https://evil.example/pixel.png)
<svg onload=window.pwned=5><a xlink:href="javascript:window.pwned=6">

<iframe src="https://evil.example/"></iframe> <b onclick="window.pwned=7">bold</b>
<style>body{display:none}</style>

<form action="https://evil.example/"><input name=x></form>
<a href="https://ok.example/" style="position:fixed" id="app">fine</a>

```html"><img src=x onerror=window.pwned=8>
</code></pre><img src=x onerror="window.pwned=9">
```

[x](https://ok.example/"onmouseover="window.pwned=10)
<math><mtext><table><mglyph><style><img src=x onerror=window.pwned=11>

| <img src=x onerror=window.pwned=12> | b |
| - | - |
| <u>u</u> | H<sub>2</sub>O |

$x=<img src=x onerror=window.pwned=13>$

end of attack
"""

VERSES = r"""Roses are red,
violets are blue.

Inside \(a_1 * b_1 * c\) and $x^*y^*z$ a formula stays; $5 or $10 is money, \[1\] a mark.
\[
x = \frac{a}{b} \,
- y
\]
> A quote after it
"""

RIGHT_TO_LEFT = """שלום עולם, English באמצע.

- ראשון
- שני

An English line.
"""

ANSWERS = {
    "markdown": MARKDOWN,
    "sort": MARKDOWN,
    "xss": XSS,
    "verses": VERSES,
    "hebrew": RIGHT_TO_LEFT,
    "hello": "Hello! I am a small model on your own machine. What would you like to talk about?",
}


class State:
    """All models and who is told of their changes."""

    def __init__(self, fast):
        self.lock = threading.Condition()
        self.speed = 0.05 if fast else 1
        self.version = 0
        self.requests = []
        self.sse = True
        self.loading_left = 2
        self.go = threading.Event()  # what passes too soon to be seen for certain waits for /mock/go
        self.models = {}
        self.changed = {}
        self.add("smollm2-135m-instruct", "loaded", n_ctx=8192, resident_bytes=132_000_000,
                 description="SmolLM2 135M Instruct, Q4_1: the small default")
        self.add("platypus-7b", "loading", stage="warm", progress=0.62, eta_seconds=9, n_ctx=4096,
                 bytes_done=2_700_000_000, bytes_total=4_100_000_000, can=["cancel"],
                 description="Loads while the page is open")
        self.add("slow-llama", "unloaded", n_ctx=2048, can=["load"],
                 description="Loads when it is asked for, in three seconds")
        self.add("broken-model", "failed", can=["retry"], description="A file that was cut off",
                 error={"code": "corrupt_file", "message": "model.gguf: tensor blk.3.ffn_up.weight "
                        "ends at byte 812345, the file has 700000", "hint": "Download it again."})
        self.add("openhermes-2.5-mistral-7b-gptq", "failed", can=[],
                 description="OpenHermes 2.5 on Mistral 7B, GPTQ 4 bit",
                 error={"code": "not_downloaded", "message": "not downloaded: no file of it was found",
                        "hint": "ashley pull openhermes-2.5-mistral-7b-gptq"})

    def add(self, name, state, **more):
        self.models[name] = {
            "model": name, "state": state, "stage": None, "stages": ["map", "pack", "warm"],
            "progress": 1 if state == "loaded" else 0, "bytes_done": 0, "bytes_total": None,
            "bytes_per_second": 0, "stalled_since": None, "eta_seconds": None, "eta_basis": None,
            "queue_position": 0, "started_at": None, "error": None,
            "can": ["unload"] if state == "loaded" else [], **more}
        self.changed[name] = 0

    def put(self, name, **more):
        with self.lock:
            self.models[name].update(more)
            self.version += 1
            self.changed[name] = self.version
            self.lock.notify_all()

    def load(self, name, hold=False):
        def run():
            steps = 24
            for i in range(steps):
                if self.models[name]["state"] != "loading":
                    return
                self.put(name, progress=i / steps, stage="map" if i < 8 else "warm",
                         eta_seconds=(steps - i) * 0.125 * self.speed, bytes_per_second=9e8)
                if hold and i == steps // 2:
                    self.go.wait(60)
                time.sleep(0.125 * self.speed)
            self.put(name, state="loaded", progress=1, stage=None, eta_seconds=None, can=["unload"])
        if self.models[name]["state"] in ("loading", "loaded"):
            return
        self.put(name, state="loading", progress=0, stage="map", error=None, can=["cancel"])
        threading.Thread(target=run, daemon=True).start()

    def entry(self, name):
        p = self.models[name]
        meta = {k: p.get(k) for k in ("n_ctx", "resident_bytes", "description")}
        return {"id": name, "object": "model", "created": 0, "owned_by": "ashley",
                "loaded": p["state"] == "loaded", "meta": meta,
                "status": {"value": p["state"], **p}}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # A page that is closed breaks its connections: that is no news. Everything else is.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


PERSONAS = [
    {"id": "ashley", "object": "model", "owned_by": "persona", "loaded": False,
     "status": {"value": "loaded"}, "description": "Friendly and to the point",
     "meta": {"name": "Ashley", "model": "openai", "greetings": [], "first_message": None}},
    {"id": "ink", "object": "model", "owned_by": "persona", "loaded": True,
     "status": {"value": "loaded"}, "description": "An old printer who answers in few words",
     "meta": {"name": "Ink", "model": "smollm2-135m-instruct",
              "first_message": "*wipes his hands* What shall we **print**?", "greetings": []}},
]
UPSTREAM = {"id": "openai", "object": "model", "owned_by": "openai", "loaded": True,
            "status": {"value": "loaded"}, "meta": {"model": "gpt-4o-mini"}}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = None
    key = None
    assets = {}

    def log_message(self, *args):
        pass

    def reply(self, status, body, kind="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status, code, message, headers=(), **more):
        self.reply(status, {"error": {"message": message, "type": "error", "code": code,
                                      "param": None, **more}}, headers=headers)

    def stream(self, headers=()):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def event(self, data):
        text = data if isinstance(data, str) else json.dumps(data)
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def refused(self):
        if not self.key or self.headers.get("Authorization") == f"Bearer {self.key}":
            return False
        self.error(401, "invalid_api_key", "a valid API key is required")
        return True

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path in self.assets:
            kind, data, etag = self.assets[url.path]
            return self.reply(200, data, kind, [
                ("Content-Encoding", "gzip"), ("Content-Security-Policy", CSP), ("ETag", etag),
                ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-cache")])
        if url.path == "/livez":
            return self.reply(200, {"status": "ok"})
        if url.path == "/mock/requests":
            return self.reply(200, self.state.requests)
        if url.path == "/mock/go":
            self.state.go.set()
            return self.reply(200, {})
        if url.path == "/mock/fail":
            self.state.sse = False
            return self.reply(200, {})
        if self.refused():
            return None
        if url.path in ("/v1/models", "/models"):
            data = [self.state.entry(n) for n in self.state.models]
            return self.reply(200, {"object": "list", "data": data + PERSONAS + [UPSTREAM]})
        if url.path == "/models/sse" and self.state.sse:
            return self.watch()
        return self.error(404, "not_found", f"no such path: {url.path}")

    def watch(self):
        self.stream()
        seen = 0
        try:
            for p in self.state.models.values():
                self.event(p)
            while True:
                with self.state.lock:
                    self.state.lock.wait(2)
                    news = [p for n, p in self.state.models.items() if self.state.changed[n] > seen]
                    seen = self.state.version
                    lines = [json.dumps(p) for p in news]
                for line in lines:
                    self.event(line)
                self.wfile.write(b": ping\n\n")
                self.wfile.flush()
        except OSError:
            pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.refused():
            return
        action = self.path.rsplit("/", 1)[1]
        if self.path == "/v1/chat/completions":
            self.state.requests.append(body)
            self.chat(body)
        elif action in ("load", "unload", "cancel", "retry"):
            name = body.get("model")
            if name not in self.state.models:
                return self.error(404, "model_not_found", f"no model {name!r}")
            if action in ("load", "retry"):
                self.state.load(name)
            else:
                self.state.put(name, state="unloaded", progress=0, can=["load"])
            self.reply(200, {"success": True})
        else:
            self.error(404, "not_found", "no such path")

    def chat(self, body):
        last = body["messages"][-1]["content"]
        model = body.get("model") or "ashley"
        state = self.state
        if "context" in last and body.get("truncate") != "oldest":
            return self.error(400, "context_length_exceeded", "the prompt has 9000 tokens, the context "
                              "8192", n_prompt=9000, n_ctx=8192)
        if "overloaded" in last:
            return self.error(429, "rate_limit_exceeded", "too many requests", [("Retry-After", "7")])
        if "upstream down" in last:
            return self.error(502, "upstream_error", "openai did not answer: connection refused")
        if "not ready" in last and state.loading_left > 0:
            state.loading_left -= 1
            return self.error(503, "model_loading", "platypus-7b is still loading",
                              [("Retry-After", "3")], loading=state.models["platypus-7b"])
        far = model in ("ashley", "openai") and "local" not in last
        if model in state.models and state.models[model]["state"] == "unloaded":
            state.load(model, hold="hold" in last)
        served = PERSONAS[1]["meta"]["model"] if model == "ink" else model
        # A stream that began before it was known who answers says it in a chunk.
        self.stream([] if "fallback" in last else
                    [("X-Ashley-Model", "gpt-4o-mini" if far else served),
                     ("X-Ashley-Served-By", "openai" if far else "local")]
                    + ([("X-Ashley-Reason", "default")] if far else []))
        try:
            while model in state.models and state.models[model]["state"] == "loading":
                self.wfile.write(b": ping\n\n")
                self.wfile.flush()
                time.sleep(0.1)
            self.answer(body, last, model)
        except OSError:
            state.requests.append({"left": last})

    def chunk(self, delta, model, finish=None, **more):
        self.event({"id": "c1", "object": "chat.completion.chunk", "created": 0, "model": model,
                    "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})

    def answer(self, body, last, model):
        text = next((a for k, a in ANSWERS.items() if k in last.lower()), None)
        if "count to" in last:
            text = " ".join(str(i + 1) for i in range(int(last.split("count to")[1].split()[0])))
        if text is None:
            text = f"You said: {last}"
        pause = 0.02 * self.state.speed if "count" not in last else 0.02
        self.chunk({"role": "assistant", "content": ""}, model)
        if "fallback" in last:
            self.chunk({}, "gpt-4o-mini", served_by="openai", reason="loading")
        if "prefill" in last:
            for done in (0, 40, 80):
                self.chunk({}, model, prompt_progress={"total": 100, "cache": 0, "processed": done,
                                                       "time_ms": done})
            self.state.go.wait(60)
        if "think" in last:
            for word in "First I weigh the question, then I answer it.".split():
                self.chunk({"reasoning_content": word + " "}, model)
                time.sleep(pause)
        tokens = 0
        for i, piece in enumerate(text.replace(" ", "\0 ").split("\0")):
            self.chunk({"content": piece}, model)
            tokens += 1
            time.sleep(pause)
            if "midstream" in last and i == 1:
                return self.event({"error": {"message": "no token for 30 s", "code": "idle_timeout",
                                             "type": "unavailable_error"}})
            if "cut off" in last and i == 1:
                return None
        more = {"truncated": {"messages": 2, "tokens": 900}} if body.get("truncate") else {}
        self.chunk({}, model, "length" if "length" in last else "stop", **more)
        self.event({"id": "c1", "choices": [], "usage": {"prompt_tokens": 12,
                    "completion_tokens": tokens, "total_tokens": 12 + tokens}})
        return self.event("[DONE]")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--port", type=int, default=0)
    ap.add_argument("--key")
    ap.add_argument("--fast", action="store_true")
    args = ap.parse_args()
    assets, _ = bundle.collect(WEB / "node_modules")
    Handler.assets = {p: (k, gzip.compress(d), f'"{hash(d)}"') for p, (k, d) in assets.items()}
    Handler.state = State(args.fast)
    Handler.key = args.key
    server = Server(("127.0.0.1", args.port), Handler)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
