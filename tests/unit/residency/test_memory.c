/* What the kernel says of memory is plausible, and grows by what this process takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "residency/memory.h"

static void test_available(void **state)
{
    uint64_t free_bytes = ash_memory_available();
    assert_true(free_bytes > 16u << 20);
    assert_true(free_bytes < (uint64_t)1 << 50);
}

static void test_resident_grows(void **state)
{
    uint64_t before = ash_memory_resident();
    size_t n = 64u << 20;
    volatile char *p = malloc(n);
    assert_non_null((void *)p);
    for (size_t i = 0; i < n; i += 4096) p[i] = 1;
    uint64_t after = ash_memory_resident();
    free((void *)p);
    assert_true(before > 0);
    assert_true(after > before + n / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_available),
                                       cmocka_unit_test(test_resident_grows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
