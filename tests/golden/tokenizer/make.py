#!/usr/bin/env python3
"""Makes the tokenizer fixtures and golden ids of this folder, from other people's tokenizers.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install -r requirements.txt
    /tmp/venv/bin/python make.py MODEL.gguf

MODEL.gguf is SmolLM2-135M-Instruct Q4_1 (see scripts/run). Written here:

    bpe.gguf       a byte-level BPE vocabulary trained on texts.json by Hugging Face `tokenizers`
    spm.gguf       a SentencePiece BPE vocabulary with byte fallback, trained by `sentencepiece`
    golden.json    for each pre-tokeniser the words of each text, as lengths in bytes, and over bpe.gguf
                   the ids, by `tokenizers`; for spm.gguf the ids by
                   `sentencepiece`, for the real model by `tokenizers` over its vocabulary and merges

A text is {"text": ...} or, where it is not UTF-8, {"hex": ...}; ids are those of the text as Python
decodes it with errors="replace". The fixtures hold 2 user-defined and 3 control tokens; golden ids of
"special" cases match them, all others do not.
"""
import json
import os
import re
import sys
import tempfile

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "..", "..", "..", "src", "text", "tokenizer_pre.c")

with open(os.path.join(HERE, "texts.json")) as f:
    INPUT = json.load(f)
TEXTS, HEX, SPECIAL = INPUT["texts"], INPUT["not_utf8"], INPUT["special"]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def llama3(digits):
    return (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits +
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
          r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
V3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
      r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")


def deepseek_letters():
    """The long class of letters, as src/text/tokenizer_pre.c escapes it: there is one copy of it."""
    with open(SOURCE) as f:
        macro = r"#define DEEPSEEK_LETTERS\s.*?\n((?:\s+\"[^\"]*\"\s*\\?\n)+)"
        body = re.search(macro, f.read()).group(1)
    text = "".join(re.findall(r'"([^"]*)"', body))
    return re.sub(r"\\\\x\{([0-9A-F]+)\}", lambda m: chr(int(m.group(1), 16)), text)


def split(*patterns):
    return [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]


def level(use_regex=False):
    return [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)]


