/* Any text, with any ranges of it untrusted, through each pre-tokeniser and the SentencePiece model.
 *
 * Input: a byte that chooses the tokenizer, a byte of flags, four bytes that place two untrusted
 * ranges, then the text. Must hold: ids are in the vocabulary; no special token comes out of a text
 * that is untrusted as a whole; a byte-level vocabulary with all bytes gives valid text back as it was
 * (but for NFC); what the decoder writes is UTF-8 at every step. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/unit/format/gguf_writer.h"
#include "base/utf8.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const pres[] = {"default", "gpt-2", "smollm", "llama-bpe", "qwen2", "tekken",
                                   "deepseek-llm", "deepseek-coder", "deepseek-v3"};
enum { N_PRES = sizeof pres / sizeof *pres, N_BPE = 256 + 8 + 5, SPM = N_PRES };

static ash_tokenizer *tokenizers[N_PRES + 1];

static ash_tokenizer *open_buf(ash_buf *b)
{
    ash_gguf *g;
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    if (b->failed || ash_gguf_open_memory(b->data, b->len, "made", &g, &err) ||
        ash_tokenizer_open_gguf(g, &t, &err))
        abort();
    ash_gguf_close(g);
    ash_buf_release(b);
    return t;
}

/* The letter of a byte, as in GPT-2's encoder. */
static size_t letter(unsigned b, char out[4])
{
    bool plain = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    return ash_utf8_encode(plain ? b : b <= 0x20 ? 0x100 + b : b == 0xAD ? 0x143 : 0xA2 + b, out);
}

static ash_tokenizer *make_bpe(const char *pre)
{
    static const char *const more[] = {"he", "ll", "hell", "hello", "aa", "aaaa", "\xc4\xa0\xc4\xa0",
                                       "\xc4\xa0" "a", "<s>", "</s>", "<think>", "  ", ""};
    static const char *const merges[] = {"h e", "l l", "he ll", "hell o", "a a", "aa aa",
                                         "\xc4\xa0 \xc4\xa0", "\xc4\xa0 a"};
    static const int types[] = {1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 4, 4, 1};
    ash_buf b;
    ash_buf_init(&b, 1u << 20);
    gw_header(&b, 3, 0, 5);
    gw_kv_str(&b, "tokenizer.ggml.model", "gpt2");
    gw_kv_str(&b, "tokenizer.ggml.pre", pre);
    gw_array(&b, "tokenizer.ggml.tokens", ASH_GGUF_STRING, N_BPE);
    for (unsigned i = 0; i < 256; i++) {
        char text[4];
        gw_strn(&b, text, letter(i, text));
    }
    for (size_t i = 0; i < N_BPE - 256; i++) gw_str(&b, more[i]);
    gw_array(&b, "tokenizer.ggml.token_type", ASH_GGUF_I32, N_BPE);
    for (size_t i = 0; i < N_BPE; i++) gw_int(&b, i < 256 ? 1 : (uint64_t)types[i - 256], 4);
    gw_kv_strs(&b, "tokenizer.ggml.merges", merges, sizeof merges / sizeof *merges);
    return open_buf(&b);
}

static ash_tokenizer *make_spm(void)
{
    static const char *const texts[] = {"<unk>", "<s>", "</s>", "<think>", "\xe2\x96\x81", "a", "b",
                                        "aa", "\xe2\x96\x81" "a", "ab", "aab", "baa", "<0xE4>", "<0xFF>",
                                        "\xe4\xbd\xa0"};
    static const int types[] = {2, 3, 3, 4, 1, 1, 1, 1, 1, 5, 1, 1, 6, 6, 1};
    static const float scores[] = {0, 0, 0, 0, -9, -9, -8, -2, -1, -3, -4, -2, 0, 0, -1};
    size_t n = sizeof texts / sizeof *texts;
    ash_buf b;
    ash_buf_init(&b, 1u << 20);
    gw_header(&b, 3, 0, 4);
    gw_kv_str(&b, "tokenizer.ggml.model", "llama");
    gw_kv_strs(&b, "tokenizer.ggml.tokens", texts, n);
    gw_array(&b, "tokenizer.ggml.token_type", ASH_GGUF_I32, n);
    for (size_t i = 0; i < n; i++) gw_int(&b, (uint64_t)types[i], 4);
    gw_array(&b, "tokenizer.ggml.scores", ASH_GGUF_F32, n);
    for (size_t i = 0; i < n; i++) gw_f32(&b, scores[i]);
    return open_buf(&b);
}

static ash_tokenizer *get(size_t which)
{
    if (!tokenizers[which])
        tokenizers[which] = which == SPM ? make_spm() : make_bpe(pres[which]);
    return tokenizers[which];
}

static void decode(const ash_tokenizer *t, const ash_ids *ids, ash_buf *out)
{
    ash_detok d;
    ash_detok_init(&d, t, ASH_DETOK_SPECIAL);
    for (size_t i = 0; i < ids->n; i++) {
        size_t before = out->len;
        if (ash_detok_push(&d, ids->p[i], out) ||
            !ash_utf8_valid(ash_buf_cstr(out) + before, out->len - before))
            abort();
    }
    if (ash_detok_flush(&d, out))
        abort();
}

static void check(size_t which, unsigned flags, const char *text, size_t n, const ash_span *spans,
                  size_t n_spans)
{
    const ash_tokenizer *t = get(which);
    ash_ids ids = ASH_IDS_INIT;
    ash_err err = ASH_ERR_INIT;
    ash_buf out;
    if (ash_tokenizer_encode(t, text, n, flags, spans, n_spans, &ids, &err))
        abort();
    bool whole = !(flags & ASH_ENCODE_SPECIAL) ||
                 (n_spans && spans[0].begin == 0 && spans[0].end == n);
    for (size_t i = 0; i < ids.n; i++) {
        ash_str s;
        if (!ash_tokenizer_piece(t, ids.p[i], &s))
            abort();
        if (whole && (ash_str_eqc(s, "<s>") || ash_str_eqc(s, "</s>") || ash_str_eqc(s, "<think>")))
            abort();
    }
    ash_buf_init(&out, 64u << 20);
    decode(t, &ids, &out);
    if (which != SPM && strcmp(pres[which], "qwen2") != 0 && ash_utf8_valid(text, n) &&
        (out.len != n || memcmp(ash_buf_cstr(&out), text, n) != 0))
        abort();
    ash_buf_release(&out);
    ash_ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 6)
        return 0;
    const char *text = (const char *)data + 6;
    size_t n = size - 6;
    ash_span spans[2];
    spans[0].begin = n * data[2] / 255;
    spans[0].end = spans[0].begin + (n - spans[0].begin) * data[3] / 255;
    spans[1].begin = spans[0].end + (n - spans[0].end) * data[4] / 255;
    spans[1].end = spans[1].begin + (n - spans[1].begin) * data[5] / 255;
    check(data[0] % (N_PRES + 1), data[1] & 1 ? ASH_ENCODE_SPECIAL : 0, text, n, spans,
          data[1] & 2 ? 2 : 0);
    return 0;
}
