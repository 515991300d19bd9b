"""An OpenAI-compatible server that answers, or fails in the way the last message asks for:
"mode:401", 400, 429, 500, rubbish, hidden (an error with 200), cut (a stream without its end), slow (two
seconds before anything), hang (nothing at all), drip (a word every 0.2 s). It keeps what it was sent."""

import http.server
import json
import threading
import time

WORDS = ["Up", " stream", " says", " h\u00e9llo"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body, kind="application/json", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.server.seen.append({"path": self.path, "headers": dict(self.headers), "body": body})
        last = body.get("messages", [{}])[-1].get("content") or ""
        mode = last.partition("mode:")[2].split()[0] if isinstance(last, str) and "mode:" in last else "ok"
        try:
            self.answer(mode, body)
        except (BrokenPipeError, ConnectionResetError):
            self.server.left.append(mode)
            self.close_connection = True

    def answer(self, mode, body):
        if mode.isdigit():
            error = {
                "message": f"fake {mode} sk-upstream-secret",
                "type": "x",
                "code": "fake_code",
                "param": "p",
            }
            more = {"Retry_After": "3"} if mode == "429" else {}
            self.reply(int(mode), {"error": error}, **more)
        elif mode == "rubbish":
            self.reply(200, b"<html>not JSON</html>", "text/html")
        elif mode == "hidden":
            self.reply(200, {"error": {"message": "no such model here"}})
        else:
            if mode in ("slow", "hang"):
                self.server.stop.wait(2 if mode == "slow" else 60)
            if body.get("stream"):
                self.stream(mode, body)
            else:
                self.reply(200, self.whole(body))

    def whole(self, body):
        message = {"role": "assistant", "content": "".join(WORDS)}
        return {
            "id": "chatcmpl-up",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        }

    def line(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def stream(self, mode, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        base = {
            "id": "chatcmpl-up",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": body["model"],
        }
        for i, word in enumerate(WORDS * (50 if mode == "drip" else 1)):
            delta = {"content": word} | ({"role": "assistant"} if i == 0 else {})
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            self.line("data: " + json.dumps(base | {"choices": [choice]}) + "\n\n")
            if mode == "cut" and i == 1:
                self.close_connection = True
                return
            if mode == "drip":
                time.sleep(0.2)
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        self.line("data: " + json.dumps(base | {"choices": [end]}) + "\n\n")
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
            self.line("data: " + json.dumps(base | {"choices": [], "usage": usage}) + "\n\n")
        self.line("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")


class Upstream(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.left = [], []
        self.stop = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def close(self):
        self.stop.set()
        self.shutdown()
        self.server_close()
