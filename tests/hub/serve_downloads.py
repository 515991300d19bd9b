"""What clients decide of downloads: POST and DELETE /models, pauses, and what a restart knows."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import ollama

import harness
from content import Made
from harness import check, equal, error_of, test
from serve import MODEL, answers, entry_of, repository, serving, until
from server import File
from world import blobs, environment, folder_of, fresh

REPO, REF = "acme/small-GGUF", "acme/small-GGUF:Q4_1"
SIZE = os.path.getsize(MODEL)


def post(s, path="/models", model="small", **more):
    r = s.post(path, {"model": model, **more})
    equal(r.status, 200, r.body)
    return json.loads(r.body)


def delete(s, model="small"):
    return s.request("DELETE", "/models", json.dumps({"model": model}).encode())


def value(s, model="small"):
    return entry_of(s, model)["value"]


def some_way(s, model="small", far=48 << 20):
    """Far enough for whole chunks on every connection."""
    until(lambda: entry_of(s, model)["bytes_done"] > far, True)


def kill(s):
    s.stop(signal.SIGKILL)


@test
def a_download_does_not_load_and_one_serves_all():
    with fresh() as (hub, cache):
        repository(hub)
        hub.faults.add(side="cdn", rate=20_000_000)
        with serving(hub, cache) as s:
            equal(post(s)["status"]["state"], "downloading")
            equal(post(s)["status"]["state"], "downloading")
            check({"pause", "cancel"} <= set(entry_of(s)["can"]), entry_of(s))
            until(lambda: value(s), "downloaded")
            equal(post(s)["status"]["state"], "downloaded")
            check(hub.sent["cdn"] < SIZE * 5 // 4, f"{hub.sent['cdn']} bytes were sent for {SIZE}")
            answers(s)
            equal(value(s), "loaded")


@test
def systemd_and_ps_are_told_how_far_a_download_is():
    with fresh() as (hub, cache), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said:
        repository(hub)
        hub.faults.add(side="cdn", rate=2_000_000)
        path = os.path.join(os.path.dirname(cache), "notify")
        said.bind(path)
        lines = []

        def listen():
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    lines.append(said.recv(4096).decode())

        threading.Thread(target=listen, daemon=True).start()
        with serving(hub, cache, NOTIFY_SOCKET=path, PRELOAD_MODELS="small") as s:
            some_way(s, far=1)
            env = environment(hub, cache)
            out = subprocess.run([harness.ARGS.binary, "ps", "--url", f"http://127.0.0.1:{s.port}"],
                                 env=env, capture_output=True, text=True, timeout=20).stdout
            check(re.search(r"small +downloading +fetch \d+ %, [\d.]+ .*B of .*MB, .*/s", out), out)
            some_way(s)
            hub.faults.clear()
            post(s, "/models/cancel")
            until(lambda: value(s), "unloaded")
            answers(s)
            until(lambda: any("1 loaded" in line for line in lines), True)
            want = r"STATUS=small: fetch \d+ %, [\d.]+ .*B of .*MB, .*/s, .* left; 0 loaded"
            check(any(re.fullmatch(want, line) for line in lines), lines)
            check("READY=1" in lines, lines)


@test
def a_network_that_is_away_is_waited_for_and_told():
    with fresh() as (hub, cache):
        repository(hub)
        hub.faults.add(side="cdn", drop=True)
        with serving(hub, cache) as s:
            post(s)
            until(lambda: "network" in (entry_of(s)["waits"] or ""), True)
            equal(value(s), "downloading")
            hub.faults.clear()
            answers(s)
            equal(entry_of(s)["waits"], None)
            check(any("tried again" in line for line in s.errors), s.errors)


@test
def a_request_makes_a_download_a_load():
    with fresh() as (hub, cache):
        repository(hub)
        hub.faults.add(side="cdn", rate=30_000_000)
        with serving(hub, cache) as s:
            post(s)
            answers(s)


@test
def a_model_by_its_hub_name_is_known_from_then_on():
    with fresh() as (hub, cache):
        repository(hub)
        with serving(hub, cache) as s:
            error_of(s.chat(model=REF), 404, "model_not_found")
            odd = "../x", "/etc/passwd", "acme/../x", "acme/.git/x", "nobody", "acme/x:", "acme/x:a/b"
            for name in odd:
                check(s.post("/models", {"model": name}).status in (400, 404), name)
            post(s, model=REF)
            until(lambda: value(s, REF), "downloaded")
            answers(s, REF)
            post(s, model="acme/none")
            until(lambda: value(s, "acme/none"), "failed")
            # what the hub says of what it does not have
            equal(entry_of(s, "acme/none")["error"]["code"], "gated")
        hub.forget()
        with serving(hub, cache) as s:
            answers(s, REF)
            error_of(s.chat(model="acme/none"), 404, "model_not_found")
            equal(hub.requests(), [], "requests for what is here")


@test
def a_warning_is_accepted_by_name():
    with fresh() as (hub, cache):
        repository(hub)
        with serving(hub, cache) as s:
            error_of(s.post("/models", {"model": "warned"}), 403, "consent_needed", "confirm")
            equal(hub.requests(), [])
            post(s, model="warned", confirm=True)
            until(lambda: value(s, "warned"), "downloaded")


@test
def a_pause_survives_restart_and_kill():
    with fresh() as (hub, cache):
        repository(hub)
        hub.faults.add(side="cdn", rate=2_000_000)
        with serving(hub, cache) as s:
            post(s)
            some_way(s)
            got = []
            asked = threading.Thread(target=lambda: got.append(s.chat(model="small")))
            asked.start()
            time.sleep(0.2)
            began = time.monotonic()
            post(s, "/models/pause")
            until(lambda: value(s), "failed")
            check(time.monotonic() - began < 5, "the pause took long")
            asked.join()
            error_of(got[0], 503, "download_paused")
            e = entry_of(s)
            equal(e["error"]["code"], "download_paused")
            check({"retry", "cancel", "delete"} <= set(e["can"]), e)
            error_of(s.chat(model="small"), 503, "download_paused")
            post(s, "/models/pause")  # twice is no error
            hub.forget()
            kill(s)
        with serving(hub, cache, PRELOAD_MODELS="small") as s:
            equal(entry_of(s)["error"]["code"], "download_paused")
            error_of(s.chat(model="small"), 503, "download_paused")
            equal(hub.requests(), [], "requests while it is paused")
            post(s, "/models/retry")
            until(lambda: value(s), "loaded")
            check(hub.sent["cdn"] < SIZE - (8 << 20), "what was proved was fetched again")
        with serving(hub, cache) as s:
            equal(value(s), "unloaded")


@test
def a_paused_download_by_name_is_known_after_a_kill_and_may_be_cancelled():
    with fresh() as (hub, cache):
        repository(hub)
        hub.faults.add(side="cdn", rate=2_000_000)
        with serving(hub, cache) as s:
            post(s, model=REF)
            some_way(s, REF)
            post(s, "/models/pause", model=REF)
            kill(s)
        with serving(hub, cache) as s:
            equal(entry_of(s, REF)["error"]["code"], "download_paused")
            post(s, "/models/cancel", model=REF)
            equal(value(s, REF), "unloaded")
        with serving(hub, cache) as s:
            equal(value(s, REF), "unloaded")


@test
def damaged_notes_of_downloads_are_as_none():
    with fresh() as (hub, cache):
        repository(hub)
        state = os.path.join(os.path.dirname(cache), "state")
        os.makedirs(state)
        path = os.path.join(state, "downloads.json")
        for text in (b"{", b"[]", b'{"paused":7,"added":["../x",3,"",null,"a\\u0000b"]}', b"\xff" * 99,
                     b'{"added":["' + b"x" * 5000 + b'"]}'):
            with open(path, "wb") as f:
                f.write(text)
            with serving(hub, cache) as s:
                equal((value(s), s.get("/models/none").status), ("unloaded", 404), text[:40])
        hub.faults.add(side="cdn", rate=2_000_000)
        with serving(hub, cache) as s:
            post(s)
            until(lambda: value(s), "downloading")
            post(s, "/models/pause")
        with open(path, encoding="utf-8") as f:
            equal(json.load(f), {"paused": ["small"], "added": []})


@test
def removal_is_refused_while_in_use():
    with fresh() as (hub, cache):
        repository(hub)
        hub.faults.add(side="cdn", rate=2_000_000)
        with serving(hub, cache) as s:
            error_of(delete(s), 404, "not_downloaded")
            post(s, "/models/load")
            until(lambda: value(s), "downloading")
            error_of(delete(s), 409, "model_in_use")
            hub.faults.clear()
            post(s, "/models/cancel")
            until(lambda: value(s), "unloaded")
            # while it loads, again and again, and when it is loaded: whatever is hit is refused or whole
            post(s, "/models/load")
            end = time.monotonic() + 60
            while value(s) != "loaded" and time.monotonic() < end:
                error_of(delete(s), 409, "model_in_use")
            answers(s)
            error_of(delete(s), 409, "model_in_use")
            # an entry of the same repository is the same files
            error_of(delete(s, "warned"), 409, "model_in_use")
            post(s, "/models/unload")
            until(lambda: value(s), "unloaded")
            replies = []  # refused while it is being closed
            until(lambda: replies.append(delete(s)) or replies[-1].status, 200)
            check(json.loads(replies[-1].body)["bytes"] >= SIZE, replies[-1].body)
            check(not os.path.exists(folder_of(cache, REPO)), "the repository is still there")
            equal((value(s), value(s, "warned")), ("unloaded", "failed"))
            error_of(delete(s), 404, "not_downloaded")
            answers(s)  # and is fetched again


@test
def a_paused_download_may_be_removed():
    with fresh() as (hub, cache):
        repository(hub)
        hub.faults.add(side="cdn", rate=2_000_000)
        with serving(hub, cache) as s:
            post(s)
            some_way(s)
            post(s, "/models/pause")
            until(lambda: value(s), "failed")
            r = delete(s)
            equal(r.status, 200, r.body)
            equal((value(s), blobs(cache, REPO)), ("unloaded", []))
        with serving(hub, cache) as s:
            equal(value(s), "unloaded")


@test
def what_does_not_fit_the_disk_beside_others_is_refused_before_a_byte_moves():
    with fresh() as (hub, cache):
        repository(hub)
        os.makedirs(cache)
        disk = os.statvfs(cache)
        room = disk.f_bavail * disk.f_frsize - min(4 << 30, disk.f_blocks * disk.f_frsize // 20)
        sha = iter("1234")
        entries = {"small": {"repo": REPO, "format": "gguf", "size": "small", "description": "x"}}
        for name, share in (("one", 0.6), ("two", 0.6), ("three", 0.2), ("all", 1.5)):
            made = Made(name, int(room * share), sha256=64 * next(sha))
            hub.repo(f"acme/{name}").commit({f"{name}.gguf": File(name, made, "lfs")})
            entries[name] = entries["small"] | {"repo": f"acme/{name}"}
        with serving(hub, cache, entries) as s:
            post(s)
            until(lambda: value(s), "downloaded")
            hub.forget()
            hub.faults.add(side="cdn", rate=10_000)
            post(s, model="all")
            until(lambda: value(s, "all"), "failed")
            equal(hub.requests(side="cdn"), [])
            post(s, model="one")
            until(lambda: entry_of(s, "one")["bytes_total"] > 0, True)
            post(s, model="two")
            until(lambda: value(s, "two"), "failed")
            e = entry_of(s, "two")["error"]
            equal(e["code"], "does_not_fit_disk")
            want = r" free, of which other downloads take \d+ MB and \d+ MB stay so: `ashley rm small` frees"
            check(re.search(want, e["message"]), e)
            error_of(s.chat(model="two"), 503, "does_not_fit_disk")
            post(s, model="three")
            time.sleep(1)
            equal((value(s, "one"), value(s, "three")), ("downloading", "downloading"))
            post(s, "/models/cancel", model="one")
            until(lambda: entry_of(s, "three")["bytes_total"] > 0, True)
            equal([r for r in hub.requests(side="cdn") if "two" in r.path or "all" in r.path], [])
            post(s, model="two")
            time.sleep(1)
            equal(value(s, "two"), "downloading")
            # what is being fetched is no advice
            equal(delete(s).status, 200)
            post(s, model="one")
            until(lambda: value(s, "one"), "failed")
            e = entry_of(s, "one")["error"]
            check(e["code"] == "does_not_fit_disk" and "ashley rm" not in e["message"], e)


@test
def an_absent_draft_model_is_fetched_too():
    with fresh() as (hub, cache):
        repository(hub)
        repository(hub, "acme/guess-GGUF")
        entry = {"repo": REPO, "format": "gguf", "size": "small", "description": "x", "context": 512}
        models = {"small": entry | {"draft": "guess"}, "guess": entry | {"repo": "acme/guess-GGUF"}}
        with serving(hub, cache, models) as s:
            answers(s)
            e = entry_of(s)
            equal((e["draft"], e["draft_refused"], value(s, "guess")), ("guess", None, "downloaded"))
            error_of(delete(s, "guess"), 409, "model_in_use")
            post(s, "/models/unload")
            until(lambda: delete(s, "guess").status, 200)
            answers(s)  # which fetches it again
            equal((entry_of(s)["draft_refused"], value(s, "guess")), (None, "downloaded"))
        hub.repos.pop("acme/guess-GGUF")
        with serving(hub, cache, models, HF_HUB_CACHE=cache + "2") as s:
            answers(s)
            check(entry_of(s)["draft_refused"], entry_of(s))


def lines_of(body):
    return [json.loads(line) for line in dechunk(body).decode().splitlines()]


@test
def ollama_pulls():
    with fresh() as (hub, cache):
        repository(hub)
        hub.faults.add(side="cdn", rate=20_000_000)
        with serving(hub, cache) as s:
            client = ollama.Client(host=f"http://127.0.0.1:{s.port}")
            refused = ("nobody", "nobody"), ("acme/none", "none"), ("warned", "large"), ("../x", "x")
            for name, word in refused:  # before "small", which has the files of "warned", too
                for stream in (False, True):
                    try:
                        list(client.pull(name, stream=stream))
                        raise AssertionError(f"{name} was pulled")
                    except ollama.ResponseError as e:
                        check(word in e.error, name, e.error)
            told = list(client.pull("hf.co/acme/small-GGUF:Q4_1", stream=True))
            equal(told[0].status, "pulling manifest")
            equal([p.status for p in told[-2:]], ["verifying sha256 digest", "success"])
            far = [p.completed for p in told if p.total]
            equal((far, {p.total for p in told if p.total}), (sorted(far), {SIZE}))
            check(len(set(far)) > 2, far)
            equal(value(s, REF), "downloaded")
            equal(client.pull("small:latest").status, "success")
            equal([p.status for p in client.pull("small", stream=True)][-1], "success")
            equal(client.pull("warned").status, "success")  # nothing is left to be consented to
            for body in (b"", b"{", b"{}", b'{"model":7}', b'{"model":"small","stream":1}'):
                r = s.request("POST", "/api/pull", body)
                equal((r.status, list(json.loads(r.body))), (400, ["error"]), body)
            equal(s.get("/api/pull").status, 405)


@test
def a_pull_that_is_cancelled_or_left():
    with fresh() as (hub, cache):
        repository(hub)
        hub.faults.add(side="cdn", rate=2_000_000)
        with serving(hub, cache) as s:
            client = ollama.Client(host=f"http://127.0.0.1:{s.port}")
            told = client.pull("small", stream=True)
            next(told)
            until(lambda: value(s), "downloading")
            post(s, "/models/cancel")
            try:
                list(told)
                raise AssertionError("no error")
            except ollama.ResponseError as e:
                check("cancelled" in e.error, e.error)
            told = client.pull("small", stream=True)
            next(told)
            told.close()  # the client leaves, the download goes on
            hub.faults.clear()
            post(s, "/models/cancel")
            until(lambda: value(s), "unloaded")
            equal(client.pull("small").status, "success")
