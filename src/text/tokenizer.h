/* Text to token ids and back: byte-level BPE (GPT-2 style, `tokenizer.ggml.model` = gpt2) with its
 * pre-tokenisers, BPE over characters with byte fallback (Llama's tokenizer.json), and SentencePiece's
 * BPE with scores and byte fallback (tokenizer.model, `tokenizer.ggml.model` = llama).
 *
 * Ids agree with Hugging Face `tokenizers` built from the same vocabulary. A tokenizer is immutable
 * after open and may be used by any thread at once, without locks. It copies what it needs: the file
 * may be closed after open. */
#ifndef ASHLEY_TEXT_TOKENIZER_H
#define ASHLEY_TEXT_TOKENIZER_H

#include "format/checkpoint.h"
#include "text/span.h"

/* A growing list of token ids. The caller's storage: start from ASH_IDS_INIT or with a cap of your
 * own (a model's context), end with ash_ids_release. */
typedef struct ash_ids {
    int32_t *p; /* owned */
    size_t n, cap;
    size_t max; /* most ids it may hold; 0 means no cap but memory */
} ash_ids;

#define ASH_IDS_INIT ((ash_ids){0})
int ash_ids_add(ash_ids *ids, int32_t id, ash_err *err) ASH_MUST_CHECK; /* ASH_ENOMEM, ASH_ELIMIT */
void ash_ids_release(ash_ids *ids);                                    /* safe twice */

typedef struct ash_tokenizer ash_tokenizer;

/* ASH_ENOENT no tokenizer in the file; ASH_EUNSUPPORTED another model or an unknown `pre`, with the
 * known ones listed; ASH_EFORMAT for a key that lies; ASH_ENOMEM. */
int ash_tokenizer_open_gguf(const ash_gguf *g, ash_tokenizer **out, ash_err *err) ASH_MUST_CHECK;
/* Of any checkpoint: a GGUF's own; else tokenizer.json, else tokenizer.model (SentencePiece), with
 * tokenizer_config.json, special_tokens_map.json, added_tokens.json, generation_config.json and
 * config.json for BOS, EOS, ends of text and added tokens. Errors as above. */
int ash_tokenizer_open(const ash_checkpoint *c, ash_tokenizer **out, ash_err *err) ASH_MUST_CHECK;
void ash_tokenizer_close(ash_tokenizer *t); /* NULL is fine */
/* "tokenizer.json", "tokenizer.model", "GGUF". */
const char *ash_tokenizer_from(const ash_tokenizer *t);
/* What the files disagree on and which was taken, a line each; "" if they agree. */
const char *ash_tokenizer_note(const ash_tokenizer *t);

enum {
    ASH_ENCODE_SPECIAL = 1, /* special tokens written in the text become their ids */
    ASH_ENCODE_BOS_EOS = 2, /* put BOS before and EOS after as the checkpoint says (even if empty) */
};

/* Appends the ids of text[0..n) to *out. On failure *out holds what it held before.
 *
 * `untrusted` lists sorted, non-overlapping byte ranges of the text in which no special token is
 * honoured: one counts only if it lies wholly outside of them. All else is tokenised as one whole
 * text in which such a token does not exist; merges cross the ranges' borders. Without
 * ASH_ENCODE_SPECIAL the whole text counts as untrusted. Special here are all control tokens, and the
 * user-defined ones that look like markup ("<think>", "[INST]"); other user-defined tokens (such as
 * DeepSeek's single letters or runs of spaces) are ordinary vocabulary and always match.
 *
 * Invalid UTF-8 is read as U+FFFD, one for each maximal subpart. Costs O(n log n) at worst (one long
 * word) and about 24 to 40 bytes of scratch per byte of the longest word. ASH_ELIMIT over ASH_MAX_TEXT
 * bytes or more than out->max ids (told early when the text cannot fit); ASH_ENOMEM; ASH_EINVAL bad
 * ranges. */
int ash_tokenizer_encode(const ash_tokenizer *t, const char *text, size_t n, unsigned flags,
                         const ash_span *untrusted, size_t n_untrusted, ash_ids *out,
                         ash_err *err) ASH_MUST_CHECK;

