#!/usr/bin/env python3
"""Makes vectors.json: templates, contexts and what Python's Jinja2 renders from them.

usage: make.py [--check]     (needs jinja2 3.1.6; --check only compares)

The environment is set up as transformers sets up its own (chat_template_utils.py): the immutable
sandbox with trim_blocks, lstrip_blocks, loop controls, the generation tag, tojson through
json.dumps without ASCII escapes, raise_exception, and strftime_now at a fixed time.
A case that fails in Python has "error" in place of "expected": the text of raise_exception, else true.
The templates (families/) are written for this project in the style of the known families. In
expressions.txt and statements.txt every case is rendered over DATA.
"""
import datetime
import json
import os
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))


class Raised(Exception):
    pass


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise Raised(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    now = datetime.datetime(2023, 11, 14, 22, 13, 20)
    env.globals["strftime_now"] = lambda f: now.strftime(f)
    return env


ENV = environment()


def render(template, context):
    """("expected", text) or ("error", text or True)."""
    try:
        return "expected", ENV.from_string(template).render(**context)
    except Raised as e:
        return "error", str(e)
    except Exception:
        return "error", True


CHAT = [
    {"role": "system", "content": "You are  helpful. "},
    {"role": "user", "content": " Grüße, 世界! "},
    {"role": "assistant", "content": "Hello\nthere."},
    {"role": "user", "content": "What's <b>2 + 2</b>?"},
]
TOOLS = [{
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather \"now\" at a place; °C",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "City"},
                "days": {"type": "array", "items": {"type": "integer"}},
                "exact": {"type": "boolean", "default": False},
            },
            "required": ["place"],
        },
    },
}]
TOOL_CHAT = CHAT[:2] + [
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_01ab", "type": "function",
         "function": {"name": "get_weather",
                      "arguments": {"place": "Köln", "days": [1, 2], "exact": True}}}]},
    {"role": "tool", "name": "get_weather", "tool_call_id": "call_01ab", "content": "{\"t\": 7.5}"},
    {"role": "assistant", "content": "7.5 °C"},
    {"role": "user", "content": "Thanks"},
]

FAMILIES = {}
for file in sorted(os.listdir(os.path.join(HERE, "families"))):
    with open(os.path.join(HERE, "families", file), encoding="utf-8", newline="") as f:
        FAMILIES[file.removesuffix(".jinja")] = f.read()
CONTEXTS = {
    "chat": {"messages": CHAT, "add_generation_prompt": True},
    "no-system": {"messages": CHAT[1:3], "add_generation_prompt": False},
    "two-users": {"messages": [CHAT[1], CHAT[3]], "add_generation_prompt": True},
    "tools": {"messages": TOOL_CHAT, "tools": TOOLS, "add_generation_prompt": True},
    "thinking": {"messages": CHAT[:2] + [
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"},
        {"role": "user", "content": "Sure?"}],
        "add_generation_prompt": True, "enable_thinking": False},
}

# {"message", "items", ...} of the expression table
DATA = {
    "s": "Hello, World", "e": "", "u": "naïve Straße ŉ ﬁ Σίσυφος", "sp": "  a b\t c \n", "n": None,
    "i": 7, "neg": -7, "big": 9007199254740993, "f": 2.5, "z": 0, "t": True, "l": [3, 1, 2],
    "d": {"b": 1, "a": [1, {"k": None}], "items": 5},
    "m": [{"n": "x", "v": 2}, {"n": "Y", "v": 1}, {"n": "z"}],
    "q": "it's \"q\"\\ \u00a0\u200b\x7f\n\t\x01é😀",
    "nest": {"a": {"b": [10, 20]}}, "html": "<a href='x'>&\"</a>", "lines": "one\n\ntwo\r\nthree",
    "empty": [],    "num": "42", "words": "a-b c.d e_f", "path": "a.b.c", "rep": "aaabaaa",
}

EXPRESSIONS = open(os.path.join(HERE, "expressions.txt"), encoding="utf-8").read().split("\n")
STATEMENTS = open(os.path.join(HERE, "statements.txt"), encoding="utf-8").read().split("\n====\n")


def main():
    cases = []

    def add(name, template, context):
        kind, value = render(template, context)
        cases.append({"name": name, "template": template, "context": context, kind: value})

    for t, template in FAMILIES.items():
        for c, context in CONTEXTS.items():
            common = {"bos_token": "<s>", "eos_token": "</s>", "tools": None}
            add("%s/%s" % (t, c), template, {**common, **context})
    out = {"families": cases, "data": DATA}
    table = []
    for line in EXPRESSIONS:
        if line and not line.startswith("## "):
            table.append([line, *render("{{ %s }}" % line, DATA)])
    out["expressions"] = table
    out["statements"] = [[s, *render(s, DATA)] for s in STATEMENTS]
    text = json.dumps(out, ensure_ascii=True, indent=0, separators=(",", ":")) + "\n"
    path = os.path.join(HERE, "vectors.json")
    if "--check" in sys.argv:
        same = open(path, encoding="ascii").read() == text
        print("vectors.json is up to date" if same else "vectors.json differs")
        return 0 if same else 1
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    errors = sum(1 for row in table if row[1] == "error")
    print("%d chats, %d expressions (%d of them errors), %d statements" %
          (len(cases), len(table), errors, len(out["statements"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
