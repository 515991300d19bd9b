#!/usr/bin/env python3
"""Turns the page into C: collects our modules and the few library files they need, gzips each and
writes one table of byte arrays (src/api/assets.h tells how it is read).

Reads only: web/page/, web/package.json and node_modules. Never the network: `npm ci` is the step
before it (scripts/run does that). Refuses: a library that is missing or has another version than
package.json says, an import of something that is not embedded, and a page of more than BUDGET
compressed bytes. The same inputs give the same output, byte for byte.

  bundle.py --modules DIR --out assets.c [--depfile FILE]
  bundle.py --modules DIR --list        sizes, one line an asset
"""

import argparse
import gzip
import hashlib
import json
import pathlib
import re
import sys

from jsmin import strip_css, strip_js

WEB = pathlib.Path(__file__).resolve().parent
PAGE = WEB / "page"
BUDGET = 80_000  # bytes, all assets together, compressed (design.md, decision 1)

# Import name -> file below node_modules. `typescript` also colours JavaScript and `cpp` also C:
# each is a superset of the other, and the grammars are the largest files here.
LIBRARIES = {
    "preact": "preact/dist/preact.mjs",
    "preact/hooks": "preact/hooks/dist/hooks.mjs",
    "htm": "htm/dist/htm.mjs",
    "marked": "marked/lib/marked.esm.js",
    "dompurify": "dompurify/dist/purify.es.mjs",
    "eventsource-parser": "eventsource-parser/dist/index.js",
    "highlight.js/core": "highlight.js/lib/core.js",
}
LANGUAGES = ["bash", "cpp", "diff", "go", "java", "json", "python", "rust", "sql", "typescript",
             "xml", "yaml"]
LIBRARIES |= {f"highlight.js/languages/{x}": f"highlight.js/es/languages/{x}.js" for x in LANGUAGES}

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
         ".txt": "text/plain; charset=utf-8"}

# Specifiers in `import … from "x"`, `export … from "x"`, `import "x"` and `import("x")`.
IMPORT = re.compile(r"""(\bfrom\s*|\bimport\s*\(?\s*)(["'])([A-Za-z@][\w./@-]*)\2""")


class BundleError(Exception):
    pass


def asset_path(library):
    return "/assets/lib/" + library.replace("highlight.js/", "hljs/") + ".js"


def rewrite_imports(text, place):
    """Bare names become addresses: a page without inline script cannot have an import map."""
    def swap(m):
        if m[3] not in LIBRARIES:
            raise BundleError(f"{place}: imports {m[3]!r}, which bundle.py does not embed")
        return f"{m[1]}{m[2]}{asset_path(m[3])}{m[2]}"
    return IMPORT.sub(swap, text)


def check_versions(modules):
    wanted = json.loads((WEB / "package.json").read_text())["dependencies"]
    for name, version in sorted(wanted.items()):
        manifest = modules / name / "package.json"
        found = json.loads(manifest.read_text())["version"] if manifest.is_file() else "nothing"
        if found != version:
            raise BundleError(f"needs {name} {version} in {modules}, found {found}; run scripts/run "
                              "--no-serve, or `npm ci --ignore-scripts --prefix web`")


def licenses(modules):
    """The notices that the libraries' licenses ask to be kept, which stripping comments loses."""
    parts, apache = [], ""
    for name, version in json.loads((WEB / "package.json").read_text())["dependencies"].items():
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
    assets, sources = {}, []

    def add(path, text):
        kind = TYPES.get(pathlib.Path(path).suffix, TYPES[".html"])
        assets[path] = (kind, text.encode())

    for file in sorted(PAGE.iterdir()):
        if file.suffix not in TYPES:
            continue
        text = file.read_text()
        sources.append(file)
        if file.suffix == ".js":
            text = rewrite_imports(strip_js(text), file.name)
        elif file.suffix == ".css":
            text = strip_css(text)
        add("/" if file.name == "index.html" else f"/assets/{file.name}", text)
    for name, place in LIBRARIES.items():
        file = modules / place
        sources.append(file)
        text = strip_js(file.read_text())
        if "module.exports" in text:  # CommonJS: highlight.js has its core in no other form
            text = f"const module={{exports:{{}}}};\n{text}\nexport default module.exports;\n"
        add(asset_path(name), rewrite_imports(text, place))
    add("/assets/licenses.txt", licenses(modules))
    preload = "".join(f'<link rel="modulepreload" href="{p}">\n' for p in eager_modules(assets))
    kind, html = assets["/"]
    assets["/"] = (kind, html.replace(b"<!-- modulepreload -->\n", preload.encode()))
    return assets, sources


def eager_modules(assets):
    """What the first script needs before it can run, so that the browser asks for all at once."""
    seen, queue = [], ["/assets/main.js"]
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        if path not in assets:
            raise BundleError(f"a module imports {path}, which does not exist")
        seen.append(path)
        text = assets[path][1].decode()
        for m in re.finditer(r"""\b(?:from|import)\s*["']([^"']+)["']""", text):
            queue.append(m[1].replace("./", "/assets/") if m[1].startswith("./") else m[1])
    return sorted(seen)


def compress(assets):
    """(path, content type, etag, bytes) sorted by path: the C side searches by halves."""
    out = []
    for path, (kind, data) in sorted(assets.items(), key=lambda kv: kv[0].encode()):
        packed = gzip.compress(data, 9, mtime=0)
        out.append((path, kind, f'"{hashlib.sha256(data).hexdigest()[:16]}"', packed))
    total = sum(len(a[3]) for a in out)
    if total > BUDGET:
        raise BundleError(f"the page is {total} bytes compressed, more than {BUDGET}")
    return out


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
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--modules", type=pathlib.Path, default=WEB / "node_modules")
    ap.add_argument("--out")
    ap.add_argument("--depfile")
    ap.add_argument("--list", action="store_true")
    args = ap.parse_args()
    try:
        assets, sources = collect(args.modules)
        packed = compress(assets)
    except (BundleError, OSError, ValueError) as e:
        sys.exit(f"web/bundle.py: {e}")
    if args.out:
        write_c(packed, args.out)
    if args.depfile:
        own = [pathlib.Path(__file__), WEB / "jsmin.py", WEB / "package.json"]
        names = " ".join(str(s).replace(" ", "\\ ") for s in own + sources)
        pathlib.Path(args.depfile).write_text(f"{args.out}: {names}\n")
    if args.list:
        for path, _, _, data in packed:
            print(f"{len(data):7d}  {path}")
        print(f"{sum(len(a[3]) for a in packed):7d}  of {BUDGET}")


if __name__ == "__main__":
    main()
