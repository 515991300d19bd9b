#!/usr/bin/env python3
"""Draws the table that bench/table.py printed into docs/SPEED.md, under "Against other engines", as
docs/images/speed.svg: in each row of tokens a second every engine as a part of the fastest. No figure stands
in this file.

    bench/plot.py [--rows PATTERN]   only rows whose name has this regular expression; without it those of one
                                     sequence. Rows in which no other engine stands are left out
"""
import argparse
import html
import os
import re
import sys

from common import ROOT

TABLE, IMAGE = os.path.join(ROOT, "docs", "SPEED.md"), os.path.join(ROOT, "docs", "images", "speed.svg")
COLOURS = ["#2563eb", "#94a3b8", "#d4a72c", "#7c9a5e", "#b0785a", "#8a6fb0", "#93b4f5"]
LEFT, WIDTH, RIGHT, BAR, GAP, LEGEND = 300, 380, 60, 13, 14, 150


def cells(line):
    return [c.strip() for c in line.strip().strip("|").split("|")]


def table(pattern):
    """Engines, and rows of (name, a value or None for each engine)."""
    with open(TABLE, encoding="utf-8") as f:
        parts = f.read().split("\n## Against other engines\n", 1)
    lines = [line for line in parts[-1].split("\n## ", 1)[0].splitlines() if line.startswith("|")]
    if len(parts) < 2 or len(lines) < 3:
        sys.exit(f"{TABLE} has no table under 'Against other engines'")
    engines = cells(lines[0])[1:-1]  # the last column is a ratio
    rows = []
    for name, *values in map(cells, lines[2:]):
        found = [re.match(r"[\d,]*\.?\d+", v) for v in values[:len(engines)]]
        others = [m for engine, m in zip(engines, found) if m and not engine.startswith("Ashley")]
        if name.endswith(", tokens/s") and re.search(pattern, name) and others:
            rows.append((name.removesuffix(", tokens/s"),
                         [float(m.group().replace(",", "")) if m else None for m in found]))
    if not rows:
        sys.exit("no such row has tokens a second")
    return engines, rows


def text(x, y, words, size=12, anchor="start"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}">'
            f'{html.escape(words)}</text>')


def bar(y, value, most, colour):
    width = value / most * WIDTH
    return (f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>'
            + text(LEFT + width + 4, y + 10, f"{value:,.4g}" if value < 1000 else f"{value:,.0f}", 10))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--rows", default=r"prefill|decode \d+,")
    engines, rows = table(p.parse_args().rows)
    shown = [i for i in range(len(engines)) if any(values[i] for _, values in rows)]
    per_line = (LEFT + WIDTH + RIGHT) // LEGEND
    out = []
    for n, i in enumerate(shown):
        x, y = 8 + n % per_line * LEGEND, 8 + n // per_line * 18
        out += [f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>',
                text(x + 17, y + 10, engines[i])]
    y = 16 + -(-len(shown) // per_line) * 18
    for name, values in rows:
        here = [(i, values[i]) for i in shown if values[i]]
        out.append(text(LEFT - 8, y + BAR * len(here) / 2 + 4, name, 12, "end"))
        for i, value in here:
            out.append(bar(y, value, max(v for _, v in here), COLOURS[i % len(COLOURS)]))
            y += BAR
        y += GAP
    with open(IMAGE, "w", encoding="utf-8") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{y}" '
                'font-family="sans-serif" role="img"><title>Tokens a second, other engines beside Ashley'
                f'</title><rect width="100%" height="100%" fill="#fff"/>{"".join(out)}</svg>\n')


if __name__ == "__main__":
    main()
