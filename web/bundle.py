#!/usr/bin/env python3
"""Turns the page into C: esbuild joins our modules with their libraries, each result is gzipped, and
one table of byte arrays is written (src/api/assets.h tells how it is read).

Reads only web/page/, web/package.json and node_modules; never the network: `npm ci` is the step
before it (scripts/run does that). Refuses a library that is missing or has another version than
package.json says, and a page of more than BUDGET compressed bytes. The same inputs give the same
output, byte for byte.

  bundle.py [--modules DIR] --out assets.c [--depfile FILE]
  bundle.py [--modules DIR] --list        sizes, one line an asset
"""

import argparse
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

WEB = pathlib.Path(__file__).resolve().parent
PAGE = WEB / "page"
BUDGET = 80_000  # bytes, all that a browser loads, compressed (design.md, decision 1)
BUILD_ONLY = ["esbuild"]  # in package.json, but not in the page

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
         ".txt": "text/plain; charset=utf-8"}
# What the page may assume of a browser; about five years back.
TARGET = "chrome109,firefox115,safari16"


class BundleError(Exception):
    pass


def dependencies():
    return json.loads((WEB / "package.json").read_text())["dependencies"]


def check_versions(modules):
    for name, version in sorted(dependencies().items()):
        manifest = modules / name / "package.json"
        found = json.loads(manifest.read_text())["version"] if manifest.is_file() else "nothing"
        if found != version:
            raise BundleError(f"needs {name} {version} in {modules}, found {found}; run scripts/run "
                              "--no-serve, or `npm ci --ignore-scripts --prefix web`")


def run_esbuild(modules, outdir):
    """Joined and minified files in outdir; returns the source files that went in."""
    node = shutil.which("node") or shutil.which("nodejs")
    if not node:
        raise BundleError("needs node, which comes with npm")
    meta = outdir / "meta.json"
    command = [node, str(modules / "esbuild" / "bin" / "esbuild"), "main.js", "style.css", "--bundle",
               "--minify", "--format=esm", "--splitting", "--chunk-names=[name]", "--charset=utf8",
               "--legal-comments=none", f"--target={TARGET}", "--external:/assets/*",
               f"--outdir={outdir / 'assets'}", f"--metafile={meta}", "--log-level=warning"]
    done = subprocess.run(command, cwd=PAGE, env={**os.environ, "NODE_PATH": str(modules)})
    if done.returncode:
        raise BundleError("esbuild failed")
    inputs = json.loads(meta.read_text())["inputs"]
    meta.unlink()
    return [PAGE / name for name in inputs]


def licenses(modules):
    """The notices that the libraries' licenses ask to be kept, which minifying loses."""
    parts, apache = [], ""
    for name, version in dependencies().items():
        if name in BUILD_ONLY:
            continue
        spdx = json.loads((modules / name / "package.json").read_text())["license"]
        text = next((modules / name).glob("LICENSE*")).read_text().strip()
        if "Apache-2.0" in spdx:
            apache = text
            text = f"{spdx}; used under Apache-2.0, whose text is at the end"
        parts.append(f"{name} {version}\n\n{text}\n")
    return ("\n" + "-" * 72 + "\n\n").join(parts + ["Apache License 2.0\n\n" + apache + "\n"])


def collect(modules):
    """Every asset as {path: (content type, bytes)}, and the files they were read from."""
    check_versions(modules)
    assets = {}

    def add(path, data):
        assets[path] = (TYPES[pathlib.Path(path).suffix or ".html"], data)

    with tempfile.TemporaryDirectory() as tmp:
        sources = run_esbuild(modules, pathlib.Path(tmp))
        for file in pathlib.Path(tmp, "assets").iterdir():
            add(f"/assets/{file.name}", file.read_bytes())
    add("/", (PAGE / "index.html").read_bytes())
    add("/assets/icon.svg", (PAGE / "icon.svg").read_bytes())
    add("/assets/licenses.txt", licenses(modules).encode())
    return assets, sources + [PAGE / "index.html", PAGE / "icon.svg"]


def compress(assets):
    """(path, content type, etag, bytes) sorted by path: the C side searches by halves."""
    out = []
    for path, (kind, data) in sorted(assets.items(), key=lambda kv: kv[0].encode()):
        packed = gzip.compress(data, 9, mtime=0)
        out.append((path, kind, f'"{hashlib.sha256(data).hexdigest()[:16]}"', packed))
    if page_size(out) > BUDGET:
        raise BundleError(f"the page is {page_size(out)} bytes compressed, more than {BUDGET}")
    return out


def page_size(packed):
    """What a browser loads: all but the licenses, which are text for people who ask."""
    return sum(len(a[3]) for a in packed if not a[0].endswith(".txt"))


def write_c(packed, out):
    with open(out, "w") as f:
        f.write("/* Made by web/bundle.py; do not edit. */\n#include \"api/assets.h\"\n\n")
        for i, (_, _, _, data) in enumerate(packed):
            f.write(f"static const uint8_t data_{i}[] = {{\n")
            for at in range(0, len(data), 24):
                f.write("".join(f"{b}," for b in data[at:at + 24]) + "\n")
            f.write("};\n")
        f.write("\nconst ash_asset ash_assets[] = {\n")
        for i, (path, kind, etag, data) in enumerate(packed):
            tag = etag.replace('"', '\\"')
            f.write(f'    {{"{path}", "{kind}", "{tag}", data_{i}, {len(data)}, true}},\n')
        f.write(f"}};\nconst size_t ash_n_assets = {len(packed)};\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    ap.add_argument("--modules", type=pathlib.Path, default=WEB / "node_modules")
    ap.add_argument("--out")
    ap.add_argument("--depfile")
    ap.add_argument("--list", action="store_true")
    args = ap.parse_args()
    try:
        assets, sources = collect(args.modules.absolute())
        packed = compress(assets)
    except (BundleError, OSError, ValueError) as e:
        sys.exit(f"web/bundle.py: {e}")
    if args.out:
        write_c(packed, args.out)
    if args.depfile:
        own = [pathlib.Path(__file__), WEB / "package.json"]
        names = " ".join(os.path.normpath(s).replace(" ", "\\ ") for s in own + sources)
        pathlib.Path(args.depfile).write_text(f"{args.out}: {names}\n")
    if args.list:
        for path, _, _, data in packed:
            print(f"{len(data):7d}  {path}")
        print(f"{page_size(packed):7d}  of {BUDGET}")


if __name__ == "__main__":
    main()
