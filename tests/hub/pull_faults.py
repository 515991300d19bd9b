"""`ashley pull` when the network or the hub misbehaves: what passes is survived, what does not is said
clearly, what is wrong is never used, and nothing that was proved is fetched again."""

import json
import os
import re
import signal
import socket
import threading
import time
import traceback

from harness import check, equal, test
from server import Fault
from world import BAD_INPUT, CHUNK, DONE, MIB, NETWORK, NOT_FOUND, TOKEN
from world import bad, blobs, ended, folder_of, fresh, good, journal, pull, same, start, tiny

SIZE = 23 * MIB + 4321
WEIGHTS = "model.safetensors"


def survives(spare=2 * CHUNK, size=SIZE, **fault):
    """A fault that passes: the files are right in the end, and little was sent twice."""
    with fresh() as (hub, cache):
        repo = tiny(hub, size=size)
        added = hub.faults.add(**fault)
        left = added.times
        same(good(hub, cache), repo)
        check(added.times < left, "the fault never came")
        check(hub.sent["cdn"] <= size + spare, f"{hub.sent['cdn'] - size} bytes were sent twice")
        check(not [b for b in blobs(cache) if "incomplete" in b], "left over:", blobs(cache))


def nothing_used(hub, cache):
    """No name of the snapshot leads to the weights, and no whole blob has their name."""
    repo = hub.repo("acme/tiny")
    check(repo.commits[repo.find("main")][WEIGHTS].sha256 not in blobs(cache), "a wrong blob")
    path = os.path.join(folder_of(cache, "acme/tiny"), "snapshots", repo.find("main"), WEIGHTS)
    check(not os.path.lexists(path), "a name for it")


def refused(wanted, what, size=SIZE, **fault):
    with fresh() as (hub, cache):
        tiny(hub, size=size)
        added = hub.faults.add(**fault)
        left = added.times
        bad(hub, cache, wanted, what)
        check(added.times < left, "the fault never came")
        nothing_used(hub, cache)


WAITING = []


def waits(fn):
    """A test that mostly waits: all of these run beside each other, in `those_that_mostly_wait`."""
    WAITING.append(fn)
    return fn


@test
def those_that_mostly_wait():
    problems = []

    def run(fn):
        try:
            fn()
        except Exception:  # noqa: BLE001 told below
            problems.append(f"{fn.__name__}: {traceback.format_exc()}")

    threads = [threading.Thread(target=run, args=(fn,)) for fn in WAITING]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check(not problems, "\n".join(problems))


@test
def bodies_that_end_early():
    survives(side="cdn", truncate=10 * MIB + 17, times=1)
    survives(side="cdn", method="GET", truncate_random=True, times=8, spare=10 * CHUNK)


@waits
def connections_that_close_without_a_word():
    survives(side="cdn", drop=True, times=2)
    survives(side="hub", drop=True, times=2)


@waits
def a_body_that_stalls():
    survives(side="cdn", stall=9 * MIB + 5, times=1)


@waits
def a_host_that_forgets_ranges_within_a_chunk():
    """The first connection breaks in the middle of a chunk that the hash has begun with, then the host sends
    whole files only, while a second connection is busy. What was hashed is not hashed again, nor lost."""
    size = 40 * MIB + 4321
    with fresh() as (hub, cache):
        repo = tiny(hub, size=size)
        hub.faults.add(side="cdn", method="GET", rate=8 * MIB, truncate=5 * MIB + 77777, times=1)
        hub.faults.add(side="cdn", method="GET", rate=8 * MIB, times=1)
        hub.faults.add(side="cdn", method="GET", ignore_range=True)
        r = pull(hub, cache)
        equal(r.status, DONE, r.err[-600:])
        check("fetched again" not in r.err, r.err)
        same(r.out.rstrip("\n"), repo)


@test
def a_wrong_byte():
    # The hash of the whole is wrong, and no one knows where: all of it again.
    survives(side="cdn", corrupt=13 * MIB, times=1, spare=SIZE + 2 * CHUNK)


