"""Run by pull_disk.py in a network of its own: a hub at a public address whose files are said to be at a
private one, and one whose files are at another public one. Exit 0 if the first is refused and the second
is not."""

import fcntl
import os
import socket
import struct
import sys
import types

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "http"))
import harness  # noqa: E402
from server import Hub
from world import NETWORK, TOKEN, bad, good, same, tiny

SIOCSIFADDR, SIOCSIFFLAGS, IFF_UP = 0x8916, 0x8914, 1


def give_address(name, address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        where = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(s, SIOCSIFADDR, struct.pack("16s16s8x", name, where))
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH22x", name, IFF_UP))


def main():
    harness.ARGS = types.SimpleNamespace(binary=sys.argv[1])
    give_address(b"lo", "127.0.0.1")
    give_address(b"lo:1", "198.51.100.1")
    give_address(b"lo:2", "203.0.113.1")
    with Hub(host="198.51.100.1", cdn_host="127.0.0.1") as hub:
        tiny(hub)
        bad(hub, sys.argv[2] + "1", NETWORK, "redirects to the private address 127.0.0.1: refused")
        harness.equal(hub.requests("cdn"), [], "requests to the private address")
        port = hub.cdn.server_address[1]
        for host in (
            "0x7f.1",
            "2130706433",
            "localhost",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "10.0.0.1",
        ):
            hub.cdn_url = f"http://{host}:{port}"
            bad(hub, sys.argv[2] + "2", NETWORK, "private")
        harness.equal(hub.requests("cdn"), [], "requests to the private address by another name")
    with Hub(host="198.51.100.1", cdn_host="203.0.113.1") as hub:
        repo = tiny(hub)
        hub.tokens.add(TOKEN)
        same(good(hub, sys.argv[2] + "3", env={"HF_TOKEN": TOKEN}), repo)
        harness.equal({r.authorization for r in hub.requests("cdn")}, {None}, "what the other host saw")


if __name__ == "__main__":
    main()
