/* Server-sent events cut anywhere: every stream is fed whole, byte by byte, and cut at each place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "provider/sse.h"

void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);

static long left = -1; /* reallocations until the one that fails; negative: none fails */

void *__wrap_realloc(void *p, size_t n)
{
    return left >= 0 && left-- == 0 ? NULL : __real_realloc(p, n);
}

/* Events of text fed in pieces of at most `piece` bytes, joined by '|'; with '!' if one was left
 * open. */
static void run(const char *text, size_t n, size_t first, size_t piece, char out[512])
{
    ash_sse s;
    ash_str data;
    size_t used = 0;
    ash_sse_init(&s, 1 << 16);
    for (size_t at = 0; at < n;) {
        size_t len = at == 0 && first ? first : piece;
        if (len > n - at) len = n - at;
        assert_int_equal(ash_sse_push(&s, text + at, len), 0);
        at += len;
        while (ash_sse_next(&s, &data) == 1) {
            memcpy(out + used, data.p, data.n);
            used += data.n;
            out[used++] = '|';
        }
    }
    int rc = ash_sse_finish(&s, &data);
    if (rc == 1) {
        out[used++] = '!';
        memcpy(out + used, data.p, data.n);
        used += data.n;
    }
    out[used] = 0;
    ash_sse_release(&s);
}

static void streams(void **state)
{
    static const struct {
        const char *text, *want;
    } t[] = {
        {"data: a\n\ndata: b\n\n", "a|b|"},
        {"data:a\r\n\r\ndata:b\r\n\r\n", "a|b|"},
        {"data: a\r\rdata: b\r\r", "a|b|"},
        {"data: a\r\ndata: b\r\n\r\n", "a\nb|"},
        {"\xEF\xBB\xBF"
         "data: a\n\n",
         "a|"},
        {": ping\n\n: ping\n\ndata: a\n\n", "a|"},
        {"event: x\nid: 1\nretry: 5\ndata: a\n\n", "a|"},
        {"data: a\ndata: b\n\n", "a\nb|"},
        {"data:  a \n\n", " a |"},
        {"data\n\n", "|"},
        {"data:\n\n", "|"},
        {"data: a\n", "!a"},
        {"data: a", "!a"},
        {"datax: a\n\ndat: b\n\n data: c\n\n", ""},
        {"event: end\n\n", ""},
        {"\n\n\n", ""},
        {"", ""},
        {"data: [DONE]\n\n", "[DONE]|"},
        {"data: a\n\r\ndata: b\r\n\n", "a|b|"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        size_t n = strlen(t[i].text);
        for (size_t first = 0; first <= n; first++)
            for (size_t piece = first ? n + 1 : 1; piece <= n + 1; piece++) {
                char out[512];
                run(t[i].text, n, first, piece, out);
                if (strcmp(out, t[i].want))
                    fail_msg("%s (%zu, %zu): '%s', not '%s'", t[i].text, first, piece, out,
                             t[i].want);
            }
    }
}

static void caps(void **state)
{
    ash_sse s;
    ash_str data;
    ash_sse_init(&s, 10);
    assert_int_equal(ash_sse_push(&s, "data: 1234\n\n", 12), 0);
    assert_int_equal(ash_sse_next(&s, &data), 1);
    assert_int_equal(ash_sse_push(&s, "data: 12345", 11), 0); /* a line of 11, not ended yet */
    assert_int_equal(ash_sse_next(&s, &data), ASH_ELIMIT);
    ash_sse_release(&s);

    ash_sse_init(&s, 10); /* short lines, but an event of more than 10 */
    assert_int_equal(ash_sse_push(&s, "data:12345\ndata:12345\ndata:1\n\n", 30), 0);
    assert_int_equal(ash_sse_next(&s, &data), ASH_ELIMIT);
    ash_sse_release(&s);

    char *big = calloc(1, 3 << 20); /* nothing is taken: the buffer stops at its cap */
    ash_sse_init(&s, 10);
    assert_int_equal(ash_sse_push(&s, big, 3 << 20), ASH_ELIMIT);
    ash_sse_release(&s);
    free(big);
}

static void no_memory(void **state)
{
    char text[3000];
    memset(text, 'x', sizeof text);
    memcpy(text, "data: ", 6);
    memcpy(text + 2990, "\ndata: y\n\n", 10);
    for (long at = 0;; at++) {
        ash_sse s;
        ash_str data;
        ash_sse_init(&s, 1 << 16);
        left = at;
        int rc = 0;
        for (size_t i = 0; !rc && i < sizeof text; i += 100) {
            rc = ash_sse_push(&s, text + i, 100);
            if (!rc) rc = ash_sse_next(&s, &data);
        }
        bool failed = left < 0;
        left = -1;
        ash_sse_release(&s);
        if (!failed) break;
        assert_int_equal(rc, ASH_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(streams), cmocka_unit_test(caps),
                                       cmocka_unit_test(no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
