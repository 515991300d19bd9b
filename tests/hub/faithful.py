"""The local hub is a faithful one: huggingface_hub works against it as against the real one."""

import os
import time

import huggingface_hub as hf
from huggingface_hub import errors

from content import git_blob
from harness import check, equal, test
from world import MIB, OTHER, SMALL, TOKEN, content_of, folder_of, fresh, gguf, tiny, weights

NO_TOKEN = False  # and not one of this machine's user


def snapshot(hub, cache, name="acme/tiny", token=NO_TOKEN, **more):
    return hf.snapshot_download(name, cache_dir=cache, endpoint=hub.url, token=token, max_workers=2, **more)


def download(hub, cache, path, name="acme/tiny", token=NO_TOKEN, **more):
    return hf.hf_hub_download(
        name, path, cache_dir=cache, endpoint=hub.url, token=token, etag_timeout=5, **more
    )


def metadata(hub, path, name="acme/tiny"):
    return hf.get_hf_file_metadata(hf.hf_hub_url(name, path, endpoint=hub.url), token=NO_TOKEN)


def raises(kind, call, *args, **more):
    try:
        call(*args, **more)
    except kind as e:
        return e
    raise AssertionError(f"no {kind.__name__}")


def hidden(call, *args, **more):
    """401 without a code: no such repository, or a private one. (Over https the client calls that
    RepositoryNotFoundError; it does not look at http addresses.)"""
    e = raises(errors.HfHubHTTPError, call, *args, **more)
    equal((e.response.status_code, e.response.headers.get("X-Error-Code")), (401, None))


def same_files(folder, repo, revision="main"):
    files = repo.commits[repo.find(revision)]
    got = sorted(
        os.path.relpath(os.path.join(d, n), folder) for d, _, names in os.walk(folder) for n in names
    )
    equal(got, sorted(files), "files of the snapshot")
    for path, f in files.items():
        with open(os.path.join(folder, path), "rb") as opened:
            check(opened.read() == content_of(f), "content of", path)
        blob = os.path.basename(os.path.realpath(os.path.join(folder, path)))
        equal(blob, f.etag, f"blob of {path}")


@test
def a_snapshot_is_whole_and_scans():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        same_files(snapshot(hub, cache), repo)
        same_files(snapshot(hub, cache, revision="v1"), repo, "v1")
        seen = hf.scan_cache_dir(cache)
        equal(list(seen.warnings), [], "warnings")
        (found,) = seen.repos
        equal(found.repo_id, "acme/tiny")
        equal({r.commit_hash for r in found.revisions}, {repo.find("main"), repo.find("v1")}, "commits")
        equal(set(found.refs), {"main", "v1"}, "refs")
        check(hub.requests("cdn", "GET"), "no large file came from the other origin")


@test
def a_snapshot_by_xets_bridge():
    with fresh() as (hub, cache):
        repo = tiny(hub, kind="xet")
        same_files(snapshot(hub, cache), repo)
        r = metadata(hub, "model.safetensors")
        equal(
            r.xet_file_data.file_hash,
            repo.commits[repo.find("main")]["model.safetensors"].xet,
            "X-Xet-Hash",
        )


@test
def one_file_of_a_revision_whose_name_has_slashes():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        path = download(hub, cache, "README.md", revision="refs/pr/1")
        equal(open(path, encoding="utf-8").read(), "# A proposal\n")
        path = download(hub, cache, "a folder/with ünïcode.txt", revision=repo.find("main"))
        check(path.endswith(f"{repo.find('main')}/a folder/with ünïcode.txt"), path)


