"""`ashley pull` over the local hub: what it fetches, and that the Python client and it read each other's
caches."""

import json
import os
import re
import subprocess
import threading

import huggingface_hub as hf

import harness
from content import Made
from faithful import NO_TOKEN, download, snapshot
from harness import check, equal, test
from server import File
from world import AUTH, BAD_INPUT, CHUNK, DONE, MIB, NEEDED, NOT_FOUND, OTHER, SMALL, TOKEN, USAGE
from world import bad, blobs, content_of, environment, folder_of, fresh, gguf, good, pull, same, tiny


@test
def what_it_wrote_the_python_client_reads():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        folder = good(hub, cache, "acme/tiny")
        same(folder, repo)
        hub.forget()
        equal(snapshot(hub, cache, local_files_only=True), folder)
        equal(
            download(hub, cache, "config.json", local_files_only=True), os.path.join(folder, "config.json")
        )
        equal(hub.requests(), [], "requests of the offline client")
        seen = hf.scan_cache_dir(cache)
        equal(list(seen.warnings), [], "warnings")
        (found,) = seen.repos
        equal((found.repo_id, found.nb_files, set(found.refs)), ("acme/tiny", len(NEEDED), {"main"}))
        files = repo.commits[repo.find("main")]
        equal(found.size_on_disk, sum(files[p].size for p in NEEDED), "size")
        snapshot(hub, cache)
        names = " ".join(r.path for r in hub.requests("cdn", "GET"))
        check(files["model.safetensors"].sha256 not in names, "the Python client fetched the weights again")
        equal(good(hub, cache, "acme/tiny"), folder, "after the Python client's own")


@test
def what_the_python_client_wrote_it_reads():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        folder = snapshot(hub, cache, allow_patterns=NEEDED)
        hub.forget()
        equal(good(hub, cache, "acme/tiny", env={"HF_HUB_OFFLINE": "1"}), folder)
        equal(hub.requests(), [], "requests")
        equal(good(hub, cache, "acme/tiny"), folder)
        equal(hub.requests(path="/resolve/"), [], "files fetched")
        hub.faults.add(drop=True)
        equal(good(hub, cache, "acme/tiny"), folder, "while the hub does not answer")
        same(folder, repo)


@test
def what_the_python_client_began_it_ends():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        download(hub, cache, "config.json")
        download(hub, cache, "model.safetensors", revision="v1")
        hub.forget()
        same(good(hub, cache, "acme/tiny"), repo)
        equal(hub.requests(path="/resolve/.*/config.json"), [], "config.json, which was there")


@test
def without_network_what_is_missing_is_said():
    with fresh() as (hub, cache):
        tiny(hub)
        bad(
            hub,
            cache,
            NOT_FOUND,
            "HF_HUB_OFFLINE is set: 'acme/tiny' at revision 'main' is not in the cache",
            env={"HF_HUB_OFFLINE": "1"},
        )
        download(hub, cache, "config.json")
        hub.forget()
        bad(hub, cache, NOT_FOUND, "acme/tiny", env={"HF_HUB_OFFLINE": "1"})
        equal(hub.requests(), [], "requests")


@test
def one_quantisation_of_several():
    with fresh() as (hub, cache):
        repo = gguf(hub)
        path = good(hub, cache, "acme/tiny-GGUF")
        equal(os.path.basename(path), "tiny.Q4_K_M.gguf")
        same(os.path.dirname(path), repo, ["tiny.Q4_K_M.gguf"])
        path = good(hub, cache, "acme/tiny-GGUF:bf16")
        equal(os.path.basename(path), "tiny-BF16-00001-of-00002.gguf")
        parts = [f"BF16/tiny-BF16-0000{n}-of-00002.gguf" for n in (1, 2)]
        same(os.path.dirname(os.path.dirname(path)), repo, ["tiny.Q4_K_M.gguf", *parts])
        bad(hub, cache, NOT_FOUND, "Q5_K_M.*tiny.Q8_0.gguf", "acme/tiny-GGUF:Q5_K_M")


@test
def revisions_are_pinned_to_commits():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        same(good(hub, cache, "acme/tiny", "--revision", "v1"), repo, revision="v1")
        same(good(hub, cache, "acme/tiny", "--revision", "refs/pr/1"), repo, revision="refs/pr/1")
        same(good(hub, cache, "acme/tiny", "--revision", repo.find("main")), repo)
        for name in ("v1", "refs/pr/1"):
            with open(os.path.join(folder_of(cache, "acme/tiny"), "refs", name), encoding="ascii") as f:
                equal(f.read(), repo.find(name), f"refs/{name}")
        check(not os.path.exists(os.path.join(folder_of(cache, "acme/tiny"), "refs", "main")), "refs/main")
        bad(hub, cache, NOT_FOUND, "no revision 'none'", "acme/tiny", "--revision", "none")
        bad(hub, cache, USAGE, "revision", "acme/tiny", "--revision", "../../x")


