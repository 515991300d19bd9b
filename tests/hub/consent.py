"""The question before what the catalogue warns of is fetched, on a terminal (pty(7)): what is answered, and
that nothing moves before."""

import fcntl
import json
import os
import pty
import select
import signal
import termios
import time

from harness import check, equal, test
from world import AUTH, DONE, blobs, fresh, same, start, tiny

INTERRUPTED = 128 + signal.SIGINT


class Terminal:
    """`ashley pull warned` with a terminal for input and messages."""

    def __init__(self, hub, cache, *words):
        models = os.path.join(os.path.dirname(cache), "models.json")
        entry = {"repo": "acme/tiny", "format": "safetensors", "size": "large", "description": "x"}
        with open(models, "w", encoding="utf-8") as f:
            json.dump({"warned": entry | {"warning": "It takes hours."}}, f)
        self.fd, slave = pty.openpty()
        self.text = ""
        own = {"ASHLEY_MODELS_FILE": models, "TERM": "dumb"}
        self.process = start(hub, cache, "warned", *words, env=own, stdin=slave, stderr=slave,
                             start_new_session=True,
                             preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))  # fmt: skip
        os.close(slave)

    def read(self, until, seconds=30):
        """Until that text is seen; False if it ended before."""
        end = time.monotonic() + seconds
        while until not in self.text:
            if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                return False
            try:
                got = os.read(self.fd, 4096)
            except OSError:  # nobody has the other side any more
                return False
            self.text += got.decode()
        return True

    def ended(self):
        self.read("\0")
        out, _ = self.process.communicate(timeout=60)
        os.close(self.fd)
        return self.process.returncode, out.rstrip("\n")


def answered(hub, cache, keys, status):
    """Types the keys at the question. What it printed, and the terminal's text."""
    t = Terminal(hub, cache)
    check(t.read("[y/N]"), "no question:", t.text)
    check("It takes hours." in t.text and "5 files, " in t.text and " free on this disk" in t.text, t.text)
    equal(hub.requests("cdn"), [], "bytes of large files before the answer")
    os.write(t.fd, keys)
    got, out = t.ended()
    equal(got, status, t.text)
    return out, t.text


@test
def yes_fetches():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        out, _ = answered(hub, cache, b"y\n", DONE)
        same(out, repo)
        t = Terminal(hub, cache)  # nothing is left to ask about
        equal(t.ended()[0], DONE, t.text)
        check("[y/N]" not in t.text, t.text)


@test
def anything_else_does_not():
    with fresh() as (hub, cache):
        tiny(hub)
        for keys in (b"n\n", b"\n", b"maybe\n", b"\x04"):  # the last one is the end of the input
            out, text = answered(hub, cache, keys, AUTH)
            check("without consent" in text and "--yes" in text and not out, keys, text)
            equal((hub.requests("cdn"), blobs(cache)), ([], []), "what was fetched without consent")


@test
def an_interrupt_at_the_question_ends_it():
    with fresh() as (hub, cache):
        tiny(hub)
        out, text = answered(hub, cache, b"\x03", INTERRUPTED)
        check("consent" not in text and not out, text)
        equal((hub.requests("cdn"), blobs(cache)), ([], []), "what was fetched without consent")


@test
def nobody_is_asked_who_said_so_before():
    with fresh() as (hub, cache):
        repo = tiny(hub)
        t = Terminal(hub, cache, "--quiet")  # a script that wants no words
        equal(t.ended()[0], AUTH, t.text)
        check("[y/N]" not in t.text and "--yes" in t.text, t.text)
        t = Terminal(hub, cache, "--yes")
        status, out = t.ended()
        equal(status, DONE, t.text)
        check("[y/N]" not in t.text, t.text)
        same(out, repo)
