/* Every allocation of opening and encoding fails in turn: a clean error, nothing lost or changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tokenizer_fixture.h"

static long allocations_left = -1;

static bool out_of_memory(void)
{
    return allocations_left >= 0 && allocations_left-- == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
    return out_of_memory() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t m)
{
    return out_of_memory() ? NULL : __real_calloc(n, m);
}

void *__wrap_realloc(void *p, size_t n)
{
    return out_of_memory() ? NULL : __real_realloc(p, n);
}

static ash_gguf *open_fixture(const char *name)
{
    char path[512];
    ash_gguf *g;
    assert_int_equal(ash_gguf_open(fixture_path(name, path), &g, NULL), 0);
    return g;
}

static void check_open(const char *name)
{
    ash_gguf *g = open_fixture(name);
    ash_tokenizer *t;
    int rc = ASH_ENOMEM;
    long n = 0;
    for (; rc && n < 10000; n++) {
        ash_err err = ASH_ERR_INIT;
        allocations_left = n;
        rc = ash_tokenizer_open_gguf(g, &t, &err);
        allocations_left = -1;
        if (rc) {
            assert_int_equal(rc, ASH_ENOMEM);
            assert_null(t);
        }
    }
    assert_int_equal(rc, 0);
    assert_true(n > 5);
    ash_tokenizer_close(t);
    ash_gguf_close(g);
}

/* A text with a special token, invalid UTF-8, marks out of order and a long word. */
static void check_encode(ash_tokenizer *t)
{
    static const char text[] = "The\xff <s>  e\xcc\x81\xcc\xa3 caf\xc3\xa9 the the "
                               "ethethethethethethethethethethethethethethethethethethethethethe";
    static const ash_span span[] = {{0, 2}};
    ash_ids ids = ASH_IDS_INIT;
    int rc = ASH_ENOMEM;
    long n = 0;
    assert_int_equal(ash_ids_add(&ids, 7, NULL), 0);
    for (; rc && n < 10000; n++) {
        ash_err err = ASH_ERR_INIT;
        allocations_left = n;
        rc = ash_tokenizer_encode(t, text, sizeof text - 1, ASH_ENCODE_SPECIAL, span, 1, &ids, &err);
        allocations_left = -1;
        if (rc) {
            assert_int_equal(rc, ASH_ENOMEM);
            assert_int_equal(ids.n, 1);
        }
    }
    assert_int_equal(rc, 0);
    assert_true(n > 5 && ids.n > 5 && ids.p[0] == 7);
    ash_ids_release(&ids);
}

static void test_open(void **state)
{
    check_open("bpe.gguf");
    check_open("spm.gguf");
}

static void test_encode(void **state)
{
    char path[512];
    ash_tokenizer *t;
    assert_int_equal(open_bpe_as("qwen2", &t, NULL), 0);
    check_encode(t);
    ash_tokenizer_close(t);
    assert_int_equal(open_file(fixture_path("spm.gguf", path), &t, NULL), 0);
    check_encode(t);
    ash_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_open), cmocka_unit_test(test_encode)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