@test
def a_branch_that_moves():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        good(hub, cache, "acme/tiny")
        files = dict(repo.commits[repo.find("main")])
        repo.commit(files | {"config.json": SMALL["config.json"] + " "})
        hub.forget()
        same(good(hub, cache, "acme/tiny"), repo)
        equal(hub.requests("cdn"), [], "weights, which did not change")


@test
def a_listing_of_many_pages():
    with fresh(page=3) as (hub, cache):
        repo = hub.repo("acme/many")
        files = {f"logs/{n:03}.txt": f"{n}" for n in range(40)} | SMALL
        files |= {"model.safetensors": Made("m", 3 * MIB), "added_tokens.json": b"", "merges.txt": b""}
        repo.commit(files)  # two of them are empty, and one blob
        same(good(hub, cache, "acme/many"), repo, sorted([*NEEDED, "added_tokens.json", "merges.txt"]))


@test
def several_shards_and_xet():
    with fresh() as (hub, cache):
        repo = hub.repo("acme/shards")
        shards = {
            f"model-0000{n}-of-00004.safetensors": File("", Made(f"shard {n}", 5 * MIB + n), "xet")
            for n in (1, 2, 3, 4)
        }
        index = {"model.safetensors.index.json": json.dumps({"weight_map": {}})}
        repo.commit(SMALL | index | shards | {"onnx/model.onnx": "x"})
        wanted = [p for p in NEEDED if p != "model.safetensors"] + [*index, *shards]
        same(good(hub, cache, "acme/shards"), repo, sorted(wanted))


@test
def a_renamed_repository():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        hub.renamed["old/name"] = "acme/tiny"
        folder = good(hub, cache, "old/name")
        same(folder, repo)
        equal(snapshot(hub, cache, "old/name", local_files_only=True), folder)


@test
def private_gated_and_missing_repositories():
    with fresh() as (hub, cache):
        secret, gated = tiny(hub, "acme/secret"), tiny(hub, "acme/gated")
        secret.private, gated.gated = True, "manual"
        secret.granted, gated.granted = {TOKEN}, {TOKEN}
        bad(hub, cache, AUTH, "private, gated or does not exist.*HF_TOKEN", "acme/secret")
        bad(hub, cache, NOT_FOUND, "no repository", "acme/secret", env={"HF_TOKEN": OTHER})
        bad(hub, cache, AUTH, "gated.*accept its terms.*acme/gated.*HF_TOKEN", "acme/gated")
        bad(hub, cache, AUTH, "gated.*accept its terms", "acme/gated", env={"HF_TOKEN": OTHER})
        bad(hub, cache, AUTH, "does not accept HF_TOKEN", "acme/secret", env={"HF_TOKEN": "hf_wrong"})
        bad(hub, cache, AUTH, "private, gated or does not exist", "acme/none")
        same(good(hub, cache, "acme/secret", env={"HF_TOKEN": TOKEN}), secret)
        same(good(hub, cache, "acme/gated", env={"HF_TOKEN": TOKEN}), gated)
        gated.disabled = True
        bad(hub, cache, AUTH, "disabled", "acme/gated", env={"HF_TOKEN": TOKEN})


@test
def the_token_comes_from_a_file_and_goes_to_the_hub_alone():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        repo.private, repo.granted = True, {TOKEN}
        home = os.path.join(os.path.dirname(cache), "hf")
        os.mkdir(home)
        with open(os.path.join(home, "token"), "w", encoding="ascii") as f:
            f.write(TOKEN + "\n")
        same(good(hub, cache, "acme/tiny", env={"HF_HOME": home}), repo)
        equal({r.authorization for r in hub.requests("hub")}, {f"Bearer {TOKEN}"}, "at the hub")
        equal({r.authorization for r in hub.requests("cdn")}, {None}, "elsewhere")
        check(hub.requests("cdn"), "nothing was elsewhere")
        hub.forget()
        # A hub that hands its callers on, whatever they ask for.
        for path in ("/revision/", "/tree/", "/resolve/"):
            hub.faults.clear()
            hub.faults.add(side="hub", path=path, status=307, headers={"Location": hub.cdn_url + "/trap"})
            pull(hub, os.path.join(cache, path.strip("/")), "acme/tiny", env={"HF_HOME": home})
        equal({r.authorization for r in hub.requests("cdn")} - {None}, set(), "at the trap")


