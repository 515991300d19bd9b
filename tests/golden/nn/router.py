#!/usr/bin/env python3
"""Writes tests/unit/nn/router_golden.inc: choices of experts as DeepSeek describes them (V2: section
2.1.2 and 2.1.3 of its report, greedy and group_limited_greedy; V3: section 2.1.2, noaux_tc), in plain
Python and double precision.

usage: router.py > tests/unit/nn/router_golden.inc
"""
import math
import random
import textwrap


def pick(logits, bias, used, groups, used_groups, score, normalise, scale):
    if score == "SIGMOID":
        scores = [1 / (1 + math.exp(-x)) for x in logits]
    else:
        top = max(logits)
        total = sum(math.exp(x - top) for x in logits)
        scores = [math.exp(x - top) / total for x in logits]
    choice = [s + b for s, b in zip(scores, bias or [0] * len(scores))]
    size = len(logits) // groups
    members = [list(range(g * size, (g + 1) * size)) for g in range(groups)]
    worth = [sum(sorted((choice[i] for i in m), reverse=True)[: 2 if bias else 1]) for m in members]
    stay = sorted(range(groups), key=lambda g: (-worth[g], g))[:used_groups]
    allowed = [i for g in stay for i in members[g]]
    chosen = sorted(sorted(allowed, key=lambda i: (-choice[i], i))[:used])
    weights = [scores[i] for i in chosen]
    if normalise:
        weights = [w / (sum(weights) + 1e-20) for w in weights]
    return chosen, [w * scale for w in weights]


# experts, used, groups, used_groups, score, bias: None or its middle, normalise, scale
KINDS = [
    (64, 6, 1, 1, "SOFTMAX", None, False, 1.0),      # V2-Lite
    (160, 6, 8, 3, "SOFTMAX", None, False, 16.0),    # V2
    (256, 8, 8, 4, "SIGMOID", 0.0, True, 2.5),       # V3
    (256, 8, 8, 4, "SIGMOID", -1.25, True, 2.5),     # every choice negative
    (16, 4, 4, 2, "SIGMOID", -0.5, True, 2.5),
    (16, 4, 16, 5, "SIGMOID", 0.25, False, 1.0),     # groups of one
    (12, 5, 3, 3, "SOFTMAX", None, True, 1.0),
    (8, 8, 2, 2, "SOFTMAX", None, True, 1.0),
    (8, 1, 1, 1, "SIGMOID", None, False, 1.5),
]


def numbers(values):
    return ", ".join("%.9g" % v for v in values)


def main():
    rng = random.Random(4)
    print("/* Written by tests/golden/nn/router.py. */")
    for kind in KINDS:
        experts, used, groups, used_groups, score, middle, normalise, scale = kind
        for spread in (1, 6):
            logits = [rng.randint(-64 * spread, 64 * spread) / 64 for _ in range(experts)]
            bias = None if middle is None else [middle + rng.randint(-32, 32) / 64 for _ in range(experts)]
            ids, weights = pick(logits, bias, used, groups, used_groups, score, normalise, scale)
            head = "{{%d, %d, %d, %d, ASH_ROUTER_%s, %s, %.1ff}, %s," % (
                experts, used, groups, used_groups, score, str(normalise).lower(), scale,
                str(bias is not None).lower())
            text = " ".join([head] + ["{%s}," % numbers(v) for v in (logits, bias or [0], ids, weights)])
            print("\n ".join(textwrap.wrap(text[:-1] + "},", 99)))


if __name__ == "__main__":
    main()
