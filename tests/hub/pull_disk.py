"""`ashley pull` and the disk: killed at any instant, no space, a cache that cannot be written, one damaged by
hand; a pin of the catalogue; and addresses of private ranges, which need a network of their own. What needs
root or name spaces is skipped without."""

import contextlib
import os
import random
import resource
import shutil
import subprocess
import sys
import time

from faithful import snapshot
from harness import Skip, check, equal, test
from world import BAD_INPUT, CHUNK, DONE, MIB, NEEDED, NO_ROOM, ROOT
from world import bad, blobs, ended, folder_of, fresh, good, journal, pull, same, start, tiny

WEIGHTS = "model.safetensors"
KILLS = 100


def weights_of(repo):
    return repo.commits[repo.find("main")][WEIGHTS]


@contextlib.contextmanager
def small_disk(size):
    """A folder on a file system of its own."""
    with fresh() as (hub, cache):
        os.makedirs(cache)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", cache],
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if made.returncode:
            raise Skip("nothing may be mounted here")
        try:
            yield hub, cache
        finally:
            subprocess.run(["umount", "-l", cache], check=True)


@test
def killed_at_a_hundred_instants():
    """Nothing that the journal had is lost, at most a chunk of each connection is fetched again, and the file
    is right in the end. The instants are seeded; how far a fetch is by then is the machine's."""
    rng = random.Random(7)
    size = 640 * MIB + 12345
    with fresh() as (hub, cache):
        repo = tiny(hub, size=size)
        file = weights_of(repo)
        hub.small_buffers = True
        hub.faults.add(side="cdn", method="GET", rate=40 * MIB)
        known, received, alive = set(), 0, 0
        for n in range(KILLS):
            before = hub.sent["cdn"], len(hub.requests("cdn", "GET"))
            p = start(hub, cache, "acme/tiny", "--quiet")
            # Not all early: the hundredth part of the whole each time, on average.
            time.sleep(rng.random() * 0.4)  # a second connection comes after 0.2 s
            p.kill()
            r = ended(p)
            alive += r.status == -9
            now = journal(cache, file)
            check(known <= now or file.etag in blobs(cache), "kill", n, "lost chunks", known - now)
            asked = len(hub.requests("cdn", "GET")) - before[1]
            lost = hub.sent["cdn"] - before[0] - (len(now) - len(known)) * CHUNK
            check(  # the hub may have counted pieces sent to the one before, and what lay unread in a socket
                lost <= asked * (CHUNK + 2 * MIB) + 2 * MIB or file.etag in blobs(cache),
                "kill",
                n,
                lost,
                "bytes of",
                asked,
                "connections were lost",
            )
            received += len(now) - len(known)
            known = now
        check(alive >= KILLS // 2, "it was over before most kills")
        check(received >= 10, "the kills came before anything was there")
        hub.faults.clear()
        sent = hub.sent["cdn"]
        same(good(hub, cache), repo)
        check(
            hub.sent["cdn"] - sent <= size - len(known) * CHUNK + CHUNK, "proved bytes were fetched again"
        )
        check(not [b for b in blobs(cache) if "incomplete" in b], "left over:", blobs(cache))


@test
def no_room_is_said_before_a_byte_moves():
    with small_disk("12m") as (hub, cache):
        tiny(hub)
        bad(hub, cache, NO_ROOM, "needs .* MB more on disk.*has .* MB free.*HF_HUB_CACHE")
        equal(hub.requests("cdn"), [], "requests for bytes")
        equal(hub.requests(path="/resolve/"), [], "files")


@test
def a_disk_that_fills_meanwhile():
    with small_disk("48m") as (hub, cache):
        repo = tiny(hub, size=23 * MIB)
        hub.faults.add(side="cdn", method="GET", rate=4 * MIB)
        p = start(hub, cache, "acme/tiny")
        end = time.monotonic() + 20
        while not journal(cache, weights_of(repo)) and time.monotonic() < end:
            time.sleep(0.02)
        filler = os.path.join(cache, "filler")
        with open(filler, "wb") as f, contextlib.suppress(OSError):
            while True:
                f.write(b"\0" * 65536)
                f.flush()
        r = ended(p)
        equal(r.status, NO_ROOM, r.err[-300:])
        check("No space left" in r.err, r.err[-300:])
        known = journal(cache, weights_of(repo))
        os.unlink(filler)
        hub.forget()
        same(good(hub, cache), repo)
        check(
            known and hub.sent["cdn"] <= 23 * MIB - (len(known) - 1) * CHUNK,
            hub.sent["cdn"],
            "bytes, with",
            known,
        )


@test
def a_limit_on_the_size_of_files():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        r = pull(
            hub,
            cache,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5 * MIB, 5 * MIB)),
            restore_signals=False,
        )  # SIGXFSZ stays ignored, as Python has it
        equal(r.status, NO_ROOM, r.err[-300:])
        check("File too large" in r.err, r.err[-300:])
        same(good(hub, cache), repo)


@test
def a_cache_that_cannot_be_written():
    with small_disk("64m") as (hub, cache):
        repo = tiny(hub)
        folder = good(hub, cache)
        subprocess.run(["mount", "-o", "remount,ro", cache], check=True)
        same(good(hub, cache), repo)
        equal(good(hub, cache, env={"HF_HUB_OFFLINE": "1"}), folder)
        equal(good(hub, cache, "acme/tiny", "--verify"), folder)
        r = pull(hub, cache, "acme/tiny", "--revision", "v1")
        check(
            r.status not in (DONE, BAD_INPUT) and "Read-only file system" in r.err, r.status, r.err[-300:]
        )