@test
def wrong_bytes_again_and_again():
    with fresh() as (hub, cache):
        repo = tiny(hub, size=SIZE)
        hub.faults.add(side="cdn", corrupt=13 * MIB)
        sha = repo.commits[repo.find("main")][WEIGHTS].sha256
        bad(hub, cache, BAD_INPUT, f"{WEIGHTS}.*not what the hub announced.*SHA-256.*{sha}")
        nothing_used(hub, cache)
        hub.forget()
        same(good(hub, cache), repo)


@test
def wrong_bytes_of_a_small_file():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        right = repo.commits[repo.find("main")]["config.json"]
        hub.faults.add(side="hub", path="resolve-cache.*/config.json$", body=b"x" * right.size)
        bad(hub, cache, BAD_INPUT, "config.json.*not what the hub announced")
        check(right.oid not in blobs(cache), "a wrong blob")
        hub.forget()
        same(good(hub, cache), repo)


@test
def sizes_that_are_not_the_announced_one():
    refused(BAD_INPUT, f"{WEIGHTS}.*size", side="cdn", oversize=1000)
    refused(BAD_INPUT, f"{WEIGHTS}.*size", side="cdn", undersize=1000)
    refused(BAD_INPUT, f"{WEIGHTS}.*size", side="cdn", oversize=1000, ignore_range=True)


@test
def changed_between_the_list_and_the_answer():
    for header, value in (("X-Linked-Size", "99"), ("X-Linked-Etag", '"' + "ab" * 32 + '"')):
        refused(BAD_INPUT, f"{WEIGHTS}.*changed", side="hub", path=f"{WEIGHTS}$", headers={header: value})
    refused(
        BAD_INPUT, "commit.*changed", side="hub", path=f"{WEIGHTS}$", headers={"X-Repo-Commit": "0" * 40}
    )


@test
def redirects_in_circles():
    refused(NETWORK, "circle", side="hub", path="/resolve/", circle=True)
    refused(NETWORK, "circle", side="hub", path="/tree/", circle=True)
    refused(NETWORK, "circle", side="cdn", circle=True)


@test
def redirects_to_nowhere():
    where = {"side": "hub", "path": f"{WEIGHTS}$"}
    refused(BAD_INPUT, "redirects.*no address of http", headers={"Location": "file:///etc/passwd"}, **where)
    refused(NETWORK, "redirects to nowhere", headers={"Location": None}, **where)


@test
def names_in_the_list_that_lead_elsewhere():
    for path in ("../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil", "a//b", ".", "x/", "a\nb", ""):
        with fresh() as (hub, cache):
            repo = tiny(hub)
            repo.raw = [{"type": "file", "oid": "0" * 40, "size": 3, "path": path}]
            bad(hub, cache, BAD_INPUT, "no plain path|names? ")
            equal(hub.requests(path="/resolve/"), [], f"files fetched beside {path!r}")
            check(not os.path.exists(os.path.join(cache, "..", "evil")), "it wrote outside of the cache")


@test
def lists_that_are_none():
    entry = {"type": "file", "oid": "0" * 40, "size": 3, "path": "x"}
    for body in (
        b"",
        b"<html>",
        b'{"a":1}',
        b"[1]",
        b"[" * 100000,
        b'[{"type":"file"}]',
        json.dumps([entry | {"size": -1}]).encode(),
        json.dumps([entry | {"oid": "zz"}]).encode(),
        json.dumps([entry | {"size": 1 << 62}]).encode(),
        json.dumps([entry, entry]).encode(),
        json.dumps([entry | {"path": 7}]).encode(),
    ):
        with fresh() as (hub, cache):
            tiny(hub)
            hub.faults.add(path="/tree/", body=body)
            r = pull(hub, cache)
            check(r.status in (BAD_INPUT, NOT_FOUND) and len(r.err) > 10, body[:60], r.status, r.err[-300:])
            equal(hub.requests(path="/resolve/"), [], "files fetched")


@test
def commits_that_are_none():
    for sha in ("main", "0" * 39, "../../../x", None, 5):
        with fresh() as (hub, cache):
            tiny(hub)
            hub.faults.add(path="/revision/", body=json.dumps({"sha": sha}).encode())
            r = pull(hub, cache)
            equal(r.status, BAD_INPUT, f"{sha}: {r.err[-300:]}")
            equal(hub.requests(path="/(tree|resolve)/"), [], "more requests")


