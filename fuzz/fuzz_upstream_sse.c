/* An upstream's event stream: fed whole and fed in pieces it gives the same events; the text of all
 * of them is split into reasoning and content without loss. The first byte is the pieces' size. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "provider/sse.h"
#include "provider/think.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_LINE = 4096 };

/* Events, each with its length before it; the first failure ends them. */
static void run(const char *p, size_t n, size_t piece, ash_buf *out)
{
    ash_sse s;
    ash_str event;
    int rc = 0;
    ash_sse_init(&s, MAX_LINE);
    for (size_t at = 0; rc == 0 && at < n; at += piece) {
        rc = ash_sse_push(&s, p + at, n - at < piece ? n - at : piece);
        while (rc == 0 && (rc = ash_sse_next(&s, &event)) == 1) {
            if (event.n > MAX_LINE) abort();
            ash_buf_printf(out, "%zu:", event.n);
            ash_buf_addstr(out, event);
            rc = 0;
        }
    }
    if (rc == 0 && ash_sse_finish(&s, &event) == 1) ash_buf_addstr(out, event);
    if (rc < 0) ash_buf_clear(out); /* where a line is too long is told earlier in small pieces */
    ash_sse_release(&s);
}

static void split(const ash_buf *text, size_t piece)
{
    ash_think t;
    ash_buf reasoning, content;
    ash_think_init(&t, false, false);
    ash_buf_init(&reasoning, text->len + 1);
    ash_buf_init(&content, text->len + 1);
    for (size_t at = 0; at < text->len; at += piece) {
        size_t n = text->len - at < piece ? text->len - at : piece;
        if (ash_think_push(&t, (ash_str){text->data + at, n}, &reasoning, &content)) abort();
    }
    if (ash_think_flush(&t, &reasoning, &content)) abort();
    if (!reasoning.len && content.len + 15 < text->len && !strstr(ash_buf_cstr(text), "<think>"))
        abort();
    ash_buf_release(&reasoning);
    ash_buf_release(&content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 1 << 20) return 0;
    size_t piece = (size_t)data[0] + 1;
    ash_buf whole, parts;
    ash_buf_init(&whole, 64u << 20);
    ash_buf_init(&parts, 64u << 20);
    run((const char *)data + 1, size - 1, size, &whole);
    run((const char *)data + 1, size - 1, piece, &parts);
    if (whole.len != parts.len || memcmp(ash_buf_cstr(&whole), ash_buf_cstr(&parts), whole.len))
        abort();
    split(&whole, piece);
    ash_buf_release(&whole);
    ash_buf_release(&parts);
    return 0;
}