@test
def a_blob_that_was_cut():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        blob = os.path.realpath(os.path.join(good(hub, cache), WEIGHTS))
        os.truncate(blob, 5 * MIB)
        same(good(hub, cache), repo)


@test
def names_that_lead_to_nothing():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        folder = good(hub, cache)
        os.unlink(os.path.realpath(os.path.join(folder, WEIGHTS)))
        os.unlink(os.path.join(folder, "config.json"))
        os.symlink("../../../../../etc/passwd", os.path.join(folder, "config.json"))
        with open(os.path.join(folder_of(cache, "acme/tiny"), "refs", "main"), "w", encoding="ascii") as f:
            f.write("rubbish")
        same(good(hub, cache), repo)
        equal(snapshot(hub, cache, local_files_only=True, allow_patterns=NEEDED), folder)


def begun(hub, cache, repo):
    """An unfinished file; (its path, its journal's)."""
    hub.faults.add(side="cdn", truncate=17 * MIB)  # chunk 4 never comes
    p = start(hub, cache, "acme/tiny")
    end = time.monotonic() + 20
    while not {0, 1, 2, 3} <= journal(cache, weights_of(repo)) and time.monotonic() < end:
        time.sleep(0.01)
    p.kill()
    ended(p)
    check({0, 1, 2, 3} <= journal(cache, weights_of(repo)), "chunks 0 to 3 should be written")
    hub.forget()
    folder = os.path.join(folder_of(cache, "acme/tiny"), "blobs")
    names = [b for b in blobs(cache) if b.startswith(weights_of(repo).etag)]
    (partial,) = [b for b in names if b.endswith(".incomplete")]
    (log,) = [b for b in names if b.endswith(".journal")]
    return os.path.join(folder, partial), os.path.join(folder, log)


def change(path, at, data):
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(data)


@test
def an_unfinished_file_that_was_damaged():
    size = 23 * MIB

    def flip(partial, log):
        change(partial, 6 * MIB, b"damage")  # in chunk 1: that one again

    def cut(partial, log):
        os.truncate(partial, 9 * MIB)

    def longer(partial, log):
        with open(partial, "ab") as f:
            f.write(b"\0" * (30 * MIB))

    def rubbish(partial, log):
        with open(log, "wb") as f:
            f.write(random.Random(3).randbytes(5000))

    def record(partial, log):
        change(log, 32 + 24 + 3, b"\xff\xff")

    def half_a_record(partial, log):
        os.truncate(log, os.path.getsize(log) - 11)

    def gone(partial, log):
        os.unlink(partial)

    with fresh() as (hub, cache):
        repo = tiny(hub, size=size)
        kept = begun(hub, cache, repo)
        for harm, again in (
            (flip, 1),
            (cut, 3),
            (longer, 0),
            (rubbish, 5),
            (record, 4),
            (half_a_record, 1),
            (gone, 5),
        ):
            other = cache + harm.__name__
            shutil.copytree(cache, other, symlinks=True)
            harm(*(p.replace(cache, other) for p in kept))
            hub.forget()
            same(good(hub, other), repo)
            most = (2 + again) * CHUNK  # chunks 4 and 5 (it may have come), and those harmed
            check(hub.sent["cdn"] <= most, f"{harm.__name__}: {hub.sent['cdn']} bytes, at most {most}")
            shutil.rmtree(other)


@test
def a_link_in_place_of_an_unfinished_file():
    with fresh() as (hub, cache):
        repo = tiny(hub, size=23 * MIB)
        for which in (0, 1):
            path = begun(hub, cache, repo)[which]
            victim = os.path.join(os.path.dirname(cache), "victim")
            with open(victim, "wb") as f:
                f.write(b"precious")
            os.unlink(path)
            os.symlink(victim, path)
            r = pull(hub, cache)
            with open(victim, "rb") as f:
                equal(f.read(), b"precious", "a file outside of the cache")
            check(r.status == DONE or "incomplete" in r.err, r.status, r.err[-300:])
            if os.path.islink(path):
                os.unlink(path)
            shutil.rmtree(cache)


@test
def a_pin_of_the_catalogue():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        catalogue = os.path.join(os.path.dirname(cache), "models.json")
        for sha, wanted in ((weights_of(repo).sha256, DONE), ("ab" * 32, BAD_INPUT)):
            with open(catalogue, "w", encoding="utf-8") as f:
                f.write(
                    '{"mine": {"repo": "acme/tiny", "format": "safetensors", "size": "small",'
                    f' "description": "x", "sha256": {{"{WEIGHTS}": "{sha}"}}}}}}'
                )
            r = pull(hub, cache + str(wanted), "mine", env={"ASHLEY_MODELS_FILE": catalogue})
            equal(r.status, wanted, r.err[-300:])
        check("catalogue's SHA-256" in r.err, r.err[-300:])
        equal(blobs(cache + str(BAD_INPUT)), [], "blobs")


@test
def private_addresses_are_refused():
    """In a network of its own, where the hub is at a public address (there is no such network: RFC 5737)."""
    if subprocess.run(["unshare", "-rn", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        raise Skip("no name spaces here")
    import harness

    with fresh() as (_, cache):
        child = os.path.join(ROOT, "tests", "hub", "private.py")
        r = subprocess.run(
            ["unshare", "-rn", sys.executable, child, harness.ARGS.binary, cache],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        equal(r.returncode, 0, r.stdout[-1500:])
