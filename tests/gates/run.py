#!/usr/bin/env python3
"""The gates: rules about the sources that no compiler checks.

    tests/gates/run.py              every gate over the tracked files
    tests/gates/run.py GATE...      only those
    tests/gates/run.py --list       their names, one line each

Each gate is a function from a file's path and text to complaints (line, what), with samples that it
must refuse and samples that it must let pass. The samples run first, every time: a gate that lets its
bad sample through has failed, whatever the sources look like. Ends with "N passed, N failed".
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Which folder of src/ may include which, directly. What a folder may include, it may also reach
# through the folders in between ("arch -> nn -> kernel" lets arch include kernel). Siblings never.
ARROWS = {
    "base": [],
    "config": ["base"],
    "hub": ["base"],
    "store": ["base"],
    "format": ["base"],
    "quant": ["base"],
    "kernel": ["quant"],
    "nn": ["kernel"],
    "arch": ["nn", "format"],
    "text": ["format"],
    "engine": ["arch", "text"],
    "residency": ["engine", "hub", "store"],
    "provider": ["residency", "engine", "text"],  # local.c leases engines
    "api": ["provider", "engine", "residency", "hub", "store"],
    "cli": ["api", "config"],
}
PUBLIC_HEADER = "ashley.h"  # include/ashley.h: whoever implements it may include it

FILE_LINES = 1200
FUNCTION_LINES = 120
FORWARD_LINES = 150  # a forward pass reads best in one piece
COLUMNS = 110  # aim at 100

BANNED = {
    "strcpy": "memcpy with a checked length, or ash_buf",
    "strncpy": "memcpy with a checked length",
    "strcat": "ash_buf",
    "strncat": "ash_buf",
    "sprintf": "snprintf, or ash_buf",
    "vsprintf": "vsnprintf, or ash_buf",
    "gets": "ash_fs",
    "strtok": "strcspn and lengths",
    "alloca": "an arena",
    "atoi": "strtol with its end checked",
    "atol": "strtol with its end checked",
    "atoll": "strtoll with its end checked",
    "atof": "strtod with its end checked",
    "scanf": "a parser of its own",
    "sscanf": "a parser of its own",
    "system": "nothing: no shell is ever called",
    "popen": "nothing: no shell is ever called",
    "tmpnam": "mkstemp",
    "mktemp": "mkstemp",
    "rand": "ash_rng",
    "srand": "ash_rng",
    "gmtime": "gmtime_r",
    "localtime": "localtime_r",
    "asctime": "strftime",
    "ctime": "strftime",
}

# In pieces, so that this file passes its own gate.
REGISTRIES = ["pypi." + "org", "pythonhosted." + "org", "registry.npmjs." + "org", "npmjs." + "com",
              "unpkg." + "com", "jsdelivr." + "net", "cdnjs." + "cloudflare.com", "esm." + "sh",
              "deb.debian." + "org", "security.debian." + "org", "crates." + "io"]


def reachable(folder):
    seen, todo = set(), [folder]
    while todo:
        for nxt in ARROWS.get(todo.pop(), []):
            if nxt not in seen:
                seen.add(nxt)
                todo.append(nxt)
    return seen | {"base", folder}


def is_c(path):
    return path.endswith((".c", ".h", ".h.in", ".inc"))


def in_folders(path, *folders):
    return path.startswith(tuple(f + "/" for f in folders))


def blank_out(text, strings=True):
    """C text with comments (and the insides of strings) blanked, every line break kept."""
    def blank(match):
        piece = match.group(0)
        if piece[0] in "\"'" and not strings:
            return piece
        return piece[0] + re.sub(r"[^\n]", " ", piece[1:-1]) + piece[-1] if piece[0] in "\"'" \
            else re.sub(r"[^\n]", " ", piece)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


def gate_include_direction(path, text):
    """#include goes down the arrows of ARROWS, never up or sideways"""
    if not (path.startswith("src/") and is_c(path)):
        return
    folder = path.split("/")[1]
    if folder not in ARROWS:
        yield 1, f"src/{folder} is not in the table of folders (ARROWS in tests/gates/run.py)"
        return
    allowed = reachable(folder)
    for n, line in enumerate(blank_out(text, strings=False).split("\n"), 1):
        m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not m or m.group(1) == PUBLIC_HEADER:
            continue
        target = m.group(1).split("/")
        if ".." in target:
            yield n, f'"{m.group(1)}": include by the path from src/, without ".."'
        elif len(target) > 1 and target[0] in ARROWS and target[0] not in allowed \
                and folder != "cli":
            yield n, f"{folder} may not include {target[0]} (allowed: {' '.join(sorted(allowed))})"
        elif len(target) == 1 and not os.path.exists(os.path.join(ROOT, "src", target[0])) \
                and os.path.exists(os.path.join(ROOT, os.path.dirname(path), target[0])):
            yield n, f'"{m.group(1)}": include by the path from src/'


