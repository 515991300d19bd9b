/* The pool: every element exactly once, whatever sizes, threads and other load; results visible to the
 * caller; many short jobs. Worth running under TSan. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pool.h"

enum { MOST = 5000 };

typedef struct job {
    int hits[MOST]; /* plain: a race would be TSan's to find */
    int threads;
    int64_t grain;
    atomic_int bad;
} job;

static void count(void *arg, int64_t begin, int64_t end, int worker)
{
    job *j = arg;
    if (worker < 0 || worker >= j->threads || begin >= end)
        atomic_store(&j->bad, 1);
    for (int64_t i = begin; i < end; i++) j->hits[i]++;
}

static void test_every_element_once(void **state)
{
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 64, 1000, MOST}, grains[] = {1, 2, 3, 63, 10000};
    static job j;
    for (int threads = 1; threads <= 5; threads++) {
        ash_pool *p;
        ash_err err = ASH_ERR_INIT;
        assert_int_equal(ash_pool_open(threads, &p, &err), 0);
        assert_int_equal(ash_pool_threads(p), threads);
        for (int s = 0; s < 8; s++) {
            for (int g = 0; g < 5; g++) {
                j = (job){.threads = threads, .grain = grains[g]};
                for (int round = 0; round < 3; round++) ash_pool_run(p, sizes[s], grains[g], count, &j);
                for (int i = 0; i < MOST; i++) assert_int_equal(j.hits[i], i < sizes[s] ? 3 : 0);
                assert_int_equal(j.bad, 0);
            }
        }
        ash_pool_close(p);
    }
}

typedef struct sums {
    const int *values;
    int64_t out[64];
} sums;

static void add(void *arg, int64_t begin, int64_t end, int worker)
{
    sums *s = arg;
    for (int64_t i = begin; i < end; i++) s->out[i] += s->values[i];
}

/* Jobs follow each other closely, sometimes after a sleep, on storage that changes between them. */
static void test_many_short_jobs(void **state)
{
    ash_pool *p;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_pool_open(4, &p, &err), 0);
    int64_t want = 0;
    sums s = {0};
    for (int round = 0; round < 20000; round++) {
        int values[64];
        for (int i = 0; i < 64; i++) values[i] = round + i;
        s.values = values;
        want += round;
        ash_pool_run(p, 64, 1 + round % 9, add, &s);
        if (round % 2000 == 0)
            usleep(2000); /* workers fall asleep */
    }
    for (int i = 0; i < 64; i++) assert_int_equal(s.out[i], want + 20000 * i);
    ash_pool_close(p);
}

static void spin(void *arg, int64_t begin, int64_t end, int worker)
{
    for (volatile int i = 0; i < 20000; i++) {
    }
    atomic_fetch_add((atomic_int *)arg, (int)(end - begin));
}

/* More threads than the machine has cores: those without a core are not waited for. */
static void test_oversubscribed(void **state)
{
    ash_pool *p;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_pool_open(32, &p, &err), 0);
    atomic_int total = 0;
    for (int round = 0; round < 50; round++) ash_pool_run(p, 100, 1, spin, &total);
    assert_int_equal(total, 5000);
    ash_pool_close(p);
}

static void tally(void *arg, int64_t begin, int64_t end, int worker)
{
    atomic_fetch_add((atomic_int *)arg, (int)(end - begin));
}

static void test_more_chunks_than_the_counter_holds(void **state)
{
    ash_pool *p;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_pool_open(2, &p, &err), 0);
    atomic_int total = 0;
    static const int64_t n = 3000000;
    ash_pool_run(p, n, 1, tally, &total);
    assert_int_equal(total, n);
    ash_pool_close(p);
}

static void test_refuses(void **state)
{
    ash_pool *p;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_pool_open(-1, &p, &err), ASH_EINVAL);
    assert_int_equal(ash_pool_open(1025, &p, &err), ASH_EINVAL);
    assert_null(p);
    ash_pool_close(NULL);
    assert_int_equal(ash_pool_threads(NULL), 1);
    atomic_int total = 0;
    ash_pool_run(NULL, 10, 1, spin, &total);
    assert_int_equal(total, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_element_once),
        cmocka_unit_test(test_many_short_jobs),
        cmocka_unit_test(test_oversubscribed),
        cmocka_unit_test(test_more_chunks_than_the_counter_holds),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
