/* Which pages of a mapping have memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pages.h"

static void counts_what_nobody_touched(void **state)
{
    enum { PAGES = 10000 }; /* more than are asked for at once */
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), all = PAGES * page;
    char *at = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(at != MAP_FAILED);
    assert_int_equal(madvise(at, all, MADV_NOHUGEPAGE), 0);
    assert_int_equal(ash_pages_untouched(at, all), all);
    at[0] = at[5000 * page + 1] = at[all - 1] = 1;
    assert_int_equal(ash_pages_untouched(at, all), all - 3 * page);
    assert_int_equal(ash_pages_untouched(at, 10), 0);
    assert_int_equal(ash_pages_untouched(at + page, 10), 10);
    assert_int_equal(madvise(at + 5000 * page, page, MADV_DONTNEED), 0);
    assert_int_equal(ash_pages_untouched(at, all), all - 2 * page);
    munmap(at, all);
    assert_int_equal(ash_pages_untouched(at, all), 0); /* what is not there has nothing to tell */
    assert_int_equal(ash_pages_untouched(NULL, 10), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts_what_nobody_touched)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
