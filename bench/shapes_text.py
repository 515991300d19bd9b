"""Synthetic tokenizers for shapes.py: byte-level and SentencePiece-style BPE of a given size, with the
special tokens and templates of the families. Letters merge to pairs, pairs to fours, until the vocabulary
is full."""
import itertools

LETTERS = "etaoinshrdlucmfwypvbgkjqxz"

CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
          "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
          "{% endif %}")
DEEPSEEK_LLM = ("{% if not add_generation_prompt is defined %}"
                "{% set add_generation_prompt = false %}{% endif %}"
                "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
                "{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}"
                "{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}"
                "{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
                "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}")
DEEPSEEK_V3 = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
               "{{ '<｜User｜>' + message['content'] }}{% elif message['role'] == 'assistant' %}"
               "{{ '<｜Assistant｜>' + message['content'] + eos_token }}{% else %}{{ message['content'] }}"
               "{% endif %}{% endfor %}"
               "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}")

# family: byte-level?, base vocabulary, added tokens (id, text, special), bos, eos, template
FAMILIES = {
    "mistral": (False, 32000, [(32000, "<|im_end|>", True), (32001, "<|im_start|>", True)], "<s>",
                "<|im_end|>", CHATML),
    "llama": (False, 32000, [], "<s>", "</s>", None),
    "deepseek-llm": (True, 100000, [(100000, "<｜begin▁of▁sentence｜>", True),
                                    (100001, "<｜end▁of▁sentence｜>", True)] +
                     [(100002 + i, c, False) for i, c in enumerate("øöúÿõ÷ûýÀùÁþü")],
                     "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", DEEPSEEK_LLM),
    "deepseek-v3": (True, 128000, [(0, "<｜begin▁of▁sentence｜>", True), (1, "<｜end▁of▁sentence｜>", True),
                                   (2, "<｜▁pad▁｜>", True), (128798, "<think>", False),
                                   (128799, "</think>", False), (128803, "<｜User｜>", False),
                                   (128804, "<｜Assistant｜>", False)],
                    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", DEEPSEEK_V3),
}


def byte_chars():
    """GPT-2's table: a printable character for each byte."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = iter(range(256, 512))
    return [chr(b) if b in keep else chr(next(rest)) for b in range(256)]


def vocabulary(family):
    """Tokens by id without the added ones at the end, and merges."""
    bytes_, size, added, *_ = FAMILIES[family]
    space = "Ġ" if bytes_ else "▁"
    if bytes_:
        known = {t for _, t, _ in added}  # DeepSeek adds the 13 bytes that UTF-8 never has as letters
        tokens = [t for i, t, _ in sorted(added) if i < 3] + [c for c in byte_chars() if c not in known]
    else:
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + [space] + \
            [chr(c) for c in range(33, 127)]
    merges = []
    pairs = ["".join(p) for p in itertools.product(LETTERS, LETTERS)]
    steps = itertools.chain(((a, b) for a, b in itertools.product(LETTERS, LETTERS)),
                            ((space, t) for t in itertools.chain(LETTERS, pairs)),
                            ((a, b) for a, b in itertools.product(pairs, pairs)))
    for left, right in steps:
        if len(tokens) >= size:
            break
        tokens.append(left + right)
        merges.append(f"{left} {right}")
    return tokens, merges


def token(i, text, special):
    return {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": not special, "special": special}


def tokenizer_json(family):
    bytes_, _, added, bos, *_ = FAMILIES[family]
    tokens, merges = vocabulary(family)
    model = {"type": "BPE", "dropout": None, "unk_token": None if bytes_ else "<unk>",
             "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": not bytes_,
             "byte_fallback": not bytes_, "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges}
    if bytes_:
        text = {"normalizer": {"type": "Sequence", "normalizers": []},
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": "[\r\n]"}, "behavior": "Isolated",
                     "invert": False},
                    {"type": "Split", "pattern": {"Regex": "\\s?\\p{L}+"}, "behavior": "Isolated",
                     "invert": False},
                    {"type": "Digits", "individual_digits": True},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                     "use_regex": False}]},
                "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
                                   "use_regex": True},
                "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                            "use_regex": True}}
    else:
        added = [(0, "<unk>", True), (1, "<s>", True), (2, "</s>", True)] + added
        text = {"normalizer": {"type": "Sequence", "normalizers": [
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
                "pre_tokenizer": None,
                "post_processor": {"type": "TemplateProcessing",
                                   "single": [{"SpecialToken": {"id": bos, "type_id": 0}},
                                              {"Sequence": {"id": "A", "type_id": 0}}],
                                   "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                                            {"Sequence": {"id": "B", "type_id": 0}}],
                                   "special_tokens": {bos: {"id": bos, "ids": [1], "tokens": [bos]}}},
                "decoder": {"type": "Sequence", "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"}, {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [token(*t) for t in sorted(added)]} | text | {"model": model}


def files(family, n_vocab):
    """File names and contents: a JSON value each. Ids that the model has no row for are left out."""
    bytes_, _, added, bos, eos, template = FAMILIES[family]
    value = tokenizer_json(family)
    value["added_tokens"] = [t for t in value["added_tokens"] if t["id"] < n_vocab]
    config = {"add_bos_token": True, "add_eos_token": False, "bos_token": bos, "eos_token": eos,
              "clean_up_tokenization_spaces": False, "model_max_length": 16384,
              "tokenizer_class": "LlamaTokenizerFast" if bytes_ else "LlamaTokenizer"}
    if template:
        config["chat_template"] = template
    return {"tokenizer.json": value, "tokenizer_config.json": config,
            "special_tokens_map.json": {"bos_token": bos, "eos_token": eos}}


def gguf_pairs(family, n_vocab):
    """The tokenizer as a GGUF's metadata; byte-level families only."""
    _, _, added, bos, eos, template = FAMILIES[family]
    tokens, merges = vocabulary(family)
    ids = {t: i for i, t, _ in added}
    types = [1] * len(tokens)
    for i, text, special in sorted(added):
        if i == len(tokens):
            tokens.append(text)
            types.append(3 if special else 4)
    types += [5] * (n_vocab - len(tokens))
    tokens += [f"[PAD{i}]" for i in range(len(tokens), n_vocab)]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "deepseek-llm",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.bos_token_id": ids[bos], "tokenizer.ggml.eos_token_id": ids[eos],
            "tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": template}
