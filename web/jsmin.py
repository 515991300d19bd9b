"""Takes comments and indentation out of JavaScript and CSS, and nothing else: no renaming, no joining
of lines, so that automatic semicolons fall where they fell before.

A scanner of tokens, not a parser: it must only know where strings, templates, regular expressions
and comments begin and end. Whether a slash divides or opens a regular expression is told by the
token before it.
"""

import re

# A slash after one of these opens a regular expression.
REGEX_AFTER = set("(,=:[!&|?{};+-*%~^<>") | {""}
REGEX_WORDS = {"return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "instanceof",
               "else", "do", "yield", "await"}
WORD = re.compile(r"[A-Za-z0-9_$]+")
REGEX = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*")
STRING = re.compile(r"""'(?:[^'\\\n]|\\[\s\S])*'|"(?:[^"\\\n]|\\[\s\S])*\"""")
BLANK = re.compile(r"[ \t]*\n\s*")


def template_end(text, at):
    """Index after the template literal that opens at `at`; ${…} may hold templates again."""
    i = at + 1
    while text[i] != "`":
        if text[i] == "\\":
            i += 2
        elif text.startswith("${", i):
            i = braces_end(text, i + 2)
        else:
            i += 1
    return i + 1


def braces_end(text, i):
    """Index after the brace that closes the ${ whose content begins at i."""
    depth = 1
    while depth:
        c = text[i]
        if c == "`":
            i = template_end(text, i)
            continue
        m = STRING.match(text, i) if c in "'\"" else None
        if m:
            i = m.end()
            continue
        depth += (c == "{") - (c == "}")
        i += 1
    return i


def strip_js(text):
    """The same program without comments, indentation and empty lines."""
    out, i, last = [], 0, ""
    while i < len(text):
        c = text[i]
        if text.startswith("//", i):
            end = text.find("\n", i)
            i = len(text) if end < 0 else end
        elif text.startswith("/*", i):
            end = text.index("*/", i) + 2
            # A comment over several lines counts as a line break.
            out.append("\n" if "\n" in text[i:end] else " ")
            i = end
        elif c in "'\"":
            m = STRING.match(text, i)
            out.append(m[0])
            i, last = m.end(), c
        elif c == "`":
            end = template_end(text, i)
            out.append("\0" + text[i:end] + "\0")
            i, last = end, c
        elif c == "/" and (last in REGEX_AFTER or last in REGEX_WORDS):
            m = REGEX.match(text, i)
            out.append(m[0])
            i, last = m.end(), "/re/"
        elif m := WORD.match(text, i):
            out.append(m[0])
            i, last = m.end(), m[0]
        else:
            out.append(c)
            i += 1
            if not c.isspace():
                last = c
    # Templates keep their spaces: they stand between NUL marks while the lines are tightened.
    parts = "".join(out).split("\0")
    parts[::2] = [BLANK.sub("\n", p) for p in parts[::2]]
    return "".join(parts).strip() + "\n"


def strip_css(text):
    text = re.sub(r"/\*[\s\S]*?\*/", "", text)
    return BLANK.sub("\n", text).strip() + "\n"