@test
def pages_that_never_end():
    with fresh(page=4) as (hub, cache):
        tiny(hub)
        again = f'<{hub.url}/api/models/acme/tiny/tree/main?recursive=true>; rel="next"'
        hub.faults.add(path="/tree/", headers={"Link": again})
        r = pull(hub, cache)
        check(r.status == BAD_INPUT and re_any(r.err, "twice", "pages", "circle"), r.status, r.err[-300:])
        check(len(hub.requests(path="/tree/")) < 2000, "so many pages")


@test
def a_next_page_on_another_host():
    with fresh() as (hub, cache):
        tiny(hub)
        elsewhere = f'<{hub.cdn_url}/api/models/acme/tiny/tree/main>; rel="next"'
        hub.faults.add(path="/tree/", headers={"Link": elsewhere})
        r = pull(hub, cache, env={"HF_TOKEN": TOKEN})
        check(r.status != DONE, "it was followed")
        equal(hub.requests("cdn"), [], "requests there")


def re_any(text, *words):
    return any(w in text for w in words)


@waits
def trouble_that_passes():
    survives(side="cdn", status=500, times=3)
    survives(side="hub", path="/tree/", status=502, times=2)
    survives(side="hub", path="/resolve/", status=503, times=2)
    survives(side="cdn", wrong_range=True, times=2)


@waits
def a_network_that_is_away_for_a_while():
    """Longer than five tries; whoever looks is told why nothing comes."""
    for fault in ({"side": "cdn", "drop": True, "times": 11},  # two connections
                  {"side": "hub", "path": "/tree/", "drop": True, "times": 6}):
        with fresh() as (hub, cache):
            repo = tiny(hub)
            hub.faults.add(**fault)
            r = pull(hub, cache)
            equal(r.status, 0, r.err)
            same(r.out.rstrip("\n"), repo)
            told = re.findall(r"^acme/tiny: .*127\.0\.0\.1: .*; next try in \d s$", r.err, re.M)
            check(len(told) >= 4, r.err)
    with fresh() as (hub, cache):
        repo = tiny(hub)
        hub.faults.add(side="hub", path="/tree/", drop=True, times=2)
        r = pull(hub, cache, "acme/tiny", "--progress", "json")
        equal(r.status, 0, r.err)
        lines = [json.loads(line) for line in r.err.splitlines()]
        troubles = [line["trouble"] for line in lines if "trouble" in line]
        check(troubles and all("127.0.0.1" in t["message"] and t["retry_ms"] >= 0 for t in troubles), r.err)
        equal(troubles[0]["tries"], 1)
        equal((lines[-1]["model"], "trouble" in lines[-1]), ("acme/tiny", False), r.err)


@waits
def the_cdn_is_down():
    refused(NETWORK, "answers 500", side="cdn", status=500)


@waits
def the_hub_is_down():
    refused(NETWORK, "answers 500", side="hub", path="/tree/", status=500)


@waits
def the_hub_says_nothing():
    refused(NETWORK, "acme/tiny.*returned nothing", side="hub", drop=True)


@waits
def every_body_ends_early():
    refused(NETWORK, "early|broke", side="cdn", truncate=9 * MIB)


@waits
def every_range_is_another():
    refused(NETWORK, "another range", side="cdn", wrong_range=True)


@waits
def the_cdn_refuses():
    refused(NETWORK, "answers 403", side="cdn", status=403)


@waits
def a_hub_that_asks_for_patience():
    begin = time.monotonic()
    survives(side="cdn", status=429, headers={"Retry-After": "1"}, times=1)
    survives(side="hub", path="/tree/", status=429, headers={"Retry-After": "1"}, times=1)
    check(time.monotonic() - begin >= 2, "it did not wait")
    refused(
        NETWORK,
        "429.*try again in 86400 s",
        side="hub",
        path="/tree/",
        status=429,
        headers={"Retry-After": "100000"},
    )


@waits
def a_host_without_ranges():
    survives(side="cdn", ignore_range=True, spare=2 * SIZE)  # the second connection's is given up
    # Begun with ranges, ended without.
    with fresh() as (hub, cache):
        repo = tiny(hub, size=SIZE)
        hub.faults.add(side="cdn", method="GET", truncate=17 * MIB)
        bad(hub, cache, NETWORK, "early|broke")
        hub.forget()
        hub.faults.add(side="cdn", ignore_range=True)
        same(good(hub, cache), repo)


