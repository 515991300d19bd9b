"""What the HTTP tests share: starting servers, speaking HTTP by hand, counting."""

import collections
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

TESTS = []
ARGS = None
_servers = {}

Response = collections.namedtuple("Response", "status headers body")


class Skip(Exception):
    """This cannot be tested here; counted as skipped."""


def test(fn):
    TESTS.append(fn)
    return fn


def check(ok, *what):
    if not ok:
        raise AssertionError(" ".join(str(w) for w in what))


def equal(got, want, what=""):
    check(got == want, f"{what}: got {got!r}, wanted {want!r}")


class Server:
    """A program whose first line of standard output says "port N", or "... http://HOST:N/"."""

    def __init__(self, *argv, **popen):
        self.argv = argv
        self.lines = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", **popen
        )
        self.errors = []
        threading.Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True).start()
        threading.Thread(target=self._read, args=(self.process.stderr, self.errors), daemon=True).start()
        line = self.wait_line(lambda text: re.search(r"^port \d|listens on", text), 20)
        check(line, "server did not start:", argv, self.errors[-5:])
        self.port = int(re.search(r"(\d+)/?$", line)[1])

    def _read(self, pipe, lines):
        for line in pipe:
            with self.changed:
                lines.append(line.rstrip("\n"))
                self.changed.notify_all()

    def wait_line(self, wanted, seconds, source=None):
        """The first line (also an earlier one) that `wanted` accepts, or None."""
        source = self.lines if source is None else source
        end = time.monotonic() + seconds
        with self.changed:
            while True:
                found = next((line for line in source if wanted(line)), None)
                left = end - time.monotonic()
                if found is not None or left <= 0:
                    return found
                self.changed.wait(left)

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def raw(self, data, read=True):
        """Sends bytes as they are; returns everything until the server closes or is silent for 2 s."""
        with self.connect() as s:
            try:
                s.sendall(data)
            except OSError:
                pass
            return read_all(s, 2.0) if read else b""

    def request(self, method, path, body=None, headers=None):
        """One exchange on a connection of its own, parsed by hand."""
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body or b""
        head = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        if body is not None:
            head |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        head |= headers or {}
        text = f"{method} {path} HTTP/1.1\r\n" + "".join(
            f"{k}: {v}\r\n" for k, v in head.items() if v is not None
        )
        with self.connect() as s:
            try:
                s.sendall(text.encode("latin-1") + b"\r\n" + data)
            except OSError:
                pass  # an early answer may come with a reset
            return parse(read_all(s, 20.0), method)

    def get(self, path, **headers):
        return self.request("GET", path, None, {k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path, body, headers=None):
        return self.request("POST", path, body, headers)

    def chat(self, headers=None, **fields):
        body = {"messages": [{"role": "user", "content": "hi"}]} | fields
        return self.post("/v1/chat/completions", body, headers)

    def stop(self, how=signal.SIGTERM, seconds=20):
        """Ends it; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.argv[0]} did not end in {seconds} s") from None


def read_all(s, quiet):
    """Until the other side closes, or says nothing for `quiet` seconds."""
    out = bytearray()
    s.settimeout(quiet)
    try:
        while True:
            got = s.recv(1 << 20)
            if not got:
                break
            out += got
    except OSError:
        pass
    return bytes(out)


def dechunk(data):
    """(body, whether the last chunk came)"""
    out = bytearray()
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return bytes(out), False
        n = int(data[at:end].split(b";")[0], 16)
        if n == 0:
            return bytes(out), True
        out += data[end + 2 : end + 2 + n]
        at = end + 2 + n + 2
        if at > len(data):
            return bytes(out), False


def parse(data, method="GET"):
    while True:
        head, sep, body = data.partition(b"\r\n\r\n")
        check(sep, "no complete answer:", data[:200])
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        if status != 100:
            break
        data = body
    headers = {}
    for line in lines[1:]:
        key, _, value = line.partition(":")
        headers[key.strip().lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body, whole = dechunk(body)
        headers["x-test-whole"] = "yes" if whole else "no"
    return Response(status, headers, body)


def error_of(r, status, code=None, param="?", kind=None):
    """Checks the one shape of errors and returns the error object."""
    equal(r.status, status, f"status of {r.body[:300]!r}")
    check(r.headers.get("content-type", "").startswith("application/json"), r.headers)
    e = json.loads(r.body)["error"]
    for key in ("message", "type", "code", "param"):
        check(key in e, "no", key, "in", e)
    check(e["message"], "empty message")
    if code:
        equal(e["code"], code, "code")
    if param != "?":
        equal(e["param"], param, f"param of {e['message']!r}")
    if kind:
        equal(e["type"], kind, "type")
    if status in (429, 503):
        check(int(r.headers["retry-after"]) >= 1, "Retry-After")
    return e


def events(body):
    """The payloads of an event stream: JSON objects, the text "[DONE]", and comments as ":text"."""
    out = []
    for block in body.decode().split("\n\n"):
        for line in block.split("\n"):
            if line.startswith("data: "):
                out.append(line[6:] if line[6:] == "[DONE]" else json.loads(line[6:]))
            elif line.startswith(":"):
                out.append(line)
            elif line:
                raise AssertionError(f"no event line: {line!r}")
    return out


def data_events(body):
    return [e for e in events(body) if not (isinstance(e, str) and e.startswith(":"))]


def text_of(chunks, index=0):
    """The text of one choice of a stream."""
    out = ""
    for c in chunks:
        for choice in c.get("choices", []) if isinstance(c, dict) else []:
            if choice["index"] == index:
                out += choice.get("delta", choice).get("content" if "delta" in choice else "text") or ""
    return out


def fake(*options):
    """The server over fake parts with these options; shared by all tests that ask for the same."""
    if options not in _servers or _servers[options].process.poll() is not None:
        _servers[options] = Server(ARGS.fake, *options)
    return _servers[options]


def own_fake(*options):
    """One that no other test sees; the caller stops it."""
    return Server(ARGS.fake, *options)


def readable(s, seconds):
    return bool(select.select([s], [], [], seconds)[0])


def run_all(args):
    global ARGS
    ARGS = args
    passed = failed = skipped = 0
    for fn in TESTS:
        name = f"{fn.__module__}.{fn.__name__}"
        if args.only not in name:
            continue
        began = time.monotonic()
        try:
            fn()
            passed += 1
            verdict = "ok  "
        except Skip as e:
            skipped += 1
            verdict = f"skip ({e})"
        except Exception:  # noqa: BLE001 any failure of a test is a failed test
            failed += 1
            verdict = "FAIL"
            traceback.print_exc(file=sys.stdout)
        took = time.monotonic() - began
        print(f"{verdict} {name}" + (f" {took:.1f} s" if took > 1 else ""), flush=True)
    for options, server in _servers.items():
        try:
            equal(server.stop(), 0, f"exit status of fake_server {options}")
            check(server.wait_line(lambda t: t == "closed", 2), "not closed cleanly")
            passed += 1
        except AssertionError as e:
            failed += 1
            print(f"FAIL end of fake_server {options}: {e}\n" + "\n".join(server.errors[-30:]))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0
