#!/usr/bin/env python3
"""A Hugging Face hub on this machine, for tests: tests/hub/server.py [--file REPO/PATH=SIZE]... [--token T]

Speaks what the hub speaks to its clients, and what is behind it ("CDN", an origin of its own: another port):

    GET  /api/models/{id}[/revision/{rev}]     the commit of a revision
    GET  /api/models/{id}/tree/{rev}[/{path}]?recursive&expand   pages, with Link rel="next"
    POST /api/models/{id}/paths-info/{rev}     the same of named files
    GET  /api/whoami-v2
    HEAD, GET /{id}/resolve/{rev}/{path}       headers; small files by a relative redirect to
                                               /api/resolve-cache, large ones by a signed address of the CDN

Small files are git's (ETag: SHA-1 of the blob), large ones LFS or Xet (X-Linked-Etag: SHA-256; Xet has
X-Xet-Hash, and is served by its HTTP bridge). Repositories may be private, gated, disabled or renamed. Every
request is in Hub.log with its Authorization. What goes wrong on demand: faults.py. The format's source:
huggingface_hub, and the hub's own answers as its clients describe them.

Only Python's standard library. A thread per connection; Hub.lock guards what tests change meanwhile.
"""

import argparse
import collections
import copy
import dataclasses
import hashlib
import hmac
import json
import os
import random
import re
import socket
import socketserver
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from content import Bytes, Made, git_blob, lfs_pointer  # noqa: E402
from faults import Fault, Faults  # noqa: E402

Request = collections.namedtuple("Request", "side method path query authorization range status time")


class File:
    """kind: "git", "lfs" or "xet"."""

    def __init__(self, path, content, kind=None):
        self.path = path
        self.content = content if hasattr(content, "pieces") else Bytes(content)
        self.kind = kind or ("git" if isinstance(self.content, Bytes) else "lfs")
        self.size = self.content.size
        self.oid = git_blob(self.content if self.kind == "git" else lfs_pointer(self.content))
        self.sha256 = None if self.kind == "git" else self.content.sha256
        # Of the chunks' hashes, not of the bytes: no client may take it for the content's SHA-256.
        self.xet = hashlib.sha256(b"xet" + self.content.sha256.encode()).hexdigest()
        self.etag = self.oid if self.kind == "git" else self.sha256

    def at(self, path):
        """The same content under another name."""
        f = copy.copy(self)
        f.path = path
        return f

    def entry(self, expand):
        out = {"type": "file", "oid": self.oid, "size": self.size, "path": self.path}
        if self.kind != "git":
            pointer = lfs_pointer(self.content).size
            out["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": pointer}
        if self.kind == "xet":
            out["xetHash"] = self.xet
        if expand:
            out["lastCommit"] = {"id": "0" * 40, "title": "Upload", "date": "2026-01-01T00:00:00.000Z"}
        return out


class Repo:
    """revisions: names to commits; commits: to {path: File}. raw: entries that listings show besides."""

    def __init__(self, name):
        self.name = name
        self.revisions = {}
        self.commits = {}
        self.private = self.disabled = False
        self.gated = False  # or "auto", "manual"
        self.granted = set()  # tokens that a private or gated repository lets in
        self.raw = []

    def commit(self, files, revision="main"):
        """files: {path: bytes or Made or File}; becomes what `revision` is. Returns the commit."""
        tree = {p: f.at(p) if isinstance(f, File) else File(p, f) for p, f in files.items()}
        text = (
            revision + str(len(self.commits)) + "".join(f"{p} {f.oid}\n" for p, f in sorted(tree.items()))
        )
        sha = hashlib.sha1(self.name.encode() + text.encode()).hexdigest()
        self.commits[sha] = tree
        self.revisions[revision] = sha
        return sha

    def find(self, revision):
        sha = self.revisions.get(revision, revision)
        return sha if sha in self.commits else None


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict
    content: object = None  # of content.py
    size: int = None  # of a body that HEAD announces and has not


