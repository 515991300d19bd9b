/* A template, then a NUL, then its context as JSON (without one: a fixed chat). Parsed and rendered
 * under small limits, twice: both must agree. Untrusted ranges must be in order and within the
 * output; U+E000, which only the fixed chat's messages hold, must never be outside of them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MARK "\xEE\x80\x80"
static const char chat[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"" MARK " Be <|kind|>.\"},"
    "{\"role\":\"user\",\"content\":\"Hi  " MARK "\\nthere, \\\"you\\\" \xC3\x9F" MARK "\"},"
    "{\"role\":\"assistant\",\"content\":\"<think>" MARK
    "</think>yes\",\"tool_calls\":[{\"id\":\"abcdefghi\","
    "\"function\":{\"name\":\"f" MARK "\",\"arguments\":{\"a\":[1,2.5,null,true]}}}]},"
    "{\"role\":\"tool\",\"content\":\"" MARK "\"},{\"role\":\"user\",\"content\":\"" MARK "\"}],"
    "\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{}"
    "}}}],"
    "\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"s\":\"Hello, "
    "World\","
    "\"l\":[3,1,2],\"d\":{\"b\":1,\"a\":[1,{\"k\":null}]},\"n\":null,\"i\":7,\"f\":2.5,"
    "\"u\":\"na\xC3\xAFve\",\"m\":[{\"n\":\"x\",\"v\":2},{\"n\":\"Y\"}]}";

static void check_spans(const ash_buf *out, const ash_spans *spans, bool marked)
{
    for (size_t i = 0; i < spans->n; i++) {
        if (spans->v[i].begin >= spans->v[i].end || spans->v[i].end > out->len) abort();
        if (i && spans->v[i].begin <= spans->v[i - 1].end) abort();
    }
    for (size_t at = 0; marked && at + 3 <= out->len; at++)
        if (!memcmp(out->data + at, MARK, 3) && !ash_spans_touch(spans, at, at + 3)) abort();
}

static int render(const ash_template *t, const char *json, size_t n, ash_buf *out, ash_spans *spans,
                  bool marked)
{
    const ash_template_opts o = {.max_steps = 100000,
                                 .max_output = 1 << 20,
                                 .max_memory = 8 << 20,
                                 .now = 1700000000,
                                 .utc = true};
    ash_err err = ASH_ERR_INIT;
    int rc = ash_template_render_text(t, json, n, &o, out, spans, &err);
    if (rc && (out->len || spans->n || !err.code)) abort();
    if (!rc) check_spans(out, spans, marked);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    const char *json = nul ? (const char *)nul + 1 : chat;
    size_t n_json = nul ? size - n - 1 : sizeof chat - 1;
    bool marked = !nul && !(size && (memchr(data, 0xEE, size) || memchr(data, '\\', size)));
    ash_template *t;
    ash_err err = ASH_ERR_INIT;
    if (ash_template_parse(size ? (const char *)data : "", n, &t, &err)) {
        if (!err.msg[0] || err.pos > (int64_t)size || t) abort();
        return 0;
    }
    ash_buf out[2];
    ash_spans spans[2] = {{0}, {0}};
    int rc[2];
    for (int i = 0; i < 2; i++) {
        ash_buf_init(&out[i], 2 << 20);
        rc[i] = render(t, json, n_json, &out[i], &spans[i], marked);
    }
    if (rc[0] != rc[1] || out[0].len != out[1].len || spans[0].n != spans[1].n ||
        (out[0].len && memcmp(out[0].data, out[1].data, out[0].len)))
        abort();
    for (int i = 0; i < 2; i++) {
        ash_buf_release(&out[i]);
        ash_spans_release(&spans[i]);
    }
    ash_template_close(t);
    return 0;
}