def pre_tokenisers():
    """name -> (stages, NFC, ignore_merges)"""
    return {
        "default": (split(r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]") + level(),
                    False, False),
        "gpt-2": (level(True), False, False),
        "smollm": ([pre_tokenizers.Digits(individual_digits=True)] + level(True), False, False),
        "llama-bpe": (split(llama3(r"\p{N}{1,3}")) + level(), False, True),
        "qwen2": (split(llama3(r"\p{N}")) + level(), True, False),
        "tekken": (split(TEKKEN) + level(), False, True),
        "deepseek-llm": (split("[\r\n]", r"\s?[" + deepseek_letters() + "]+",
                               r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
                               r"\s+$", CJK) +
                         [pre_tokenizers.Digits(individual_digits=True)] + level(), False, False),
        "deepseek-coder": (split("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK) +
                           [pre_tokenizers.Digits(individual_digits=True)] + level(), False, False),
        "deepseek-v3": (split(r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", V3) +
                        level(), False, False),
    }


def build(vocab, merges, added, pre, nfc, ignore_merges):
    tok = Tokenizer(models.BPE(vocab, merges, ignore_merges=ignore_merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence(pre)
    if nfc:
        tok.normalizer = normalizers.NFC()
    tok.add_tokens([AddedToken(t, special=False, normalized=False) for t in added["user"]])
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in added["control"]])
    return tok


# ---- the byte-level fixture ------------------------------------------------------------------------

CONTROL = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]
USER = ["<think>", "</think>", "\u00fc"]


def train_bpe():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator([t for t in TEXTS if "<" not in t] * 4, trainer)
    model = json.loads(tok.to_str())["model"]
    vocab = model["vocab"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    for t in CONTROL + USER:
        # As in DeepSeek's, \u00fc is there already: the letter of a byte that UTF-8 never has.
        vocab.setdefault(t, len(vocab))
    return vocab, merges


def writer(name, model, pre=None):
    w = gguf.GGUFWriter(os.path.join(HERE, name), "llama")
    w.add_tokenizer_model(model)
    if pre:
        w.add_tokenizer_pre(pre)
    return w


def close(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_bpe(vocab, merges):
    tokens = [t for t, _ in sorted(vocab.items(), key=lambda kv: kv[1])]
    types = [3 if t in CONTROL else 4 if t in USER else 1 for t in tokens]
    w = writer("bpe.gguf", "gpt2", "gpt-2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges([" ".join(m) for m in merges])
    w.add_bos_token_id(vocab["<s>"])
    w.add_eos_token_id(vocab["</s>"])
    w.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    close(w)


def word_lengths(stages, text):
    """Lengths in bytes of the words that the stages cut text into."""
    words = [(0, len(text))]
    for stage in stages:
        if isinstance(stage, pre_tokenizers.ByteLevel) and not stage.use_regex:
            continue  # letters only
        words = [(a + i, a + k) for a, b in words for _, (i, k) in stage.pre_tokenize_str(text[a:b])]
    return [len(text[a:b].encode()) for a, b in words]


def bpe_ids(tok, text):
    return tok.encode(text, add_special_tokens=False).ids


def plain(vocab, merges, pre, user):
    """A tokenizer that knows no control token and no markup: what untrusted text sees."""
    return build(vocab, merges, {"user": [t for t in user if not t.startswith("<")], "control": []}, *pre)


# ---- the SentencePiece fixture ---------------------------------------------------------------------

def make_spm():
    with tempfile.TemporaryDirectory() as d:
        corpus = os.path.join(d, "c.txt")
        with open(corpus, "w", encoding="utf-8", newline="") as f:
            for t in TEXTS * 4:
                for line in re.split(r"[\r\n]", t.replace("\x00", "")):
                    f.write(line + "\n")
        sentencepiece.SentencePieceTrainer.train(
            input=corpus, model_prefix=os.path.join(d, "m"), vocab_size=900, model_type="bpe",
            byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
            add_dummy_prefix=True, character_coverage=0.98, hard_vocab_limit=False, minloglevel=2,
            num_threads=1, input_sentence_size=0,
            user_defined_symbols=["<think>", "</think>"], control_symbols=["<|im_start|>", "<|im_end|>"])
        sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(d, "m.model"))
    n = sp.get_piece_size()
    types = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else
             4 if sp.id_to_piece(i) in ("<think>", "</think>") else 1 for i in range(n)]
    w = writer("spm.gguf", "llama", "default")
    w.add_token_list([sp.id_to_piece(i) for i in range(n)])
    w.add_token_scores([sp.get_score(i) for i in range(n)])
    w.add_token_types(types)
    w.add_bos_token_id(sp.bos_id())
    w.add_eos_token_id(sp.eos_id())
    w.add_unk_token_id(sp.unk_id())
    close(w)
    return sp


# ---- golden ids ------------------------------------------------------------------------------------

def decoded(case):
    return case["text"] if "text" in case else bytes.fromhex(case["hex"]).decode("utf-8", "replace")


def model_tokenizer(path):
    r = gguf.GGUFReader(path)
    tokens = r.fields["tokenizer.ggml.tokens"].contents()
    types = r.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in r.fields["tokenizer.ggml.merges"].contents()]
    vocab = {t: i for i, t in enumerate(tokens)}
    control = [t for t, y in zip(tokens, types) if y == 3]
    return vocab, merges, control


def lines(values):
    return ",\n".join(json.dumps(v, separators=(",", ":")) for v in values)


def main():
    cases = [{"text": t} for t in TEXTS] + [{"hex": h} for h in HEX]
    out = {"cases": cases, "special_cases": [{"text": t} for t in SPECIAL], "words": {}, "ids": {},
           "special_ids": {}}
    vocab, merges = train_bpe()
    write_bpe(vocab, merges)
    pres = pre_tokenisers()
    for name, pre in pres.items():
        tok = plain(vocab, merges, pre, USER)
        out["words"][name] = [word_lengths(pre[0], decoded(c)) for c in cases]
        out["ids"][name] = [bpe_ids(tok, decoded(c)) for c in cases]
    full = build(vocab, merges, {"user": USER, "control": CONTROL}, *pres["gpt-2"])
    out["special_ids"]["gpt-2"] = [bpe_ids(full, t) for t in SPECIAL]
    sp = make_spm()
    # sentencepiece always cuts its user-defined symbols out; ours are markup, not honoured in plain text
    assert not any("think>" in decoded(c) for c in cases)
    out["ids"]["spm"] = [sp.encode(decoded(c)) for c in cases]
    if len(sys.argv) > 1:
        vocab, merges, control = model_tokenizer(sys.argv[1])
        tok = plain(vocab, merges, pres["smollm"], [])
        out["ids"]["smollm2"] = [bpe_ids(tok, decoded(c)) for c in cases]
        full = build(vocab, merges, {"user": [], "control": control}, *pres["smollm"])
        out["special_ids"]["smollm2"] = [bpe_ids(full, t) for t in SPECIAL]
    with open(os.path.join(HERE, "golden.json"), "w") as f:
        f.write("{\n")
        f.write('"cases": [\n%s\n],\n' % lines(cases))
        f.write('"special_cases": [\n%s\n],\n' % lines(out["special_cases"]))
        for part, last in (("words", ","), ("ids", ","), ("special_ids", "")):
            f.write('"%s": {\n' % part)
            f.write(",\n".join('"%s": [\n%s\n]' % (k, lines(v)) for k, v in out[part].items()))
            f.write("\n}%s\n" % last)
        f.write("}\n")


if __name__ == "__main__":
    main()