def gate_file_length(path, text):
    """no source file has more than 1200 lines"""
    if not path.endswith((".c", ".h", ".py", ".js", ".mjs", ".css", ".html", ".sh")):
        return
    lines = text.count("\n")
    if lines > FILE_LINES:
        yield FILE_LINES, f"{lines} lines, at most {FILE_LINES}"


def gate_function_length(path, text):
    """no C function has more than 120 lines (a forward pass: 150)"""
    if not path.endswith(".c"):
        return
    lines = blank_out(text).split("\n")
    start = None
    for n, line in enumerate(lines, 1):
        if line.startswith("{"):
            start = n
        elif line.startswith("}") and start is not None:
            head = " ".join(lines[max(0, start - 6):start - 1])
            names = re.findall(r"(\w+)\s*\(", head)
            name = names[0] if names else "?"
            limit = FORWARD_LINES if "forward" in head else FUNCTION_LINES
            if n - start + 1 > limit:
                yield start, f"{name}: {n - start + 1} lines, at most {limit}"
            start = None


def gate_banned_functions(path, text):
    """functions that invite an overflow, a race or a shell are not called"""
    if not (is_c(path) and in_folders(path, "src", "include", "fuzz", "bench", "tests")):
        return
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
    for n, line in enumerate(blank_out(text).split("\n"), 1):
        for m in pattern.finditer(line):
            yield n, f"{m.group(1)} is banned: use {BANNED[m.group(1)]}"


def gate_registry_names(path, text):
    """no package registry's or CDN's host name: the ordinary clients know theirs"""
    for n, line in enumerate(text.split("\n"), 1):
        for host in REGISTRIES:
            if host in line.lower():
                yield n, f"names {host}"
        if path.endswith("package-lock.json") and '"resolved"' in line:
            yield n, "a lock file with addresses: npm config omit-lockfile-registry-resolved"


def gate_unfinished(path, text):
    """no to-do mark and no stand-in for code that is not there"""
    if not in_folders(path, "src", "include", "web", "scripts", "fuzz", "bench"):
        return
    if path.endswith("package-lock.json"):
        return
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\b[Nn]ot (yet )?implemented\b|\b[Ss]tub(s|bed)?\b"
                         r"|(?i:(?<!::)\bplaceholder\b)(?!\s*[=:]|-shown|\))")
    for n, line in enumerate(text.split("\n"), 1):
        m = pattern.search(line)
        if m:
            yield n, f"says {m.group(0)!r}: finish it, or leave it out"


def gate_header_comment(path, text):
    """every C file of src opens with a comment that says what it owns and refuses"""
    if path.startswith("src/") and path.endswith((".c", ".h")) and not text.startswith("/*"):
        yield 1, "opens without a comment"


def gate_layout(path, text):
    """at most 110 columns (aim at 100), no tab, no blank at a line's end, a line break at the file's end"""
    if path.endswith((".c", ".h", ".py", ".js", ".mjs", ".css", ".sh", ".build")) or \
            text.startswith("#!"):
        for n, line in enumerate(text.split("\n"), 1):
            if len(line) > COLUMNS:
                yield n, f"{len(line)} columns, at most {COLUMNS}"
            if "\t" in line:
                yield n, "a tab"
            if line != line.rstrip():
                yield n, "blanks at the end of the line"
        if text and not text.endswith("\n"):
            yield text.count("\n") + 1, "no line break at the end of the file"


