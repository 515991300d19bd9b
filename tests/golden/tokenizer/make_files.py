#!/usr/bin/env python3
"""Makes files.json: tokenizers as Hugging Face and SentencePiece write them, small and trained here, with
the ids and texts that `tokenizers` and `sentencepiece` give for texts.json.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install -r requirements.txt
    /tmp/venv/bin/python make_files.py

files.json holds
    models     "bytes" (letters for bytes) and "chars" (characters, byte fallback): the "model" of a
               tokenizer.json, which variants share; "sp...": a tokenizer.model in base64
    cases      texts
    variants   {"name", "model", "set": changes to the model, "file": the other parts of tokenizer.json,
               "ids": of each case, with added tokens matched, "text": of those ids again, null where it is
               that of the case, false where tokenizers is not followed}
"""
import base64
import io
import json
import os

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from make import SPECIAL, TEXTS, V3, deepseek_letters, llama3

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = TEXTS + SPECIAL + [
    "▁", "▁▁a ▁", "<0x41> <0xZZ>", "a\u0301 e\u0301<x>e\u0301", "see<mask>", "see  <mask>  it<mask>",
    "café<think>the  <think> the", "q9 aq9 q9, q99", "12 3456 7", "x\u3000<s>  y\n<s>\n z", "\u00b2\u00bd w",
]

# ---- models --------------------------------------------------------------------------------------------


def train_bytes():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.train_from_iterator([t for t in TEXTS if "<" not in t and "\0" not in t] * 4, trainers.BpeTrainer(
        vocab_size=420, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(tok.to_str())["model"]


def train_chars():
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.train_from_iterator([t for t in TEXTS if "<" not in t and "\0" not in t] * 4, trainers.BpeTrainer(
        vocab_size=480, show_progress=False, limit_alphabet=90,
        special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]))
    return json.loads(tok.to_str())["model"]


def train_sp(**options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for t in TEXTS * 4 for line in t.replace("\0", "").splitlines()]),
        model_writer=out, vocab_size=540, model_type="bpe", byte_fallback=True, minloglevel=2,
        normalization_rule_name="identity", character_coverage=0.98, hard_vocab_limit=False, num_threads=1,
        user_defined_symbols=["\u2581\u2581", "ab", "\u00fc"], control_symbols=["<|im_start|>"], **options)
    return out.getvalue()


# ---- parts of tokenizer.json ---------------------------------------------------------------------------


def sequence(kind, *steps):
    return {"type": "Sequence", kind: list(steps)}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def level(use_regex=False, add_prefix_space=False):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True,
            "use_regex": use_regex}


def meta(scheme, cut):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}


def replace(a, b, kind="String"):
    return {"type": "Replace", "pattern": {kind: a}, "content": b}


def added(id, content, **flags):
    token = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
    token.update(flags)
    return token


PREPEND = {"type": "Prepend", "prepend": "\u2581"}
DIGITS = {"type": "Digits", "individual_digits": True}
NFC = {"type": "NFC"}
FALLBACK = sequence("decoders", replace("\u2581", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0})
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"


def specials(n):
    """<s> and </s> as usual, others with each of the flags."""
    return [added(n, "<s>"), added(n + 1, "</s>"), added(n + 2, "<think>", special=False, normalized=True),
            added(n + 3, "<mask>", lstrip=True), added(n + 4, "<|im_end|>", rstrip=True),
            added(n + 5, "q9", single_word=True, special=False), added(n + 6, "e\u0301<x>", normalized=True)]


def llama_specials():
    return [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]