@test
def metadata_tells_commit_etag_and_size():
    with fresh() as (hub, _):
        repo = tiny(hub)
        for path in ("config.json", "model.safetensors"):
            f = repo.commits[repo.find("main")][path]
            m = metadata(hub, path)
            equal((m.commit_hash, m.etag, m.size), (repo.find("main"), f.etag, f.size), path)
        equal(f.etag, f.sha256, "etag of a large file")
        # The one known value: git hash-object of an empty file.
        equal(git_blob(weights("empty", 0).content), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")


@test
def a_listing_in_pages():
    with fresh(page=7) as (hub, _):
        repo = hub.repo("acme/many")
        repo.commit({f"part-{n:03}/file.txt": f"{n}\n" for n in range(30)} | SMALL)
        api = hf.HfApi(endpoint=hub.url, token=NO_TOKEN)
        got = list(api.list_repo_tree("acme/many", recursive=True))
        files = {e.path: e for e in got if hasattr(e, "blob_id")}
        equal(sorted(files), sorted(repo.commits[repo.find("main")]), "files")
        equal(files["part-003/file.txt"].blob_id, repo.commits[repo.find("main")]["part-003/file.txt"].oid)
        equal(len(got) - len(files), 30, "folders")
        equal(len(hub.requests("hub", "GET", "/tree/")), (60 + len(SMALL) + 6) // 7, "pages")
        top = [e.path for e in api.list_repo_tree("acme/many")]
        check("part-003" in top and "part-003/file.txt" not in top, top)
        below = [e.path for e in api.list_repo_tree("acme/many", path_in_repo="part-003")]
        equal(below, ["part-003/file.txt"])


@test
def named_paths_and_the_repositorys_description():
    with fresh() as (hub, _):
        repo = tiny(hub)
        api = hf.HfApi(endpoint=hub.url, token=NO_TOKEN)
        got = api.get_paths_info("acme/tiny", ["model.safetensors", "original", "none"], expand=True)
        equal({e.path for e in got}, {"model.safetensors", "original"})
        lfs = next(e for e in got if e.path == "model.safetensors").lfs
        f = repo.commits[repo.find("main")]["model.safetensors"]
        equal((lfs.sha256, lfs.size), (f.sha256, f.size))
        equal(api.model_info("acme/tiny").sha, repo.find("main"))
        equal(api.model_info("acme/tiny", revision="v1").sha, repo.find("v1"))
        check(api.file_exists("acme/tiny", "config.json"), "a file that is there")
        check(not api.file_exists("acme/tiny", "none.json"), "one that is not")
        equal(hf.HfApi(endpoint=hub.url, token=TOKEN).whoami()["name"], "tester")


@test
def patterns_choose_files():
    with fresh() as (hub, cache):
        gguf(hub)
        folder = snapshot(hub, cache, "acme/tiny-GGUF", allow_patterns=["*Q4_K_M*"])
        equal(os.listdir(folder), ["tiny.Q4_K_M.gguf"])


@test
def refusals_are_told_apart():
    with fresh() as (hub, cache):
        tiny(hub)
        hidden(snapshot, hub, cache, "acme/none")
        raises(errors.RepositoryNotFoundError, snapshot, hub, cache, "acme/none", TOKEN)
        raises(errors.RevisionNotFoundError, snapshot, hub, cache, revision="none")
        raises(errors.EntryNotFoundError, download, hub, cache, "none.json")
        e = raises(errors.HfHubHTTPError, hf.HfApi(endpoint=hub.url, token="hf_wrong").whoami)
        equal(e.response.status_code, 401)
        hub.repo("acme/tiny").disabled = True
        raises(errors.DisabledRepoError, metadata, hub, "config.json")


@test
def private_and_gated_repositories():
    with fresh() as (hub, cache):
        secret, gated = tiny(hub, "acme/secret"), tiny(hub, "acme/gated")
        secret.private, gated.gated = True, "manual"
        secret.granted, gated.granted = {TOKEN}, {TOKEN}
        hidden(snapshot, hub, cache, "acme/secret")
        raises(errors.RepositoryNotFoundError, snapshot, hub, cache, "acme/secret", OTHER)
        same_files(snapshot(hub, cache, "acme/secret", TOKEN), secret)
        raises(errors.GatedRepoError, download, hub, cache, "config.json", "acme/gated")
        raises(errors.GatedRepoError, download, hub, cache, "config.json", "acme/gated", OTHER)
        check(
            hf.HfApi(endpoint=hub.url, token=NO_TOKEN).model_info("acme/gated").gated == "manual", "gated"
        )
        same_files(snapshot(hub, cache, "acme/gated", TOKEN), gated)
        equal({r.authorization for r in hub.requests("cdn")}, {None}, "what the other origin was shown")
        check(
            f"Bearer {TOKEN}" in {r.authorization for r in hub.requests("hub")},
            "the hub never saw the token",
        )


@test
def a_renamed_repository():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        hub.renamed["old/name"] = "acme/tiny"
        same_files(snapshot(hub, cache, "old/name"), repo)
        check(
            os.path.isdir(folder_of(cache, "old/name")),
            "the cache has it under the name that was asked for",
        )


@test
def without_network_the_cache_answers():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        folder = snapshot(hub, cache)
        hub.forget()
        equal(snapshot(hub, cache, local_files_only=True), folder)
        equal(
            download(hub, cache, "config.json", local_files_only=True), os.path.join(folder, "config.json")
        )
        raises(errors.LocalEntryNotFoundError, download, hub, cache, "none.json", local_files_only=True)
        equal(hub.requests(), [], "requests")
        hub.faults.add(drop=True)
        equal(snapshot(hub, cache, revision=repo.find("main")), folder)


@test
def a_body_that_ends_early_goes_on_by_range():
    with fresh() as (hub, cache):
        repo = tiny(hub, size=23 * MIB)
        hub.faults.add(side="cdn", truncate=22 * MIB, times=1)  # the client writes 10 MiB at a time
        path = download(hub, cache, "model.safetensors")
        check(
            open(path, "rb").read() == content_of(repo.commits[repo.find("main")]["model.safetensors"]),
            "content",
        )
        equal([r.range for r in hub.requests("cdn", "GET")][1:], [f"bytes={20 * MIB}-"], "ranges")


@test
def signed_addresses_end():
    with fresh(expires=1) as (hub, _):
        tiny(hub)
        m = metadata(hub, "model.safetensors")
        session = hf.get_session()
        equal(session.get(m.location, headers={"Range": "bytes=0-9"}).status_code, 206)
        equal(session.get(m.location + "0").status_code, 403, "another signature")
        equal(session.get(m.location, headers={"Authorization": f"Bearer {TOKEN}"}).status_code, 400)
        time.sleep(1.1)
        equal(session.get(m.location).status_code, 403, "late")


@test
def the_hub_may_ask_to_wait():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        hub.faults.add(side="cdn", status=429, headers={"Retry-After": "1"}, times=1)
        begin = time.monotonic()
        path = download(hub, cache, "model.safetensors")
        check(time.monotonic() - begin >= 1, "it did not wait")
        equal(os.path.getsize(path), repo.commits[repo.find("main")]["model.safetensors"].size)