@waits
def signed_addresses_that_end_meanwhile():
    with fresh() as (hub, cache):
        repo = tiny(hub, size=SIZE)

        def forget_key(h):
            h.key = b"another"

        hub.faults.add(side="cdn", method="GET", skip=1, times=1, before=forget_key)
        same(good(hub, cache), repo)
        check(
            len(hub.requests("hub", path=f"/resolve/.*{WEIGHTS}")) >= 2, "it did not ask for a new address"
        )


@waits
def what_was_proved_is_not_fetched_again():
    with fresh() as (hub, cache):
        repo = tiny(hub, size=SIZE)
        hub.faults.add(side="cdn", truncate=17 * MIB + 9)
        bad(hub, cache, NETWORK, "early|broke")
        known = journal(cache, repo.commits[repo.find("main")][WEIGHTS])
        check(len(known) >= 4, "too little was kept:", known)
        hub.forget()
        same(good(hub, cache), repo)
        check(hub.sent["cdn"] <= SIZE - len(known) * CHUNK + CHUNK, hub.sent["cdn"], "bytes, with", known)


@test
def interrupted_and_gone_on():
    with fresh() as (hub, cache):
        repo = tiny(hub, size=SIZE)
        file = repo.commits[repo.find("main")][WEIGHTS]
        hub.faults.add(side="cdn", method="GET", rate=8 * MIB)
        p = start(hub, cache, "acme/tiny")
        end = time.monotonic() + 20
        while len(journal(cache, file)) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        began = time.monotonic()
        p.send_signal(signal.SIGINT)
        r = ended(p)
        check(time.monotonic() - began < 5, "it took long to end")
        equal(r.status, 130, r.err[-300:])
        nothing_used(hub, cache)
        known = journal(cache, file)
        check(len(known) >= 2, "what was proved is gone")
        hub.forget()
        same(good(hub, cache), repo)
        check(hub.sent["cdn"] <= SIZE - len(known) * CHUNK + CHUNK, hub.sent["cdn"], "bytes, with", known)


@waits
def a_hub_that_is_not_there():
    with fresh() as (hub, cache):
        tiny(hub)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))  # and does not listen
            hub.url = f"http://127.0.0.1:{s.getsockname()[1]}"
            bad(hub, cache, NETWORK, "acme/tiny: 127.0.0.1: .*onnect")


@test
def proxies_are_for_https_and_see_no_token():
    with fresh() as (hub, cache), socket.create_server(("127.0.0.1", 0)) as proxy:
        asked = []

        def serve():
            while True:
                try:
                    s = proxy.accept()[0]
                except OSError:
                    return
                with s:
                    asked.append(s.recv(1 << 16).decode("latin-1"))
                    s.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        env = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.getsockname()[1]}", "HF_TOKEN": TOKEN}
        repo = tiny(hub)
        same(good(hub, cache, env=env), repo)  # an endpoint of http
        equal(asked, [], "what the proxy saw of it")
        env["HF_ENDPOINT"] = "https://hub.invalid"
        bad(hub, os.path.join(cache, "2"), NETWORK, "proxy", env=env)
        check(asked and all(a.startswith("CONNECT hub.invalid:443 ") for a in asked), asked)
        check(not any(TOKEN in a for a in asked), "the token went to the proxy")
        asked.clear()
        bad(
            hub,
            os.path.join(cache, "2"),
            NETWORK,
            "resolve|hub.invalid",
            env=env | {"NO_PROXY": "hub.invalid"},
        )
        equal(asked, [], "what it saw in spite of NO_PROXY")


@test
def the_tests_own_faults():
    """A fault at a byte is for the answer that has the byte."""
    check(Fault(truncate=5).fits("cdn", "GET", "/x", 0, 6), "byte 5 of [0, 6)")
    check(not Fault(truncate=5).fits("cdn", "GET", "/x", 6, 9), "byte 5 of [6, 9)")
    check(not Fault(times=0).fits("cdn", "GET", "/x", 0, 6), "used up")
