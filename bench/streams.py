#!/usr/bin/env python3
"""The HTTP server alone, over the parts without models of tests/http: events per second of one stream, many
streams at once, and how soon a client that leaves while it waits is noticed.

    bench/streams.py [--fake build/tests/http/fake_server] [--streams 500]

The reader is Python and shares the processor; the server's own processor time is shown beside the clock.
"""
import argparse
import json
import os
import queue
import resource
import selectors
import socket
import subprocess
import threading
import time

from common import MIB, ROOT, machine, memory, need, spread


def post(port, ident, stream, **fake):
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream, "fake": fake}
    data = json.dumps(body).encode()
    s = socket.create_connection(("127.0.0.1", port))
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"X-Request-Id: {ident}\r\nContent-Length: {len(data)}\r\n\r\n")
    s.sendall(head.encode() + data)
    return s


def processor_s(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_streams(port, n, **fake):
    """Reads n streams to their end; events in all."""
    events = 0
    with selectors.DefaultSelector() as ready:
        for i in range(n):
            ready.register(post(port, f"s{i}", True, **fake), selectors.EVENT_READ)
        while ready.get_map():
            for key, _ in ready.select():
                got = key.fileobj.recv(1 << 18)
                events += got.count(b"data: ")
                if not got:
                    ready.unregister(key.fileobj)
                    key.fileobj.close()
    return events


def rate(port, pid, n, **fake):
    began, used = time.perf_counter(), processor_s(pid)
    events = read_streams(port, n, **fake)
    return events / (time.perf_counter() - began), 1e6 * (processor_s(pid) - used) / events


def notice_ms(port, lines):
    s = post(port, f"leave{time.monotonic_ns()}", False, wait_ms=60000)
    time.sleep(0.05)
    began = time.perf_counter()
    s.close()
    while not lines.get(timeout=20).startswith("canceled"):
        pass
    return 1000 * (time.perf_counter() - began)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--fake", default=os.path.join(ROOT, "build", "tests", "http", "fake_server"))
    p.add_argument("--streams", type=int, default=500)
    p.add_argument("--runs", type=int, default=5)
    o = p.parse_args()
    need(o.fake, "configure the build with -Dtests=true")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = subprocess.Popen([o.fake], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines = queue.Queue()  # always read: a full pipe would stop the server
    threading.Thread(target=lambda: [lines.put(line) for line in server.stdout], daemon=True).start()
    port = int(lines.get(timeout=20).split()[1])
    print(machine())
    one = [rate(port, server.pid, 1, tokens=100000, bytes=5) for _ in range(o.runs)]
    many = [rate(port, server.pid, o.streams, tokens=100, bytes=5, interval_ms=20) for _ in range(o.runs)]
    left = [notice_ms(port, lines) for _ in range(20)]
    print("median (lowest-highest, runs)")
    print(f"one stream, events/s               {spread([r for r, _ in one], 0)}")
    print(f"  server's processor, us an event  {spread([c for _, c in one], 2)}")
    print(f"{o.streams} streams at once, events/s      {spread([r for r, _ in many], 0)}")
    print(f"  server's processor, us an event  {spread([c for _, c in many], 2)}")
    print(f"client that left noticed, ms       {spread(left, 2)}")
    print(f"resident, MiB                      {memory(server.pid)['rss'] / MIB:.1f}")
    server.terminate()
    server.wait(20)


if __name__ == "__main__":
    main()
