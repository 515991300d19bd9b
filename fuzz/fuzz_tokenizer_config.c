/* The files beside a tokenizer: the input is split at bytes of 0 into tokenizer_config.json,
 * special_tokens_map.json, added_tokens.json, generation_config.json, chat_template.json and
 * chat_template.jinja, beside a small tokenizer.json.
 *
 * Must hold: an error has a message; special ids and ends of text are in the vocabulary; what is noted
 * is text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/unit/text/tokenizer_files.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char main_file[] =
    "{\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":2,\"content\":\"</s>\","
    "\"special\":true}],\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"byte_fallback\":true,"
    "\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"a\":3,\"b\":4,\"ab\":5,\"<0x41>\":6},"
    "\"merges\":[\"a b\"]}}";

static void check_id(const ash_tokenizer *t, int32_t id)
{
    if (id < -1 || id >= (int32_t)ash_tokenizer_n_vocab(t))
        abort();
}

static void use(const ash_tokenizer *t)
{
    size_t n;
    ash_str s;
    const int32_t *ends = ash_tokenizer_eog(t, &n);
    for (size_t i = 0; i < n; i++) check_id(t, ends[i]);
    check_id(t, ash_tokenizer_bos(t));
    check_id(t, ash_tokenizer_eos(t));
    check_id(t, ash_tokenizer_unk(t));
    check_id(t, ash_tokenizer_pad(t));
    for (size_t i = 0; i < ash_tokenizer_n_vocab(t); i++)
        if (!ash_tokenizer_piece(t, (int32_t)i, &s))
            abort();
    if (!ash_utf8_valid(ash_tokenizer_note(t), strlen(ash_tokenizer_note(t))))
        abort();
    ash_tokenizer_chat_template(t, &s);
    ash_tokenizer_named_template(t, "tool_use", &s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json", "generation_config.json",
                                        "chat_template.json", "chat_template.jinja"};
    made_file list[8] = {{"tokenizer.json", main_file, sizeof main_file - 1}};
    const char *p = (const char *)data;
    ash_tokenizer *t;
    ash_err err = ASH_ERR_INIT;
    for (size_t i = 0; i < 6 && size; i++) {
        const char *zero = memchr(p, 0, size);
        size_t n = zero ? (size_t)(zero - p) : size;
        if (n)
            list[i + 1] = (made_file){names[i], p, n};
        else
            list[i + 1] = (made_file){"nothing", "", 1};
        p += n + (zero != NULL);
        size -= n + (zero != NULL);
    }
    if (open_made_files(list, NULL, &t, &err) == 0)
        use(t);
    else if (!err.msg[0])
        abort();
    ash_tokenizer_close(t);
    return 0;
}
