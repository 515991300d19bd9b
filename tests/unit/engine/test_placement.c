/* Pages of weights on nodes. This machine's CPUs stand for nodes here, whatever its memories are: what is
 * touched, what stays as it was, and when there is nothing to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/placement.h"

enum { PAGE = 4096, MATRICES = 3, IN = 1024, OUT = 1000, REGION = 6 << 20 };

typedef struct fixture {
    ash_binding b;
    ash_bind_item items[MATRICES + 1]; /* the last is a vector */
    ash_linear l[MATRICES];
    uint8_t *region; /* [REGION] */
} fixture;

static void open_fixture(fixture *f, int fd)
{
    uint64_t bytes, at = 192; /* no page's border */
    memset(f, 0, sizeof *f);
    f->region = mmap(NULL, REGION, fd < 0 ? PROT_READ | PROT_WRITE : PROT_READ,
                     fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
    assert_true(f->region != MAP_FAILED);
    madvise(f->region, REGION, MADV_NOHUGEPAGE);
    for (int m = 0; m < MATRICES; m++) {
        assert_int_equal(ash_linear_plan(&f->l[m], ASH_DTYPE_Q8_0, OUT, IN, &bytes, NULL), 0);
        assert_true(at + bytes + 2 * PAGE <= REGION);
        ash_linear_bind(&f->l[m], f->region + at);
        f->items[m].matrix = &f->l[m];
        at += bytes + 2 * PAGE; /* a page at least that is no matrix's */
    }
    f->b.items = f->items;
    f->b.n_items = MATRICES + 1;
}

static ash_pool *open_pool(bool real, int other)
{
    cpu_set_t all;
    ash_pool *p;
    ash_numa numa = {.nodes = 2, .real = real, .id = {0, other}};
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    for (size_t c = 0, n = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &all))
            CPU_SET(c, &numa.cpus[n++ % 2]);
    if (!CPU_COUNT(&numa.cpus[1]))
        numa.cpus[1] = numa.cpus[0];
    assert_int_equal(ash_pool_open_on(&numa, 3, &p, NULL), 0);
    assert_int_equal(ash_pool_nodes(p), 2);
    return p;
}

/* Pages that lie in one node's part of a matrix are in memory (or none of all), others are not. */
static void check_touched(const fixture *f, const ash_pool *pool, bool touched)
{
    static unsigned char in[REGION / PAGE], want[REGION / PAGE];
    memset(want, 0, sizeof want);
    assert_int_equal(mincore(f->region, REGION, in), 0);
    for (int m = 0; m < MATRICES; m++) {
        for (int k = 0; k < 2; k++) {
            const void *from;
            size_t bytes;
            ash_linear_local(&f->l[m], pool, k, &from, &bytes);
            size_t at = (size_t)((const uint8_t *)from - f->region);
            assert_true(bytes > 8 * PAGE);
            for (size_t p = (at + PAGE - 1) / PAGE; p < (at + bytes) / PAGE; p++) want[p] = touched;
        }
    }
    for (int p = 0; p < REGION / PAGE; p++) assert_int_equal(in[p] & 1, want[p]);
}

static void test_fresh_memory_is_touched(void **state)
{
    fixture f;
    ash_pool *pool = open_pool(true, 0);
    open_fixture(&f, -1);
    ash_placement *p = ash_placement_start(&f.b, pool, false, NULL);
    assert_non_null(p);
    ash_placement_wait(p);
    check_touched(&f, pool, true);
    ash_placement_close(p);
    munmap(f.region, REGION);
    ash_pool_close(pool);
}

static void test_cancelled(void **state)
{
    fixture f;
    atomic_bool cancel = true;
    ash_pool *pool = open_pool(true, 0);
    open_fixture(&f, -1);
    ash_placement *p = ash_placement_start(&f.b, pool, false, &cancel);
    assert_non_null(p);
    ash_placement_wait(p);
    check_touched(&f, pool, false);
    ash_placement_close(p);
    munmap(f.region, REGION);
    ash_pool_close(pool);
}

/* To a node that is there and to one that is not: the bytes stay, and nothing waits. */
static void test_mapped_memory_keeps_its_bytes(void **state)
{
    char path[] = "/tmp/ashley-placement-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    uint8_t *bytes = malloc(REGION);
    assert_non_null(bytes);
    for (int i = 0; i < REGION; i++) bytes[i] = (uint8_t)(i * 7 + i / 4096);
    assert_int_equal(write(fd, bytes, REGION), REGION);
    for (int other = 0; other < 64; other += 63) {
        fixture f;
        ash_pool *pool = open_pool(true, other);
        open_fixture(&f, fd);
        ash_placement *p = ash_placement_start(&f.b, pool, true, NULL);
        assert_non_null(p);
        if (other)
            ash_placement_wait(p);
        ash_placement_close(p);
        assert_memory_equal(f.region, bytes, REGION);
        munmap(f.region, REGION);
        ash_pool_close(pool);
    }
    free(bytes);
    close(fd);
    unlink(path);
}

static void test_nothing_to_do(void **state)
{
    fixture f;
    ash_pool *made_up = open_pool(false, 1), *one;
    assert_int_equal(ash_pool_open(2, &one, NULL), 0);
    open_fixture(&f, -1);
    assert_null(ash_placement_start(&f.b, made_up, false, NULL));
    assert_null(ash_placement_start(&f.b, one, false, NULL));
    assert_null(ash_placement_start(&f.b, NULL, true, NULL));
    ash_placement_wait(NULL);
    ash_placement_close(NULL);
    munmap(f.region, REGION);
    ash_pool_close(made_up);
    ash_pool_close(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fresh_memory_is_touched),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_mapped_memory_keeps_its_bytes),
        cmocka_unit_test(test_nothing_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