@test
def what_it_prints_for_programs():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        size = sum(repo.commits[repo.find("main")][p].size for p in NEEDED)
        r = pull(hub, cache, "acme/tiny", "--json", "--progress", "json")
        told = json.loads(r.out)
        equal((told["commit"], told["files"], told["bytes"]), (repo.find("main"), len(NEEDED), size))
        equal(told["bytes_fetched"], size)
        same(told["path"], repo)
        for line in r.err.splitlines():
            json.loads(line)
        again = json.loads(pull(hub, cache, "acme/tiny", "--json", "--quiet").out)
        equal(again["bytes_fetched"], 0)
        hub.faults.add(side="cdn", rate=MIB)
        lines = pull(hub, cache, "acme/tiny", "--revision", "v1").err.splitlines()
        told = r"acme/tiny: fetch [\d.]+ .?B of [\d.]+ MB, .*/s, \d+ s left"
        far = [x for x in lines if re.fullmatch(told, x)]
        check(lines[0] == "acme/tiny: fetch" and 1 <= len(far) <= 10, "a log sees how far it is:", lines)


@test
def other_revisions_are_removed_by_the_repository_name():
    with fresh() as (hub, cache):
        tiny(hub)
        for revision in "v1", "refs/pr/1":
            good(hub, cache, "acme/tiny", "--revision", revision)
        r = pull(hub, cache, "acme/tiny")  # most of it is here
        equal(r.status, DONE, r.err)
        check("another process" not in r.err, "nobody else fetches:", r.err)

        def remove():
            words, where = ["rm", "acme/tiny", "--yes"], os.path.dirname(cache)
            return subprocess.run([harness.ARGS.binary, *words], env=environment(hub, cache), cwd=where,
                                  capture_output=True, timeout=60)

        def snapshots():
            return len(os.listdir(os.path.join(folder_of(cache, "acme/tiny"), "snapshots")))

        equal((remove().returncode, snapshots()), (0, 2), "its own revision goes first")
        equal((remove().returncode, os.path.exists(folder_of(cache, "acme/tiny"))), (0, False))
        equal(remove().returncode, NOT_FOUND)


@test
def two_processes_make_one_download():
    with fresh() as (hub, cache):
        repo = tiny(hub, size=24 * MIB)
        hub.faults.add(side="cdn", method="GET", rate=16 * MIB)
        results = []
        many = [
            threading.Thread(target=lambda: results.append(pull(hub, cache, "acme/tiny"))) for _ in range(3)
        ]
        for t in many:
            t.start()
        for t in many:
            t.join()
        equal([r.status for r in results], [0, 0, 0], [r.err[-300:] for r in results])
        same(results[0].out.strip(), repo)
        check(hub.sent["cdn"] <= 24 * MIB + CHUNK, hub.sent["cdn"], "bytes were sent")


@test
def the_python_client_and_it_wait_for_each_other():
    with fresh() as (hub, cache):
        repo = tiny(hub, size=12 * MIB)
        hub.faults.add(side="cdn", method="GET", rate=8 * MIB)
        theirs = []
        t = threading.Thread(target=lambda: theirs.append(snapshot(hub, cache, allow_patterns=NEEDED)))
        t.start()
        while not [b for b in blobs(cache) if b.endswith(".incomplete")]:
            t.join(0.01)
        same(good(hub, cache, "acme/tiny"), repo)
        t.join()
        same(theirs[0], repo)
        check(hub.sent["cdn"] <= 12 * MIB + CHUNK, hub.sent["cdn"], "bytes were sent")


@test
def names_that_are_none():
    with fresh() as (hub, cache):
        for name in ("acme/a--b", "acme/..", "acme/x.git", "acme/" + "x" * 200, "acme/.hidden"):
            r = pull(hub, cache, name)
            check(r.status in (USAGE, NOT_FOUND, BAD_INPUT), name, r.status, r.err)
        equal(hub.requests(), [], "requests")


@test
def content_of_a_large_file_is_what_is_promised():
    """The maker of large files itself: any cut of them is the same as the whole."""
    f = File("x", Made("x", 3 * MIB + 5, head=b"head"))
    whole = content_of(f)
    equal(len(whole), f.size)
    for first, end in ((0, 3), (2, 9), (MIB - 3, MIB + 20), (MIB + 7, 2 * MIB + 1), (3 * MIB, f.size)):
        equal(b"".join(bytes(p) for p in f.content.pieces(first, end)), whole[first:end], f"{first}-{end}")
    check(NO_TOKEN is False, "tests must not use the token of who runs them")
