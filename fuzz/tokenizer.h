/* A tokenizer of one hostile file, opened and used on a text in which all kinds of characters are.
 *
 * Must hold: an error has a message; ids that come out are in the vocabulary; decoding them ends and
 * gives UTF-8. Texts are short, so that a pattern's budget is felt. */
#ifndef ASHLEY_FUZZ_TOKENIZER_H
#define ASHLEY_FUZZ_TOKENIZER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/unit/text/tokenizer_files.h"
#include "base/utf8.h"

static void use_tokenizer(const ash_tokenizer *t)
{
    static const char text[] = "Hello, the w\xc3\xb6rld's  12345\n\n\t<s> x</s> e\xcc\x81 "
                               "\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80 !!  \xff <think> "
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    static const ash_span span = {3, 9};
    ash_ids ids = ASH_IDS_INIT;
    ash_err err = ASH_ERR_INIT;
    ash_buf out;
    ash_detok d;
    ids.max = 4096;
    ash_buf_init(&out, 64u << 20);
    if (ash_tokenizer_encode(t, text, sizeof text - 1, ASH_ENCODE_SPECIAL | ASH_ENCODE_BOS_EOS, &span, 1,
                             &ids, &err) && !err.msg[0])
        abort();
    ash_detok_init(&d, t, ASH_DETOK_SPECIAL);
    for (size_t i = 0; i < ids.n; i++) {
        ash_str s;
        if (!ash_tokenizer_piece(t, ids.p[i], &s) || ash_detok_push(&d, ids.p[i], &out))
            abort();
    }
    if (ash_detok_flush(&d, &out) || !ash_utf8_valid(ash_buf_cstr(&out), out.len))
        abort();
    ash_buf_release(&out);
    ash_ids_release(&ids);
}

/* The file `name` of a folder that holds nothing else. */
static void open_tokenizer(const char *name, const uint8_t *data, size_t size)
{
    made_file list[] = {{name, (const char *)data, size}, {0}};
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    if (!size)
        return;
    if (open_made_files(list, NULL, &t, &err) == 0)
        use_tokenizer(t);
    else if (!err.msg[0])
        abort();
    ash_tokenizer_close(t);
}

#endif
