#!/usr/bin/env python3
"""The way to an upstream: what Ashley adds to a request, how many it passes on, how many streams it holds.

    bench/proxy.py [--seconds 5] [--runs 3] [--streams 1000]      needs wrk (Debian) and a build with tests

targets: at most 150 us added at the 99th percentile, 15,000 requests a second on 2 cores, 1,000 streams

The upstream is build/bench/bench_upstream, which answers all with the same bytes; wrk asks it directly and
by way of Ashley in turns. Added latency is by one connection, so that nothing waits in a queue. At full load
client, Ashley and upstream share the processors: Ashley's own processor time of a request, and what two
cores of it would pass on, stand beside the rate. Streams bring ten events, one a second; all must come.
"""
import argparse
import os
import re
import resource
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile

from common import MIB, ROOT, Server, machine, memory, need, spread
from streams import processor_s

UPSTREAM = os.path.join(ROOT, "build", "bench", "bench_upstream")
BODY = '{"model":"openai","messages":[{"role":"user","content":"Hello!"}]%s}'
UNITS = {"us": 1, "ms": 1e3, "s": 1e6}


def start_upstream(*args):
    p = subprocess.Popen([UPSTREAM, *map(str, args)], stdout=subprocess.PIPE, text=True)
    return p, int(p.stdout.readline().split()[1])


def wrk(port, connections, seconds, script):
    """Requests a second, and the 50th and 99th percentile of latency in us."""
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", script,
                          f"http://127.0.0.1:{port}/v1/chat/completions"], capture_output=True, text=True,
                         check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        sys.exit(out)
    at = {p: float(v) * UNITS[u] for p, v, u in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", out)}
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), at["50"], at["99"]


def requests(o, s, upstream_port, script):
    added50, added99, direct, rate, cost = [], [], [], [], []
    for port in (upstream_port, s.port):
        wrk(port, 1, 1, script)
    for _ in range(o.runs):
        there, here = wrk(upstream_port, 1, o.seconds, script), wrk(s.port, 1, o.seconds, script)
        added50.append(here[1] - there[1])
        added99.append(here[2] - there[2])
        direct.append(wrk(upstream_port, 32, o.seconds, script)[0])
        used = processor_s(s.process.pid)
        rate.append(wrk(s.port, 32, o.seconds, script)[0])
        cost.append(1e6 * (processor_s(s.process.pid) - used) / (rate[-1] * o.seconds))
    print(f"added at the median, us             {spread(added50, 0)}")
    print(f"added at the 99th percentile, us    {spread(added99, 0)}")
    print(f"requests/s, upstream asked directly {spread(direct, 0)}")
    print(f"requests/s by way of Ashley         {spread(rate, 0)}")
    print(f"Ashley's processor, us a request    {spread(cost)}")
    print(f"  which two cores make, requests/s  {spread([2e6 / c for c in cost], 0)}")


def hold(port, n):
    """Reads n streams to their end: how many were whole, and when the last one had begun, in s."""
    body = (BODY % ',"stream":true').encode()
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode()
    texts, most = {}, 0
    with selectors.DefaultSelector() as ready:
        for _ in range(n):
            c = socket.create_connection(("127.0.0.1", port))
            c.sendall(head + body)
            ready.register(c, selectors.EVENT_READ)
            texts[c] = b""
        while ready.get_map():
            for key, _ in ready.select():
                got = key.fileobj.recv(1 << 16)
                texts[key.fileobj] += got
                if not got:
                    ready.unregister(key.fileobj)
                    key.fileobj.close()
            most = max(most, sum(b"word " in t and b"[DONE]" not in t for t in texts.values())
                       if len(ready.get_map()) == n else 0)
    return sum(b"[DONE]" in t and t.count(b"word ") == 9 for t in texts.values()), most


def streams(o):
    p, port = start_upstream(1000, 10)
    try:
        with Server(OPENAI_API_KEY="none", OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1",
                    DEFAULT_MODEL="openai") as s:
            s.wait_for("/livez")
            before = memory(s.process.pid)["rss"]
            whole, most = hold(s.port, o.streams)
            grown = memory(s.process.pid)["peak"] - before
            print(f"streams of {o.streams} that were whole       {whole}; running at one time {most}")
            print(f"Ashley's memory, KiB a stream       {grown / 1024 / o.streams:.1f} "
                  f"(resident before {before / MIB:.1f} MiB)")
    finally:
        p.terminate()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--seconds", type=int, default=5)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--streams", type=int, default=1000)
    o = p.parse_args()
    need(UPSTREAM, "configure the build with -Dtests=true")
    if not shutil.which("wrk"):
        sys.exit("wrk is not there: it is a package of Debian")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(machine() + "\nmedian (lowest-highest, runs)")
    upstream, port = start_upstream()
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"wrk.method = 'POST'\nwrk.body = '{BODY % ''}'\n"
                     "wrk.headers['Content-Type'] = 'application/json'\n")
        script.flush()
        try:
            with Server(OPENAI_API_KEY="none", OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1",
                        DEFAULT_MODEL="openai") as s:
                s.wait_for("/livez")
                requests(o, s, port, script.name)
        finally:
            upstream.terminate()
    streams(o)


if __name__ == "__main__":
    main()