def gate_links(path, text):
    """a link or a path in a Markdown file leads to a file that is there"""
    if not path.endswith(".md"):
        return
    fenced = False
    for n, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if fenced:
            continue
        for target in re.findall(r"`((?:src|tests|scripts|bench|fuzz|docs|web|include|personas)/[\w./-]+)",
                                 line):
            if not os.path.exists(os.path.join(ROOT, target.rstrip("./"))):
                yield n, f"names {target}: no such file"
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
            if re.match(r"[a-z]+:|#", target):
                continue
            file = os.path.join(ROOT, os.path.dirname(path), target.split("#")[0])
            if not os.path.exists(file):
                yield n, f"link to {target}: no such file"


def gate_packages(path, text):
    """every library that Meson looks for has its package in scripts/packages"""
    if not path.endswith("meson.build"):
        return
    with open(os.path.join(ROOT, "scripts/packages"), encoding="utf-8") as f:
        known = set(re.findall(r"pc:(\S+)", f.read())) | {"threads"}
    for n, line in enumerate(text.split("\n"), 1):
        for name in re.findall(r"\bdependency\('([^']+)'", line):
            if name not in known:
                yield n, f"no line in scripts/packages ends in pc:{name}"


CONFIG_PAGE = "docs/CONFIGURATION.md"


def gate_config_page(path, text):
    """docs/CONFIGURATION.md names every key of src/config/keys.c, each once as working or as not yet"""
    if path != CONFIG_PAGE and path != "src/config/keys.c":
        return
    if path == CONFIG_PAGE:
        with open(os.path.join(ROOT, "src/config/keys.c"), encoding="utf-8") as f:
            table, page = f.read(), text
    else:
        with open(os.path.join(ROOT, CONFIG_PAGE), encoding="utf-8") as f:
            table, page = text, f.read()
    working, _, not_yet = page.partition("without effect in this version")
    for m in re.finditer(r'^    \{"([A-Z_]+)",.*?\.built = (true|false)', table, re.M | re.S):
        if f"`{m.group(1)}`" not in (working if m.group(2) == "true" else not_yet):
            yield 1, f"{m.group(1)} (built = {m.group(2)}) is not where {CONFIG_PAGE} should have it"


def gate_binary_size(path, text):
    """no tracked file is larger than 1.5 MB: models and libraries are fetched, not committed"""
    full = os.path.join(ROOT, path)
    size = len(text) if not os.path.exists(full) else os.path.getsize(full)
    if size > 1_500_000:
        yield 1, f"{size} bytes"


