"""POST and DELETE /models: what is refused, and how."""

import json

from harness import check, equal, error_of, fake, test


def delete(s, body=None, query=""):
    return s.request("DELETE", "/models" + query, json.dumps(body).encode() if body is not None else None)


@test
def a_download_answers_at_once():
    s = fake()
    for body in ({"model": "cold"}, {"model": "cold:latest"}, {"model": "broken", "confirm": True}):
        r = s.post("/models", body)
        equal(r.status, 200, r.body)
        got = json.loads(r.body)
        equal((got["success"], got["status"]["model"]), (True, got["model"]), got)
    error_of(s.post("/v1/models", {"model": "broken"}), 403, "consent_needed", "confirm")


@test
def downloads_that_are_refused():
    s = fake("--upstream")
    for name in ("nobody", "../x", "/etc/passwd", "org/..", "x" * 300, "a/b/c"):
        error_of(s.post("/models", {"model": name}), 404, "model_not_found", "model")
    for body in ({}, {"model": ""}, {"model": None}, {"model": 7}, {"model": ["a"]}, {"model": "openai"}):
        error_of(s.post("/models", body), 400, None, "model")
    error_of(s.post("/models", {"model": "cold", "confirm": "yes"}), 400, None, "confirm")
    for text in (b"", b"{", b"[]", b'{"model":"cold"} x', b'{"model":"a","model":"b"}', b"\xff"):
        equal(s.request("POST", "/models", text).status, 400, text)
    error_of(s.post("/models/pause", {"model": "cold"}), 400, param="model")
    error_of(s.post("/models/pause", {"model": "nobody"}), 404, "model_not_found", "model")


@test
def removals():
    s = fake()
    for r in (delete(s, {"model": "cold"}), delete(s, None, "?model=cold")):
        equal((r.status, json.loads(r.body)), (200, {"success": True, "model": "cold", "bytes": 1000}))
    error_of(delete(s, {"model": "tiny"}), 409, "model_in_use", "model")
    error_of(delete(s, {"model": "org/split"}), 400, "not_in_cache", "model")
    error_of(delete(s, {"model": "broken"}), 404, "not_downloaded", "model")
    error_of(delete(s, {"model": "org/none"}), 404, "model_not_found", "model")
    e = error_of(delete(s, {"model": "ashley"}), 400, None, "model")
    check("'tiny'" in e["message"], e)
    error_of(delete(s), 400)
    equal(s.request("DELETE", "/models", b"{").status, 400)
