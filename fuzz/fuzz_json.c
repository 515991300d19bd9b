/* JSON text -> value -> text -> value: what was accepted once must come back equal. */
#include <stdint.h>
#include <stdlib.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ash_err err;
    json_t *v = NULL, *again = NULL;
    if (ash_json_parse((const char *)data, size, &v, &err)) {
        if (err.msg[0] == '\0' || err.pos > (int64_t)size) abort(); /* an error says what and where */
        return 0;
    }
    ash_buf text;
    ash_buf_init(&text, 64u << 20);
    if (ash_json_dump(v, &text) == 0) {
        if (ash_json_parse(text.data, text.len, &again, &err) || !json_equal(v, again)) abort();
    }
    json_decref(again);
    ash_buf_release(&text);
    json_decref(v);
    return 0;
}
