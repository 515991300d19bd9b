"""`ashley serve` over the local hub: what it fetches by itself, at preload and on demand."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import threading
import time

import harness
from harness import check, equal, error_of, test
from server import File
from world import ROOT, blobs, environment, folder_of, fresh, good

MODEL = os.path.join(ROOT, "models", "SmolLM2-135M-Instruct.Q4_1.gguf")


def repository(hub, name="acme/small-GGUF"):
    with open(MODEL, "rb") as f:
        hub.repo(name).commit({"README.md": "# Small\n", "small.Q4_1.gguf": File("small", f.read(), "lfs")})


@contextlib.contextmanager
def serving(hub, cache, models=None, **env):
    home = os.path.dirname(cache)
    catalogue = os.path.join(home, "models.json")
    with open(catalogue, "w", encoding="utf-8") as f:
        entry = {"repo": "acme/small-GGUF", "format": "gguf", "size": "small", "description": "x",
                 "context": 512}
        json.dump(models or {"small": entry, "warned": entry | {"warning": "It is large."}}, f)
    env = {"ASHLEY_MODELS_FILE": catalogue, "ASHLEY_PORT": "0", "DEFAULT_MODEL": "small",
           "ASHLEY_STATE_DIR": os.path.join(home, "state")} | env
    s = harness.Server(harness.ARGS.binary, "serve", cwd=home, env=environment(hub, cache, **env),
                       stdin=subprocess.DEVNULL)
    try:
        yield s
    finally:
        s.stop()


def until(what, value, seconds=60):
    end = time.monotonic() + seconds
    while (got := what()) != value and time.monotonic() < end:
        time.sleep(0.02)
    equal(got, value)


def entry_of(s, model="small"):
    return next(m for m in json.loads(s.get("/models").body)["data"] if m["id"] == model)["status"]


def answers(s, model="small"):
    r = s.chat(model=model, max_tokens=4)
    equal(r.status, 200, r.body)
    check(json.loads(r.body)["choices"][0]["message"]["content"], r.body)


@test
def a_preload_that_is_not_here_is_fetched_and_loaded():
    with fresh() as (hub, cache):
        repository(hub)
        with serving(hub, cache, PRELOAD_MODELS="small,acme/small-GGUF:Q4_1") as s:
            until(lambda: s.get("/readyz").status, 200)
            answers(s)
            answers(s, "acme/small-GGUF:Q4_1")
        hub.forget()
        with serving(hub, cache, PRELOAD_MODELS="small", HF_HUB_OFFLINE="1") as s:
            until(lambda: s.get("/readyz").status, 200)
        equal(hub.requests(), [], "requests for what is here")


@test
def the_first_request_fetches_and_its_progress_is_shown():
    with fresh() as (hub, cache):
        repository(hub)
        hub.faults.add(side="cdn", rate=2_000_000)
        with serving(hub, cache) as s:
            equal(s.get("/readyz").status, 200)
            equal((entry_of(s)["value"], hub.requests()), ("unloaded", []))
            got = []
            asked = [threading.Thread(target=lambda: got.append(s.chat(model="small"))) for _ in range(2)]
            for t in asked:
                t.start()
            until(lambda: entry_of(s)["value"], "downloading")
            # far enough for whole chunks on every connection
            until(lambda: entry_of(s)["bytes_done"] > 48 << 20, True)
            e = entry_of(s)
            equal((e["stage"], e["bytes_total"]), ("fetch", os.path.getsize(MODEL)))
            # cancelled: the waiting requests end at once, what is proved stays
            equal(s.post("/models/cancel", {"model": "small"}).status, 200)
            until(lambda: entry_of(s)["value"], "unloaded")
            for t in asked:
                t.join()
            for reply in got:
                error_of(reply, 503, "load_canceled")
            check(any(b.endswith(".journal") for b in blobs(cache, "acme/small-GGUF")), "no journal")
            hub.forget()
            answers(s)
            check(hub.sent["cdn"] < os.path.getsize(MODEL), "what was proved was fetched again")
            equal(len(hub.requests("hub", "GET", "/tree/")), 1, "listings of one download")


@test
def a_preload_that_is_fetched_has_the_share_that_the_plan_says():
    with fresh() as (hub, cache):
        repository(hub)
        models = {"here": {"path": MODEL, "context": 8192},
                  "small": {"repo": "acme/small-GGUF", "context": 512}}
        env = {"PRELOAD_MODELS": "here,small", "ASHLEY_MEMORY_BUDGET": "600MB"}
        with serving(hub, cache, models, **env) as s:
            until(lambda: entry_of(s)["value"], "loaded")
            until(lambda: entry_of(s, "here")["value"], "loaded")
            got = {x: entry_of(s, x)["memory"]["charged"] for x in models}
        shutil.rmtree(folder_of(cache, "acme/small-GGUF"))
        env |= {"ASHLEY_MODELS_FILE": os.path.join(os.path.dirname(cache), "models.json")}
        p = subprocess.run([harness.ARGS.binary, "plan", "--json"], env=environment(hub, cache, **env),
                           cwd=os.path.dirname(cache), capture_output=True, timeout=60, check=False)
        said = {m["model"]: m for m in json.loads(p.stdout)["models"]}
        equal([said[x]["verdict"] for x in models], ["ready", "fits"])
        for x in models:  # but for what was measured, and the blocks that a pool consists of
            check(abs(said[x]["resident_bytes"] / got[x] - 1) < 0.1, x, said[x], got)


def unload(s, model="small"):
    equal(s.post("/models/unload", {"model": model}).status, 200)
    until(lambda: entry_of(s, model)["value"], "unloaded")


@test
def what_others_took_away_is_fetched_again():
    with fresh() as (hub, cache):
        repository(hub)
        with serving(hub, cache) as s:
            answers(s)
            unload(s)
            shutil.rmtree(folder_of(cache, "acme/small-GGUF"))
            error_of(s.chat(model="warned"), 503, "consent_needed")
            answers(s)
            unload(s)
            shutil.rmtree(folder_of(cache, "acme/small-GGUF"))
            until(lambda: s.post("/models", {"model": "small"}) and entry_of(s)["value"], "downloaded")
            answers(s)
            unload(s)
            for name in blobs(cache, "acme/small-GGUF"):  # the links stay
                os.unlink(os.path.join(folder_of(cache, "acme/small-GGUF"), "blobs", name))
            answers(s)
            unload(s)
            shutil.rmtree(folder_of(cache, "acme/small-GGUF"))
            hub.faults.add(status=404, body=b"")
            error_of(s.chat(model="small"), 503, "not_downloaded")


@test
def a_fetch_that_another_process_does_says_so():
    with fresh() as (hub, cache):
        repository(hub)
        files = hub.repos["acme/small-GGUF"].commits[hub.repos["acme/small-GGUF"].find("main")]
        locks = os.path.join(cache, ".locks", "models--acme--small-GGUF")
        os.makedirs(locks)
        with open(os.path.join(locks, files["small.Q4_1.gguf"].sha256 + ".lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # as the Python client holds it
            with serving(hub, cache) as s:
                equal(s.post("/models/load", {"model": "small"}).status, 200)
                until(lambda: entry_of(s)["waits"], "for another process, which fetches it")
                url = f"http://127.0.0.1:{s.port}"
                out = subprocess.run([harness.ARGS.binary, "ps", "--url", url], env=environment(hub, cache),
                                     capture_output=True, text=True, timeout=20).stdout
                check("waits for another process" in out, out)
                fcntl.flock(lock, fcntl.LOCK_UN)
                until(lambda: entry_of(s)["value"], "loaded")
                equal(entry_of(s)["waits"], None)


@test
def what_is_put_there_later_is_found():
    with fresh() as (hub, cache):
        repository(hub)
        home = os.path.dirname(cache)
        entry = {"format": "gguf", "size": "small", "description": "x", "context": 512}
        models = {"small": entry | {"repo": "acme/small-GGUF"}, "near": entry | {"path": "near.gguf"}}
        with serving(hub, cache, models, HF_HUB_OFFLINE="1", PRELOAD_MODELS="near") as s:
            for model in models:
                error_of(s.chat(model=model), 503, "not_downloaded")
                error_of(s.post("/models/load", {"model": model}), 404, "not_downloaded")
                equal(entry_of(s, model)["can"], ["retry"])
            good(hub, cache, "small", env={"ASHLEY_MODELS_FILE": os.path.join(home, "models.json")})
            answers(s)
            shutil.copy(MODEL, os.path.join(home, "near.gguf"))
            equal(s.post("/models/retry", {"model": "near"}).status, 200)
            until(lambda: entry_of(s, "near")["value"], "loaded")
            equal(s.get("/readyz").status, 200)


@test
def what_cannot_be_fetched_says_why():
    with fresh() as (hub, cache):
        repository(hub)
        hub.repo("acme/gated").commit({"m.gguf": File("m", b"GGUF", "lfs")})
        hub.repos["acme/gated"].gated = "manual"
        entry = {"repo": "acme/small-GGUF", "format": "gguf", "size": "small", "description": "x"}
        models = {"small": entry | {"context": 512}, "warned": entry | {"warning": "It is large."},
                  "gated": entry | {"repo": "acme/gated"}, "lost": entry | {"files": ["none.gguf"]}}
        with serving(hub, cache, models) as s:
            for model, code in (("warned", "consent_needed"), ("gated", "gated"), ("lost", "not_downloaded")):
                error_of(s.chat(model=model), 503, code)
                equal(entry_of(s, model)["error"]["code"], code)
            answers(s)
        with serving(hub, cache, models, HF_HUB_OFFLINE="1", HF_HUB_CACHE=cache + "2") as s:
            error_of(s.chat(model="small"), 503, "not_downloaded")
            for model in ("small", "acme/other-GGUF"):
                r = s.post("/models", {"model": model})
                check("HF_HUB_OFFLINE is set" in error_of(r, 404, "not_downloaded")["message"], r.body)
        preload = json.dumps([{"model": "warned", "confirm": True}])
        with serving(hub, cache, models, PRELOAD_MODELS=preload, HF_HUB_CACHE=cache + "3") as s:
            until(lambda: s.get("/readyz").status, 200)
