#!/usr/bin/env python3
"""What a token costs with the context before it, and what a request costs that waits.

    bench/context.py [--runs 3] [--tokens 48] [--waiting 400]

targets: decode time linear in the context; at most 64 KiB a waiting request

Greedy answers after prompts of about 250 to 7,000 tokens, in turns; prediction is off, or texts that repeat
themselves would be cheaper than their context. The line is fitted by least squares; what each further token
of context costs is shown as bytes of keys and values a second, to hold against bench_limits. Waiting
requests are those beyond the 32 that run; their memory is without the blocks of keys and values that have
been used. Not with `chrt`: the reader would have to wait for the engine's threads.
"""
import argparse
import http.client
import json
import statistics
import time

from common import MODEL_ID, Server, machine, memory, metric, spread

SENTENCE = "The tide came in and the tide went out. "  # ten tokens
SIZES = [25, 50, 100, 200, 400, 700]


def ask(s, text, tokens):
    """ms a token, from the first to the last."""
    a = s.chat(text, tokens)
    return 1e3 * (a["end"] - a["first"]) / (a["tokens"] - 1)


def growth(o):
    with Server(preload=MODEL_ID, ASHLEY_PREDICTION="0") as s:
        s.wait_for("/readyz", pause=0.02)
        points = {n: [] for n in SIZES}
        for run in range(o.runs):
            for n in SIZES:
                points[n].append(ask(s, f"{run} " + SENTENCE * n, o.tokens))
        text = s.get("/metrics")[1]
        a_block = metric(text, "ashley_model_bytes", model=MODEL_ID, kind="kv") / \
            metric(text, "ashley_kv_blocks", model=MODEL_ID, kind="total")
    xs = [n * 10 + o.tokens / 2 for n in SIZES]
    ys = [statistics.median(p) for p in points.values()]
    slope, base = statistics.linear_regression(xs, ys)
    print("context   ms a token                  line")
    for x, p in zip(xs, points.values()):
        print(f"{x:7.0f}   {spread(p, 2):26}  {base + slope * x:.2f}")
    r = statistics.correlation(xs, ys)
    print(f"correlation {r:.4f}; a token of context: {1e6 * slope:.1f} ns, "
          f"{a_block / 32 / slope / 1e6:.1f} GB/s of keys and values")


def held_bytes(s):
    """Anonymous memory without the KV blocks that have been used."""
    anonymous, text = memory(s.process.pid)["anonymous"], s.get("/metrics", timeout=60)[1]
    blocks = {k: metric(text, "ashley_kv_blocks", model=MODEL_ID, kind=k)
              for k in ("used", "cached", "total")}
    pool = metric(text, "ashley_model_bytes", model=MODEL_ID, kind="kv")
    queued = metric(text, "ashley_queue_length", model=MODEL_ID)
    return anonymous - pool / blocks["total"] * (blocks["used"] + blocks["cached"]), queued


def waiting(o):
    body = json.dumps({"model": MODEL_ID, "messages": [{"role": "user", "content": SENTENCE * 20}],
                       "temperature": 0, "max_tokens": 4000, "ignore_eos": True, "stream": True})
    with Server(preload=MODEL_ID, ASHLEY_QUEUE_TIMEOUT="0") as s:
        s.wait_for("/readyz", pause=0.02)
        held = []

        def send(n):
            for _ in range(n):
                c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=300)
                c.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
                held.append(c)
            time.sleep(3)
        send(40)
        before, queued_before = held_bytes(s)
        send(o.waiting)
        after, queued = held_bytes(s)
        print(f"{queued - queued_before:.0f} requests more that wait: "
              f"{(after - before) / 1024 / o.waiting:.1f} KiB each")
        for c in held:
            c.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--tokens", type=int, default=48)
    p.add_argument("--waiting", type=int, default=400)
    o = p.parse_args()
    print(machine() + "\nmedian (lowest-highest, runs)")
    growth(o)
    waiting(o)


if __name__ == "__main__":
    main()