def byte_variants(n):
    def make(name, pre, norm=None, tokens=None, **changes):
        return {"name": name, "model": "bytes", "set": changes,
                "file": {"added_tokens": specials(n) if tokens is None else tokens, "normalizer": norm,
                         "pre_tokenizer": pre, "decoder": level(True, True)}}

    def stages(*steps):
        return sequence("pretokenizers", *steps, level())

    letters = [added(n, "<s>"), added(n + 1, "\u00fc\u00fc", special=False, normalized=True)]
    yield make("gpt2", level(True))
    yield make("gpt2 with a space before", level(True, True))
    yield make("smollm", sequence("pretokenizers", DIGITS, level(True)))
    yield make("llama3", stages(split(llama3(r"\p{N}{1,3}"))), ignore_merges=True)
    yield make("qwen2", stages(split(llama3(r"\p{N}"))), NFC)
    yield make("deepseek-llm", stages(
        split("[\r\n]"), split(r"\s?[" + deepseek_letters() + "]+"),
        split(r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"), split(r"\s+$"),
        split(CJK), DIGITS), sequence("normalizers"), letters)
    yield make("deepseek-coder", stages(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"),
                                        split(CJK), DIGITS))
    yield make("deepseek-v3", stages(
        split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(V3)))
    for behavior in ("Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            yield make("%s, %d" % (behavior, invert), stages(split(r"\s|\p{P}", behavior, invert)))
    yield make("strings", stages(split(" ", "MergedWithNext", kind="String"),
                                 split("a", "Removed", kind="String")))
    yield make("words", stages({"type": "Whitespace"}, {"type": "Punctuation", "behavior": "Contiguous"}))
    yield make("a match of nothing", stages(split("x*"), split(r"\w+|[^\S\n]{,2}$", "Contiguous")))
    yield make("ends of lines", stages(split(r"^.|\s+$"), {"type": "Digits", "individual_digits": False}))
    yield make("replaced", level(True), sequence("normalizers", replace(r"\p{N}+", "#", "Regex"),
                                                  {"type": "Strip", "strip_left": True, "strip_right": False},
                                                  replace("the", "")))
    few = {"vocab": lambda v: {k: i for i, k in enumerate(k for k in v if k not in "!?xyz")},
           "merges": lambda m: [x for x in m if not set("".join(x)) & set("!?xyz")]}
    yield make("no letters for some bytes", level(True), tokens=[], **few)


def char_variants(n):
    def make(name, pre, norm=None, tokens=None, decoder=FALLBACK, **changes):
        return {"name": name, "model": "chars", "set": changes,
                "file": {"added_tokens": llama_specials() if tokens is None else tokens, "normalizer": norm,
                         "pre_tokenizer": pre, "decoder": decoder}}

    legacy = sequence("normalizers", PREPEND, replace(" ", "\u2581"))
    more = llama_specials() + [added(n, "<think>", special=False, normalized=True),
                               added(n + 1, "<|im_end|>"),
                               added(n + 2, "\u2581\u2581", special=False, normalized=False)]
    yield make("llama2", None, legacy)
    yield make("llama2 with added tokens", None, legacy, more)
    yield make("llama2, first only", meta("first", False), tokens=more)
    yield make("metaspace", meta("always", True), decoder=meta("always", True))
    yield make("metaspace, never", meta("never", True), decoder=meta("never", True), ignore_merges=True)
    yield make("unknown, fused", meta("always", True), byte_fallback=False)
    yield make("unknown, each", meta("always", False), byte_fallback=False, fuse_unk=False)
    yield make("unknown, lost", None, legacy, byte_fallback=False, unk_token=None)


# ---- golden ids ----------------------------------------------------------------------------------------


def whole(model, variant):
    m = dict(model)
    for key, value in variant["set"].items():
        m[key] = value(m[key]) if callable(value) else value
    return dict(variant["file"], version="1.0", truncation=None, padding=None, post_processor=None, model=m)


def run(model, variant):
    tok = Tokenizer.from_str(json.dumps(whole(model, variant)))
    ids = [tok.encode(t, add_special_tokens=False).ids for t in CASES]
    texts = [tok.decode(i, skip_special_tokens=False) for i in ids]
    variant["ids"] = ids
    variant["text"] = [None if a == b else a for a, b in zip(texts, CASES)]
    for i, (text, case) in enumerate(zip(texts, CASES)):
        # tokenizers reads the letters of added tokens as bytes, and puts the normaliser's space before
        # normalised ones; here a token is its own text
        if ("\ufffd" in text and "\ufffd" not in case) or "<think>the  <think>" in text:
            variant["text"][i] = False
    # changes that are functions are written as what they made
    changed = whole(model, variant)["model"]
    variant["set"] = {k: changed[k] for k in variant["set"]}
    return variant


def run_sp(name, model):
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = [sp.encode(t) for t in CASES]
    texts = [sp.decode(i) for i in ids]
    return {"name": name, "model": name, "ids": ids,
            "text": [None if a == b else a for a, b in zip(texts, CASES)]}


def lines(values):
    return ",\n".join(json.dumps(v, separators=(",", ":")) for v in values)


def main():
    model = {"bytes": train_bytes(), "chars": train_chars()}
    # one of them as old writers do it, "a b"
    model["chars"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in model["chars"]["merges"]]
    n_bytes, n_chars = len(model["bytes"]["vocab"]), len(model["chars"]["vocab"])
    variants = [run(model["bytes"], v) for v in byte_variants(n_bytes)]
    variants += [run(model["chars"], v) for v in char_variants(n_chars)]
    sp = {"sp": train_sp(remove_extra_whitespaces=False, add_dummy_prefix=True),
          "sp trimmed": train_sp(remove_extra_whitespaces=True, add_dummy_prefix=True),
          "sp bare": train_sp(remove_extra_whitespaces=False, add_dummy_prefix=False)}
    variants += [run_sp(name, m) for name, m in sp.items()]
    model.update({name: base64.b64encode(m).decode() for name, m in sp.items()})
    with open(os.path.join(HERE, "files.json"), "w") as f:
        f.write('{"models": {\n%s\n},\n' % ",\n".join(
            "%s: %s" % (json.dumps(k), json.dumps(v, separators=(",", ":"))) for k, v in model.items()))
        f.write('"cases": [\n%s\n],\n"variants": [\n%s\n]}\n' % (lines(CASES), lines(variants)))


if __name__ == "__main__":
    main()