LONG = "int f(void)\n{\n" + "    x();\n" * 125 + "}\n"
# gate: (samples it must refuse, samples it must let pass), each (path, text)
SAMPLES = {
    gate_include_direction: (
        [("src/base/a.c", '#include "engine/engine.h"\n'),
         ("src/hub/a.c", '#include "store/store.h"\n'),
         ("src/text/a.c", '#include "nn/linear.h"\n'),
         ("src/api/a.c", '#include "config/env.h"\n'),
         ("src/api/a.c", '#include "../base/err.h"\n'),
         ("src/other/a.c", "")],
        [("src/arch/a.c", '#include "kernel/kernel.h"\n#include <stdio.h>\n'),
         ("src/cli/a.c", '#include "config/env.h"\n'),
         ("src/base/a.c", '/*\n#include "engine/engine.h"\n*/\n')]),
    gate_file_length: ([("src/base/a.c", "\n" * 1201)], [("src/base/a.c", "\n" * 1200)]),
    gate_function_length: (
        [("src/base/a.c", LONG),
         ("src/arch/a.c", "int forward(void)\n{\n" + "    x();\n" * 160 + "}\n")],
        [("src/arch/a.c", LONG.replace("int f(", "int llama_forward(")),
         ("src/base/a.c", "static const int t[] = {\n" + "    1,\n" * 200 + "};\n")]),
    gate_banned_functions: (
        [("src/base/a.c", "    strcpy(a, b);\n"), ("src/base/a.c", "x = atoi (b);\n")],
        [("src/base/a.c", '/* strcpy(a, b) */ f("system(1)"); my_rand(); p->system(1);\n')]),
    gate_registry_names: (
        [("README.md", "see " + REGISTRIES[0] + "\n"),
         ("web/package-lock.json", '  "resolved": "x"\n')],
        [("README.md", "PyPI and npm\n")]),
    gate_unfinished: (
        [("src/base/a.c", "/* TO" + "DO: all of it */\n"), ("web/a.js", "// a st" + "ub\n"),
         ("src/base/a.c", "/* a place" + "holder */\n")],
        [("web/a.js", 'html`<input placeholder="Message">`\n'),
         ("web/a.css", "input::placeholder { color: red }\n"),
         ("src/base/a.c", "mkstemp\n")]),
    gate_header_comment: ([("src/base/a.c", "#include <stdio.h>\n")],
                          [("src/base/a.c", "/* Owns. */\n"), ("web/a.js", "x\n")]),
    gate_layout: (
        [("src/base/a.c", "x" * 111 + "\n"), ("src/base/a.c", "\tx\n"), ("src/base/a.c", "x \n"),
         ("src/base/a.c", "x")],
        [("src/base/a.c", "x" * 110 + "\n")]),
    gate_links: ([("README.md", "[a](no/such/file.md)\n"), ("README.md", "see `src/no/such.c`\n")],
                 [("README.md", "[a](scripts/run) [b](https://example.com) `[c](d)`\n")]),
    gate_packages: ([("meson.build", "  dependency('no-such-library'),\n")],
                    [("meson.build", "  dependency('jansson'), dependency('threads')\n")]),
    gate_config_page: (
        [(CONFIG_PAGE, "| `PRELOAD_MODELS` |\n"),
         ("src/config/keys.c", '    {"NO_SUCH_KEY", NULL, .built = true},\n')],
        [("src/config/keys.c", '    {"ASHLEY_PORT", NULL, .built = true},\n')]),
    gate_binary_size: ([("no/such/file", "x" * 1_500_001)], [("scripts/run", "")]),
}


def name_of(gate):
    return gate.__name__[len("gate_"):].replace("_", "-")


def tracked():
    """Tracked files and new ones that git does not ignore; without git (a tarball) all but build*."""
    try:
        out = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                             cwd=ROOT, capture_output=True, check=True).stdout.decode()
        names = [n for n in out.split("\0") if n]
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder, folders, files in os.walk(ROOT):
            folders[:] = [f for f in folders if f not in (".git", "node_modules", "models", "state")
                          and not f.startswith("build")]
            names += [os.path.relpath(os.path.join(folder, f), ROOT) for f in files]
    return sorted({n for n in names if os.path.isfile(os.path.join(ROOT, n))
                   and not os.path.islink(os.path.join(ROOT, n))})


def sample_failures(gate):
    bad, good = SAMPLES[gate]
    for path, text in bad:
        if not list(gate(path, text)):
            yield f"its bad sample {path} passes: {text[:60]!r}"
    for path, text in good:
        for n, what in gate(path, text):
            yield f"its good sample {path}:{n} is refused: {what}"


def main(args):
    gates = list(SAMPLES)
    if args == ["--list"]:
        for gate in gates:
            print(f"{name_of(gate):20} {gate.__doc__}")
        return 0
    unknown = set(args) - {name_of(g) for g in gates}
    if unknown:
        print(f"gates: no gate {' '.join(sorted(unknown))}; there are: "
              f"{' '.join(name_of(g) for g in gates)}", file=sys.stderr)
        return 2
    gates = [g for g in gates if not args or name_of(g) in args]
    texts = {}
    for path in tracked():
        with open(os.path.join(ROOT, path), "rb") as f:
            raw = f.read()
        texts[path] = "" if b"\0" in raw else raw.decode("utf-8", "replace")
    failed = 0
    for gate in gates:
        complaints = [f"gate {name_of(gate)}: {c}" for c in sample_failures(gate)]
        for path, text in texts.items():
            complaints += [f"{path}:{n}: {what}" for n, what in gate(path, text)]
        print(f"{'FAIL' if complaints else 'ok  '} {name_of(gate):20} {gate.__doc__}")
        for c in complaints[:40]:
            print(f"     {c}")
        if len(complaints) > 40:
            print(f"     and {len(complaints) - 40} more")
        failed += bool(complaints)
    print(f"{len(gates) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