def error(status, code, message, **headers):
    h = {"X-Error-Message": message, "Content-Type": "application/json; charset=utf-8"}
    if code:
        h["X-Error-Code"] = code
    if status == 401:
        h["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
    return Answer(status, h | headers, Bytes(json.dumps({"error": message})))


def as_json(value, **headers):
    return Answer(
        200, {"Content-Type": "application/json; charset=utf-8"} | headers, Bytes(json.dumps(value))
    )


class Hub:
    """The repositories, the rules and the two listeners. `with Hub() as hub:`; hub.url is the endpoint."""

    def __init__(self, page=1000, expires=3600, host="127.0.0.1", cdn_host="127.0.0.1", port=0, seed=1):
        self.lock = threading.RLock()
        self.page = page  # entries of a listing's page
        self.expires = expires  # seconds that a signed address is good for
        self.repos, self.renamed = {}, {}
        self.tokens = set()
        self.faults = Faults()
        self.log = []
        self.random = random.Random(seed)
        self.key = self.random.randbytes(16)
        self.sent = {"hub": 0, "cdn": 0}  # bytes of bodies
        self.small_buffers = False  # of sockets, for tests that count what was received
        self.closing = threading.Event()
        self.hub = Listener((host, port), self, "hub")
        self.cdn = Listener((cdn_host, 0), self, "cdn")
        self.url = f"http://{host}:{self.hub.server_address[1]}"
        self.cdn_url = f"http://{cdn_host}:{self.cdn.server_address[1]}"
        self.blobs = {}  # sha256 -> File: what the CDN holds

    def __enter__(self):
        for listener in (self.hub, self.cdn):
            threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        for listener in (self.hub, self.cdn):
            listener.shutdown()
            listener.server_close()

    def repo(self, name):
        with self.lock:
            return self.repos.setdefault(name, Repo(name))

    def requests(self, side=None, method=None, path=""):
        with self.lock:
            return [
                r
                for r in self.log
                if side in (None, r.side) and method in (None, r.method) and re.search(path, r.path)
            ]

    def forget(self):
        """Faults, log and counts; the repositories stay."""
        with self.lock:
            self.faults.clear()
            self.log.clear()
            self.sent = {"hub": 0, "cdn": 0}

    # ---- who may ----

    def access(self, name, authorization, reads_files):
        """(repository, None), or (None, the refusal) as the hub words it."""
        token = (authorization or "").removeprefix("Bearer ")
        if authorization and token not in self.tokens:
            return None, error(401, None, "Invalid credentials in Authorization header")
        repo = self.repos.get(name)
        if repo is None or (repo.private and token not in repo.granted):
            if not authorization:
                return None, error(401, None, "Invalid username or password.")
            return None, error(404, "RepoNotFound", "Repository not found")
        if repo.disabled:
            return None, error(403, None, "Access to this resource is disabled.")
        if repo.gated and reads_files and token not in repo.granted:
            if not authorization:
                return None, error(
                    401,
                    "GatedRepo",
                    f"Access to model {name} is restricted. You must have access to it and be authenticated"
                    " to access it. Please log in.",
                )
            return None, error(
                403,
                "GatedRepo",
                f"Access to model {name} is restricted and you are not in the authorized list. Visit"
                f" {self.url}/{name} to ask for access.",
            )
        return repo, None

    # ---- the hub's own answers ----

    def answer(self, method, path, query, authorization, body):
        m = re.fullmatch(r"/api/models/((?:[^/]+/)?[^/]+?)(?:/(revision|tree|paths-info)/(.+))?", path)
        if path == "/api/whoami-v2":
            if (authorization or "").removeprefix("Bearer ") in self.tokens:
                return as_json({"type": "user", "name": "tester", "auth": {"type": "access_token"}})
            return error(401, None, "Invalid username or password.")
        if path.startswith("/api/resolve-cache/models/"):
            m = re.fullmatch(r"/api/resolve-cache/models/((?:[^/]+/)?[^/]+)/([0-9a-f]{40})/(.+)", path)
            return (
                self.resolve(m[1], m[2], m[3], authorization, True) if m else error(404, None, "Not found")
            )
        if m:
            if m[1] in self.renamed:
                return self.moved(path, query, f"/api/models/{m[1]}", f"/api/models/{self.renamed[m[1]]}")
            return self.about(m[1], m[2] or "revision", m[3] or "main", query, authorization, body)
        m = re.fullmatch(r"/((?:[^/]+/)?[^/]+)/resolve/(.+)", path)
        if m:
            if m[1] in self.renamed:
                return self.moved(path, query, "/" + m[1], "/" + self.renamed[m[1]])
            revision, _, rest = m[2].partition("/")
            repo = self.repos.get(m[1])
            if repo:  # a revision's name may have slashes, where a client did not escape them
                known = [r for r in repo.revisions if m[2].startswith(r + "/")]
                if known:
                    revision = max(known, key=len)
                    rest = m[2][len(revision) + 1 :]
            return self.resolve(m[1], revision, rest, authorization, False)
        return error(404, None, "Not found")

    def moved(self, path, query, old, new):
        """Relative, which is how clients tell a new name from another host."""
        to = urllib.parse.quote(new + path[len(old) :]) + ("?" + query if query else "")
        return Answer(307, {"Location": to}, Bytes(f"Temporary Redirect. Redirecting to {to}"))

    def about(self, name, what, rest, query, authorization, body):
        repo, refused = self.access(name, authorization, False)
        if refused:
            return refused
        folder = ""
        sha = repo.find(rest)
        if what == "tree" and not sha:
            known = [r for r in [*repo.revisions, *repo.commits] if rest.startswith(r + "/")]
            if known:
                revision = max(known, key=len)
                sha, folder = repo.find(revision), rest[len(revision) + 1 :]
        if not sha:
            return error(404, "RevisionNotFound", f"Invalid rev id: {rest}")
        if what == "revision":
            return as_json(self.info(repo, sha))
        if what == "paths-info":
            return self.paths_info(repo, sha, body)
        return self.tree(repo, sha, folder, urllib.parse.parse_qs(query))

    def info(self, repo, sha):
        return {
            "_id": sha[:24],
            "id": repo.name,
            "modelId": repo.name,
            "author": repo.name.partition("/")[0],
            "sha": sha,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "private": repo.private,
            "gated": repo.gated,
            "disabled": repo.disabled,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": p} for p in sorted(repo.commits[sha])],
        }

    def folders(self, files):
        out = set()
        for path in files:
            parts = path.split("/")[:-1]
            out |= {"/".join(parts[: n + 1]) for n in range(len(parts))}
        return out

    def tree(self, repo, sha, folder, query):
        def flag(key):
            return query.get(key, ["false"])[0].lower() in ("true", "1")

        files = repo.commits[sha]
        expand = flag("expand")
        inside = folder + "/" if folder else ""
        rows = {p: f.entry(expand) for p, f in files.items()}
        rows |= {
            p: {"type": "directory", "oid": hashlib.sha1(p.encode()).hexdigest(), "size": 0, "path": p}
            for p in self.folders(files)
        }
        names = sorted(p for p in rows if p.startswith(inside))
        if not flag("recursive"):
            names = [p for p in names if "/" not in p[len(inside) :]]
        if folder and not names:
            return error(404, "EntryNotFound", f"{folder} does not exist on {sha}")
        rows = [rows[p] for p in names] + repo.raw
        first = int(query.get("cursor", ["0"])[0])
        most = min(self.page, int(query.get("limit", [self.page])[0]))
        headers = {"X-Repo-Commit": sha}
        if first + most < len(rows):
            again = {k: v[0] for k, v in query.items()} | {"cursor": first + most}
            path = urllib.parse.quote(
                f"/api/models/{repo.name}/tree/{sha}" + (f"/{folder}" if folder else "")
            )
            headers["Link"] = f'<{self.url}{path}?{urllib.parse.urlencode(again)}>; rel="next"'
        return as_json(rows[first : first + most], **headers)

    def paths_info(self, repo, sha, body):
        try:
            asked = json.loads(body)
        except ValueError:
            form = urllib.parse.parse_qs(body.decode("utf-8", "replace"))
            asked = {
                "paths": form.get("paths", []),
                "expand": form.get("expand", ["false"])[0].lower() == "true",
            }
        files = repo.commits[sha]
        folders = self.folders(files)
        out = []
        for path in asked["paths"] if isinstance(asked["paths"], list) else [asked["paths"]]:
            if path in files:
                out.append(files[path].entry(bool(asked.get("expand"))))
            elif path in folders:
                out.append(
                    {
                        "type": "directory",
                        "oid": hashlib.sha1(path.encode()).hexdigest(),
                        "size": 0,
                        "path": path,
                    }
                )
        return as_json(out)

    def resolve(self, name, revision, path, authorization, near):
        repo, refused = self.access(name, authorization, True)
        if refused:
            return refused
        sha = repo.find(revision)
        if not sha:
            return error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        f = repo.commits[sha].get(path)
        if not f:
            return error(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": sha})
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes", "ETag": f'"{f.etag}"'}
        if near:
            return Answer(200, headers | {"Content-Type": "text/plain; charset=utf-8"}, f.content)
        headers |= {"X-Linked-Size": str(f.size), "X-Linked-Etag": f'"{f.etag}"'}
        if f.kind == "git":
            del headers["ETag"]
            to = (
                urllib.parse.quote(f"/api/resolve-cache/models/{name}/{sha}/{path}")
                + f"?etag=%22{f.etag}%22"
            )
            return Answer(307, headers | {"Location": to}, Bytes("Temporary Redirect"))
        if f.kind == "xet":
            headers["X-Xet-Hash"] = f.xet
            headers["Link"] = (
                f'<{self.url}/api/models/{name}/xet-read-token/{sha}>; rel="xet-auth",'
                f' <{self.cdn_url}/v1/reconstructions/{f.xet}>; rel="xet-reconstruction-info"'
            )
        self.blobs[f.sha256] = f
        to = self.sign(f"/{'xet-bridge' if f.kind == 'xet' else 'repos'}/{f.sha256}", f.path)
        return Answer(302, headers | {"Location": to}, Bytes(f"Found. Redirecting to {to}"))

    # ---- what is behind it ----

    def signature(self, path, until):
        return hmac.new(self.key, f"{path} {until}".encode(), "sha256").hexdigest()

    def sign(self, path, name):
        until = int(time.time() + self.expires)
        disposition = urllib.parse.quote(f'inline; filename="{os.path.basename(name)}";')
        return (
            f"{self.cdn_url}{path}?response-content-disposition={disposition}&Expires={until}"
            f"&Signature={self.signature(path, until)}"
        )

    def answer_cdn(self, path, query, authorization):
        """As object stores do: an XML refusal, an ETag of their own."""
        q = urllib.parse.parse_qs(query)
        until = q.get("Expires", ["0"])[0]

        def refusal(status, code):
            text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code></Error>'
            return Answer(status, {"Content-Type": "application/xml"}, Bytes(text))

        if authorization:
            return refusal(400, "InvalidArgument")  # "Only one auth mechanism allowed"
        if q.get("Signature", [""])[0] != self.signature(path, until) or int(until) <= time.time():
            return refusal(403, "AccessDenied")
        f = self.blobs.get(path.rpartition("/")[2])
        if not f:
            return refusal(404, "NoSuchKey")
        tag = hashlib.md5(f.sha256.encode()).hexdigest()
        return Answer(
            200,
            {
                "Content-Type": "binary/octet-stream",
                "Accept-Ranges": "bytes",
                "ETag": f'"{tag}-12"',
                "Content-Disposition": q.get("response-content-disposition", [""])[0],
            },
            f.content,
        )


class Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, hub, side):
        self.owner, self.side = hub, side
        super().__init__(address, Handler)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # who left does not matter; a mistake here does
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 64 << 10
    server_version = "test-hub"

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.owner.small_buffers:  # else megabytes count as sent that nobody read
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve()

    do_HEAD = do_POST = do_GET

    def serve(self):
        hub, side = self.server.owner, self.server.side
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        path = urllib.parse.unquote(path)
        authorization = self.headers.get("Authorization")
        with hub.lock:
            asked = self.headers.get("Range")
            fault = hub.faults.take(side, self.command, path, *span(asked)) or Fault()
            if fault.before:
                fault.before(hub)
            if fault.status:
                a = Answer(fault.status, {"Content-Type": "text/plain"}, Bytes(fault.body or b""))
            elif fault.circle:
                a = Answer(302, {"Location": self.path}, Bytes(b""))
            elif side == "hub":
                a = hub.answer(self.command, path, query, authorization, body)
            else:
                a = hub.answer_cdn(path, query, authorization)
            if fault.body is not None:
                a.content = Bytes(fault.body)
            a.headers = a.headers | fault.headers
            hub.log.append(
                Request(
                    side,
                    self.command,
                    path,
                    query,
                    authorization,
                    asked,
                    0 if fault.drop else a.status,
                    time.monotonic(),
                )
            )
            cut = hub.random.random() if fault.truncate_random else 0
        if fault.drop:
            self.close_connection = True
            return
        self.send(a, fault, asked, cut)

    def send(self, a, fault, asked, cut):
        size = a.content.size + fault.oversize - fault.undersize
        first, end = 0, size
        if asked and a.status == 200 and not fault.ignore_range:
            first, end = span(asked)
            end = min(end, size)
            if first >= size or end <= first:
                a.status, first, end = 416, 0, 0
                a.headers["Content-Range"] = f"bytes */{size}"
            else:
                a.status = 206
                if fault.wrong_range:
                    first, end = min(first + 7, size - 1), min(end + 7, size)
                a.headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        self.send_response(a.status)
        if a.status != 304:
            a.headers.setdefault("Content-Length", str(end - first))
        for key, value in a.headers.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        self.wfile.flush()
        if self.command != "HEAD":
            if fault.truncate_random:
                fault = dataclasses.replace(fault, truncate=first + int(cut * (end - first)))
            self.send_body(a.content, fault, first, end)

    def send_body(self, content, fault, first, end):
        hub = self.server.owner
        at, begin = first, time.monotonic()
        plain = min(end, content.size)
        for piece in content.pieces(first, plain):
            for piece in spoil(piece, at, fault.corrupt):
                for stop, wait in ((fault.truncate, False), (fault.stall, True)):
                    if at <= stop < at + len(piece):
                        self.put(piece[: stop - at])
                        self.wfile.flush()
                        if wait:
                            self.wait_for_end(hub)
                        self.close_connection = True
                        return
                step = max(1, fault.rate // 20) if fault.rate else len(piece)
                for n in range(0, len(piece), max(1, step)):
                    self.put(piece[n : n + step])
                    if fault.rate:
                        self.wfile.flush()
                        late = (at + n + step - first) / fault.rate - (time.monotonic() - begin)
                        if late > 0:
                            hub.closing.wait(late)
                at += len(piece)
        while at < end:  # more than there is
            n = min(1 << 16, end - at)
            self.put(b"\0" * n)
            at += n
        self.wfile.flush()

    def put(self, data):
        # Big pieces go straight to the socket: what is buffered is copied.
        if len(data) >= 1 << 16:
            self.wfile.flush()
            self.connection.sendall(data)
        else:
            self.wfile.write(data)
        self.server.owner.sent[self.server.side] += len(data)

    def wait_for_end(self, hub):
        """Until the client leaves or the server ends."""
        self.connection.settimeout(0.2)
        while not hub.closing.is_set():
            try:
                if not self.connection.recv(1 << 12):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


def span(asked):
    """What "bytes=A-B" asks for, as [first, end); of anything else: all."""
    m = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
    return (int(m[1]), int(m[2]) + 1 if m[2] else 1 << 62) if m else (0, 1 << 62)


def spoil(piece, at, where):
    """piece, which begins at `at`, with the byte at `where` changed."""
    if not at <= where < at + len(piece):
        return [piece]
    n = where - at
    return [p for p in (piece[:n], bytes([piece[n] ^ 0xFF]), piece[n + 1 :]) if len(p)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="REPO/PATH=SIZE|@FILE",
        help="a file of that many made-up bytes, or with the content of a file",
    )
    p.add_argument("--token", action="append", default=[], help="one that the hub knows")
    p.add_argument("--port", type=int, default=0)
    p.add_argument(
        "--fault", action="append", default=[], metavar="JSON", help="fields of faults.py's Fault"
    )
    args = p.parse_args()
    files = collections.defaultdict(dict)
    for text in args.file:
        name, _, what = text.rpartition("=")
        org, repo, path = name.split("/", 2)
        if what.startswith("@"):
            with open(what[1:], "rb") as f:
                files[f"{org}/{repo}"][path] = f.read()
        else:
            files[f"{org}/{repo}"][path] = Made(path, int(what))
    with Hub(port=args.port) as hub:
        for name, tree in files.items():
            hub.repo(name).commit(tree)
        hub.tokens |= set(args.token)
        for text in args.fault:
            hub.faults.add(**json.loads(text))
        print(f"endpoint {hub.url} cdn {hub.cdn_url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