/* Ids are 0 .. n_vocab-1. The model's own vocabulary (rows of its head) may be larger. */
size_t ash_tokenizer_n_vocab(const ash_tokenizer *t);
/* The bytes that the token stands for (" world", one byte of a code point, "<|im_end|>"); borrowed.
 * False for ids out of range; empty and unused tokens give an empty string. */
bool ash_tokenizer_piece(const ash_tokenizer *t, int32_t id, ash_str *out);
/* A control or unknown token: not part of the text that a user should see. User-defined markup such as
 * "<think>" is no special token here: it is text of the answer. False for ids out of range. */
bool ash_tokenizer_is_special(const ash_tokenizer *t, int32_t id);
/* The id ends an answer: EOS, EOT, EOM and the well-known turn ends whatever the file's eos says. */
bool ash_tokenizer_is_eog(const ash_tokenizer *t, int32_t id);
/* All of them, ascending; borrowed. */
const int32_t *ash_tokenizer_eog(const ash_tokenizer *t, size_t *n);
/* -1 where the vocabulary has none. */
int32_t ash_tokenizer_bos(const ash_tokenizer *t);
int32_t ash_tokenizer_eos(const ash_tokenizer *t);
int32_t ash_tokenizer_eot(const ash_tokenizer *t);
int32_t ash_tokenizer_unk(const ash_tokenizer *t);
int32_t ash_tokenizer_pad(const ash_tokenizer *t);
bool ash_tokenizer_adds_bos(const ash_tokenizer *t);
bool ash_tokenizer_adds_eos(const ash_tokenizer *t);
/* The id of the token with exactly this text as the vocabulary writes it, special ones included; of
 * several the lowest. -1 if none. */
int32_t ash_tokenizer_find(const ash_tokenizer *t, const char *text, size_t n);
/* The checkpoint's chat template: chat_template.jinja, additional_chat_templates/, tokenizer_config.json
 * "chat_template" (text, or a list of which "default" is taken), chat_template.json, in this order, as
 * transformers takes them; or GGUF tokenizer.chat_template. False if there is none. Borrowed. */
bool ash_tokenizer_chat_template(const ash_tokenizer *t, ash_str *out);
/* Where it was: "tokenizer_config.json", "GGUF tokenizer.chat_template", ...; "none". */
const char *ash_tokenizer_template_from(const ash_tokenizer *t);
/* One of several by name ("tool_use", "rag"). */
bool ash_tokenizer_named_template(const ash_tokenizer *t, const char *name, ash_str *out);

/* ---- streaming decoder ---------------------------------------------------------------------- */

enum {
    ASH_DETOK_SPECIAL = 1,  /* write special tokens as text; otherwise they vanish */
    ASH_DETOK_CONTINUE = 2, /* the ids go on from earlier text: a leading space stays */
};

/* Turns ids into text, one after the other. The caller's storage, nothing to release, one thread at
 * a time; borrows the tokenizer. Only whole code points are ever written: the start of one is held
 * back until its rest comes. Bytes that can no longer become a code point are U+FFFD: one for each
 * byte with byte fallback (as the ByteFallback decoder), one for each maximal subpart with
 * byte-level BPE (as the ByteLevel decoder). SentencePiece vocabularies drop the one leading space
 * that encoding put there. */
typedef struct ash_detok {
    const ash_tokenizer *tok;
    unsigned flags;
    bool started; /* something was written: no leading space to drop any more */
    uint8_t n_stripped;
    uint8_t n_held;
    char held[4];
} ash_detok;

void ash_detok_init(ash_detok *d, const ash_tokenizer *t, unsigned flags);
/* Appends what id adds to `out`; may be nothing. Ids out of range and empty tokens add nothing.
 * Fails only as the buffer does (ASH_ENOMEM, ASH_ELIMIT). */
int ash_detok_push(ash_detok *d, int32_t id, ash_buf *out) ASH_MUST_CHECK;
/* At the end: what is still held is U+FFFD. The decoder is then as after init. */
int ash_detok_flush(ash_detok *d, ash_buf *out) ASH_MUST_CHECK;

#endif
