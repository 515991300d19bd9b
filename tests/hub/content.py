"""The bytes of the test hub's files: made from a seed while they are sent, so that gigabytes need no
disk.

A large file is blocks of 1 MiB: the same seeded bytes in all of them but for the first 16, which hold
the file's name and the block's number. A block in the wrong place, of another file or out of order is
therefore noticed.
"""

import functools
import hashlib
import random
import struct

BLOCK = 1 << 20


@functools.lru_cache(maxsize=8)
def _base(seed):
    return random.Random(seed).randbytes(BLOCK)


class Bytes:
    """A small file: bytes as they are."""

    def __init__(self, data):
        self.data = data.encode() if isinstance(data, str) else bytes(data)
        self.size = len(self.data)

    def pieces(self, first, end):
        yield memoryview(self.data)[first:end]

    @functools.cached_property
    def sha256(self):
        return hashlib.sha256(self.data).hexdigest()


class Made:
    """A large file of `size` bytes that exists nowhere; head (may be empty) is what it begins with.
    sha256: what is announced, for trees that nobody fetches; None: the true one, which takes a
    second per GB."""

    def __init__(self, name, size, seed=1, head=b"", sha256=None):
        self.size = size
        self.mark = hashlib.sha256(name.encode()).digest()[:8]
        self.base = memoryview(_base(seed))
        self.head = head
        assert len(head) <= size
        if sha256:
            self.sha256 = sha256  # instead of the property

    def pieces(self, first, end):
        """Buffers that make up bytes [first, end), of any lengths."""
        if first < len(self.head):
            yield memoryview(self.head)[first:end]
            first = len(self.head)
        while first < end:
            block, at = divmod(first, BLOCK)
            stop = min(end - block * BLOCK, BLOCK)
            if at < 16:
                mark = self.mark + struct.pack("<Q", block)
                yield memoryview(mark)[at : min(16, stop)]
                at = min(16, stop)
            if at < stop:
                yield self.base[at:stop]
            first = block * BLOCK + stop

    @functools.cached_property
    def sha256(self):
        h = hashlib.sha256()
        for piece in self.pieces(0, self.size):
            h.update(piece)
        return h.hexdigest()


def git_blob(content):
    """Git's SHA-1 of a file."""
    h = hashlib.sha1(b"blob %d\0" % content.size)
    for piece in content.pieces(0, content.size):
        h.update(piece)
    return h.hexdigest()


def lfs_pointer(content):
    """What git itself holds in place of a large file."""
    return Bytes(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{content.sha256}\nsize {content.size}\n"
    )
