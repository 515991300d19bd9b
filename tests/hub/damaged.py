"""A cache that somebody changed after it was fetched, and a clock that was set back: what was damaged is
noticed, is never used once it is, and is fetched anew; what is sound is not fetched again."""

import contextlib
import json
import os
import shutil
import subprocess

from faithful import snapshot
from harness import check, equal, test
from serve import answers, repository, serving, until
from world import BAD_INPUT, NEEDED, USAGE, bad, fresh, good, pull, same, tiny

WEIGHTS = "model.safetensors"


def told(hub, cache, *words, **more):
    """What `ashley pull --json` says, which must succeed."""
    r = pull(hub, cache, "acme/tiny", "--json", *words, **more)
    equal(r.status, 0, r.err[-600:])
    return json.loads(r.out) | {"err": r.err}


def damage(path, later=None):
    """Other bytes, as many, at the same time of day or so many seconds after the file's name was made."""
    was = os.stat(path)
    with open(path, "r+b") as f:
        f.seek(was.st_size // 2)
        byte = f.read(1)
        f.seek(was.st_size // 2)
        f.write(bytes([byte[0] ^ 0x40]))
    touch(path, was.st_mtime if later is None else was.st_mtime + later)


def touch(path, when):
    os.utime(path, (when, when))


@test
def bytes_changed_by_hand_are_found_when_asked():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        folder = good(hub, cache)
        for name in (WEIGHTS, "config.json"):
            damage(os.path.realpath(os.path.join(folder, name)))
            hub.forget()
            t = told(hub, cache, "--verify")
            equal((t["files_hashed"], t["files_damaged"], t["path"]), (len(NEEDED), 1, folder))
            check(f"{name} is damaged" in t["err"], t["err"])
            same(folder, repo)
        hub.forget()
        t = told(hub, cache, "--verify")
        equal((t["files_hashed"], t["files_damaged"]), (len(NEEDED), 0))
        equal(hub.requests(path="/resolve/"), [], "sound files were fetched again")


@test
def what_was_written_after_its_name_is_hashed_unasked():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        folder = good(hub, cache)
        blob = os.path.realpath(os.path.join(folder, WEIGHTS))
        equal(told(hub, cache)["files_hashed"], 0, "files hashed of a cache that nobody touched")
        damage(blob, later=10)
        t = told(hub, cache)
        equal((t["files_hashed"], t["files_damaged"]), (1, 1))
        same(folder, repo)
        # only touched: proved once, then no longer suspect
        link = os.path.join(folder, WEIGHTS)
        os.utime(link, (1e9, 1e9), follow_symlinks=False)
        for hashed in (1, 0):
            hub.forget()
            t = told(hub, cache)
            equal((t["files_hashed"], t["files_damaged"]), (hashed, 0))
            equal(hub.requests(path="/resolve/"), [], "fetched again")
    with fresh() as (hub, cache):
        tiny(hub)
        snapshot(hub, cache, allow_patterns=NEEDED)
        equal(told(hub, cache)["files_hashed"], 0, "files hashed of the Python client's cache")


@test
def without_the_hub_what_is_damaged_is_said_and_stays():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        folder = good(hub, cache)
        blob = os.path.realpath(os.path.join(folder, WEIGHTS))
        damage(blob, later=10)
        offline = {"HF_HUB_OFFLINE": "1"}
        bad(hub, cache, BAD_INPUT, f"{WEIGHTS}' of 'acme/tiny' is damaged in the cache", env=offline)
        check(os.path.exists(blob), "it was removed, and nothing came in its place")
        hub.forget()
        hub.faults.add(drop=True)
        bad(hub, cache, BAD_INPUT, "is damaged in the cache")
        hub.forget()
        same(good(hub, cache), repo)


@test
def a_copy_in_place_of_a_link():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        folder = good(hub, cache)
        name = os.path.join(folder, WEIGHTS)
        blob = os.path.realpath(name)
        os.unlink(name)
        shutil.move(blob, name)
        damage(name)
        t = told(hub, cache, "--verify")
        equal(t["files_damaged"], 1, t)
        same(folder, repo)


@test
def a_damaged_file_without_a_repository():
    with fresh() as (hub, cache):
        catalogue = os.path.join(os.path.dirname(cache), "models.json")
        with open(catalogue, "w", encoding="utf-8") as f:
            entry = {"path": "x.gguf", "format": "gguf", "size": "small", "description": "x"}
            json.dump({"mine": entry}, f)
        r = pull(hub, cache, "mine", "--verify", env={"ASHLEY_MODELS_FILE": catalogue})
        check(r.status == USAGE and "ashley verify" in r.err, r.status, r.err)


# clock_gettime(CLOCK_REALTIME) and time() so many seconds ahead.
AHEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *t)
{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int rc = real(id, t);
    if (id == CLOCK_REALTIME) t->tv_sec += SECONDS;
    return rc;
}
time_t time(time_t *out)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
"""


@contextlib.contextmanager
def clock_ahead(folder, seconds):
    """The environment of a process whose clock is ahead."""
    source, lib = os.path.join(folder, "ahead.c"), os.path.join(folder, "ahead.so")
    with open(source, "w", encoding="ascii") as f:
        f.write(AHEAD)
    subprocess.run(["cc", "-shared", "-fPIC", f"-DSECONDS={seconds}", "-o", lib, source, "-ldl"], check=True)
    yield {"LD_PRELOAD": lib}
    os.unlink(lib)


@test
def a_clock_that_was_set_back():
    """Fetched, loaded and measured in the year that a wrong clock said, and served again in the right one."""
    years = 20 * 365 * 86400
    with fresh() as (hub, cache):
        repository(hub)
        home = os.path.dirname(cache)
        with clock_ahead(home, years) as ahead:
            with serving(hub, cache, PRELOAD_MODELS="small", **ahead) as s:
                until(lambda: s.get("/readyz").status, 200)
                answers(s)
                started = json.loads(s.get("/v1/models/small").body)["status"]["started_at"]
                check(started > os.stat(home).st_mtime + years / 2, "the clock was not ahead", started)
        then = os.stat(home).st_mtime + years
        for folder in (cache, os.path.join(home, "state")):  # files' times are the kernel's
            for where, _, names in os.walk(folder):
                for name in names:
                    os.utime(os.path.join(where, name), (then, then), follow_symlinks=False)
                    touch(os.path.join(where, name), then)
        hub.forget()
        with serving(hub, cache, PRELOAD_MODELS="small") as s:
            until(lambda: s.get("/readyz").status, 200)
            answers(s)
            memory = json.loads(s.get("/readyz").body)["models"][0]["memory"]
            check(memory["measured"], "the ledger's row was not found", memory)
        equal(hub.requests(), [], "what is here was asked for")
        r = pull(hub, cache, "acme/small-GGUF:Q4_1", "--json")
        equal((r.status, json.loads(r.out)["bytes_fetched"]), (0, 0), r.err)
