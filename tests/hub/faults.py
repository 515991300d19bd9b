"""What the test hub can do wrong, one answer at a time.

A Fault names the answers that it is for (side, method, a pattern of the path, how many of them to skip,
how many to spoil) and one thing to do to them. Faults are tried in the order they were added; the first
that fits acts. All that is random comes from the hub's seed.
"""

import dataclasses
import re


@dataclasses.dataclass
class Fault:
    path: str = ""  # a regular expression, searched in the decoded path
    side: str = ""  # "hub" or "cdn"; "": either
    method: str = ""  # "GET", "HEAD", "POST"; "": any
    skip: int = 0  # fits that many answers before it acts
    times: int = 1 << 30  # acts that often

    # Instead of the answer:
    status: int = 0
    headers: dict = dataclasses.field(default_factory=dict)  # of it, or over those of the true answer
    body: bytes = None  # with or without status
    drop: bool = False  # closes without a word
    circle: bool = False  # a redirect to itself
    # To the body of the answer; at is a position in the whole file, whatever range was asked:
    truncate: int = -1  # closes at
    truncate_random: bool = False  # closes somewhere
    stall: int = -1  # says nothing more from here on
    corrupt: int = -1  # that byte has another value
    oversize: int = 0  # that many bytes more than there are, announced too
    undersize: int = 0  # that many bytes fewer, announced too
    ignore_range: bool = False  # 200 and everything
    wrong_range: bool = False  # 206, but of bytes further on
    rate: int = 0  # bytes a second, of each connection
    before: object = None  # called with the hub before the answer is made; may change it

    def fits(self, side, method, path, first, end):
        """A fault at a byte is for an answer with that byte."""
        at = max(self.truncate, self.stall, self.corrupt)
        return (
            self.times > 0
            and (at < 0 or (method == "GET" and first <= at < end))
            and self.side in ("", side)
            and self.method in ("", method)
            and re.search(self.path, path) is not None
        )


class Faults:
    """The caller holds the hub's lock."""

    def __init__(self):
        self.all = []

    def add(self, **fields):
        fault = Fault(**fields)
        self.all.append(fault)
        return fault

    def clear(self):
        self.all = []

    def take(self, side, method, path, first, end):
        for f in self.all:
            if f.fits(side, method, path, first, end):
                if f.skip > 0:
                    f.skip -= 1
                    continue
                f.times -= 1
                return f
        return None
