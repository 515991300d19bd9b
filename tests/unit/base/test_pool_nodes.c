/* The pool on machines of several nodes, all made up: threads are counted and items shared in proportion,
 * every thread begins at home, what a held-up node leaves is taken by the others. Worth running under
 * TSan. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/pool.h"
#include "base/rng.h"

/* Nodes of so many CPUs each. */
static ash_numa machine(int nodes, const int *cpus)
{
    ash_numa m = {.nodes = nodes};
    for (int k = 0, cpu = 0; k < nodes; k++) {
        m.id[k] = k;
        for (int c = 0; c < cpus[k]; c++) CPU_SET((size_t)cpu++, &m.cpus[k]);
    }
    return m;
}

static ash_pool *open_pool(const ash_numa *m, int threads)
{
    ash_pool *p;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_pool_open_on(m, threads, &p, &err), 0);
    assert_int_equal(ash_pool_threads(p), threads);
    return p;
}

static void test_threads_are_counted_by_cpus(void **state)
{
    static const struct {
        int nodes, cpus[4], threads, want_nodes, want[4];
    } cases[] = {
        {2, {2, 2}, 4, 2, {2, 2}},        {2, {2, 2}, 3, 2, {2, 1}},    {2, {2, 2}, 1, 1, {1}},
        {2, {6, 2}, 4, 2, {3, 1}},        {2, {1, 7}, 4, 1, {4}},       {3, {4, 4, 4}, 2, 2, {1, 1}},
        {4, {1, 1, 1, 1}, 4, 4, {1, 1, 1, 1}}, {2, {2, 2}, 8, 2, {4, 4}}, {1, {0}, 3, 1, {3}},
        {3, {2, 16, 2}, 5, 1, {5}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ash_numa m = machine(cases[i].nodes, cases[i].cpus);
        ash_pool *p = open_pool(&m, cases[i].threads);
        assert_int_equal(ash_pool_nodes(p), cases[i].want_nodes);
        int worker = 0;
        for (int k = 0; k < cases[i].want_nodes; k++) {
            assert_int_equal(ash_pool_node_threads(p, k), cases[i].want[k]);
            for (int t = 0; t < cases[i].want[k]; t++) assert_int_equal(ash_pool_node_of(p, worker++), k);
        }
        assert_int_equal(worker, cases[i].threads);
        assert_false(ash_pool_node_get(p, 0, &(cpu_set_t){0}, &(int){0})); /* not this machine's */
        ash_pool_close(p);
    }
}

enum { MOST = 4096 };

typedef struct job {
    int hits[MOST]; /* plain: a race would be TSan's to find */
    const int64_t *ends;
    int nodes;
    int64_t grain;
    atomic_int bad;
} job;

static void count(void *arg, int64_t begin, int64_t end, int worker)
{
    job *j = arg;
    int k = 0;
    while (k < j->nodes - 1 && begin >= j->ends[k]) k++;
    if (begin >= end || end > j->ends[k])
        atomic_store(&j->bad, 1);
    for (int64_t i = begin; i < end; i++) j->hits[i]++;
}

static void check_job(ash_pool *p, ash_rng *rng, const int64_t *ends)
{
    static job j;
    int nodes = ash_pool_nodes(p);
    int64_t n = ends[nodes - 1];
    j = (job){.ends = ends, .nodes = nodes, .grain = 1 + (int64_t)(ash_rng_u64(rng) % 40)};
    for (int round = 0; round < 3; round++) ash_pool_run_shares(p, ends, j.grain, count, &j);
    for (int i = 0; i < MOST; i++) assert_int_equal(j.hits[i], i < n ? 3 : 0);
    assert_int_equal(j.bad, 0);
}

/* Whatever the machine, the threads and the shares: every item once, no range across a border. */
static void test_every_item_once(void **state)
{
    ash_rng rng;
    ash_rng_init(&rng, 11);
    for (int round = 0; round < 300; round++) {
        int nodes = 1 + (int)(ash_rng_u64(&rng) % 6), cpus[6], threads = 1 + (int)(ash_rng_u64(&rng) % 9);
        for (int k = 0; k < nodes; k++) cpus[k] = 1 + (int)(ash_rng_u64(&rng) % 8);
        ash_numa m = machine(nodes, cpus);
        ash_pool *p = open_pool(&m, threads);
        int64_t ends[ASH_MAX_NODES], n = (int64_t)(ash_rng_u64(&rng) % MOST), at = 0;
        nodes = ash_pool_nodes(p);
        for (int k = 0; k < nodes; k++) { /* by threads */
            assert_int_equal(ash_pool_share(p, n, k), at);
            at = ends[k] = ash_pool_share(p, n, k + 1);
            assert_true(at >= ash_pool_share(p, n, k));
        }
        assert_int_equal(at, n);
        check_job(p, &rng, ends);
        for (int k = 0; k < nodes - 1; k++) /* and by chance: some are empty */
            ends[k] = (k ? ends[k - 1] : 0) +
                      (int64_t)(ash_rng_u64(&rng) % 3 * ash_rng_u64(&rng) % (uint64_t)(n / nodes + 1));
        ends[nodes - 1] = n;
        for (int k = 0; k < nodes; k++) ends[k] = ends[k] < n ? ends[k] : n;
        check_job(p, &rng, ends);
        ash_pool_close(p);
    }
}

static void test_shares_of_large_jobs(void **state)
{
    ash_numa m = machine(3, (const int[]){5, 5, 5});
    ash_pool *p = open_pool(&m, 3);
    const int64_t n = (int64_t)1 << 60;
    assert_int_equal(ash_pool_share(p, n, 1), n / 3);
    assert_int_equal(ash_pool_share(p, n, 2), 2 * (n / 3) + 2 * (n % 3) / 3);
    ash_pool_close(p);
    assert_int_equal(ash_pool_share(NULL, n, 0), 0);
    assert_int_equal(ash_pool_share(NULL, n, 1), n);
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

enum { THREADS = 6 };

typedef struct meeting {
    atomic_int inside, taken[THREADS];
} meeting;

/* Ends when all threads are in a chunk. */
static void meet(void *arg, int64_t begin, int64_t end, int worker)
{
    meeting *m = arg;
    atomic_store(&m->taken[begin], worker);
    atomic_fetch_add(&m->inside, 1);
    while (atomic_load(&m->inside) < THREADS) nap();
}

/* As many chunks as threads, of each node as many as it has: then each thread must have one of its own, for
 * a thread that finds none at home would mean one that left its home before it was empty. */
static void test_threads_begin_at_home(void **state)
{
    ash_numa numa = machine(3, (const int[]){3, 2, 1});
    ash_pool *p = open_pool(&numa, THREADS);
    for (int round = 0; round < 200; round++) {
        meeting m = {0};
        ash_pool_run(p, THREADS, 1, meet, &m);
        for (int i = 0; i < THREADS; i++) {
            int64_t node = ash_pool_node_of(p, m.taken[i]);
            assert_true(i >= ash_pool_share(p, THREADS, (int)node));
            assert_true(i < ash_pool_share(p, THREADS, (int)node + 1));
        }
    }
    ash_pool_close(p);
}

typedef struct theft {
    int64_t n, second; /* chunks; the first that is the worker's own */
    atomic_int held, done, by_worker[2];
} theft;

/* The worker, which begins in the second half, stays in its first chunk until all others are done; the caller
 * does not begin before that one is in it. */
static void hold_up(void *arg, int64_t begin, int64_t end, int worker)
{
    theft *t = arg;
    atomic_fetch_add(&t->by_worker[worker], 1);
    if (worker == 1) {
        atomic_store(&t->held, begin == t->second ? 1 : -1);
        while (atomic_load(&t->done) < t->n - 1) nap();
    } else {
        while (!atomic_load(&t->held)) nap();
    }
    atomic_fetch_add(&t->done, 1);
}

static void check_theft(const ash_numa *numa)
{
    ash_pool *p = open_pool(numa, 2);
    for (int round = 0; round < 50; round++) {
        theft t = {.n = 12, .second = 6};
        ash_pool_run(p, t.n, 1, hold_up, &t);
        assert_int_equal(t.held, 1);
        assert_int_equal(t.by_worker[1], 1);
        assert_int_equal(t.by_worker[0], 11); /* 6 of its own, 5 of the other's */
    }
    ash_pool_close(p);
}

static void test_what_a_held_up_node_leaves_is_taken(void **state)
{
    ash_numa numa = machine(2, (const int[]){1, 1});
    check_theft(&numa);
}

/* Threads of one node each begin in a part of their own, too. */
static void test_what_a_held_up_thread_leaves_is_taken(void **state)
{
    ash_numa numa = machine(1, (const int[]){2});
    check_theft(&numa);
    check_theft(NULL);
}

/* On this machine's own CPUs: workers stay on the node they are told. */
static void where(void *arg, int64_t begin, int64_t end, int worker)
{
    cpu_set_t set, *want = arg;
    if (worker && (sched_getaffinity(0, sizeof set, &set) || !CPU_EQUAL(&set, &want[worker])))
        CPU_CLR(0, &want[0]);
    nap();
}

static void test_workers_are_bound(void **state)
{
    cpu_set_t all;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    if (CPU_COUNT(&all) < 2)
        skip();
    ash_numa numa = {.nodes = 2, .real = true, .id = {0, 7}};
    for (size_t c = 0, n = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &all))
            CPU_SET(c, &numa.cpus[n++ % 2]);
    ash_pool *p = open_pool(&numa, 4);
    cpu_set_t want[4], got;
    int id;
    assert_true(ash_pool_node_get(p, 1, &got, &id));
    assert_true(CPU_EQUAL(&got, &numa.cpus[1]) && id == 7);
    for (int i = 0; i < 4; i++) want[i] = numa.cpus[ash_pool_node_of(p, i)];
    CPU_SET(0, &want[0]);
    for (int round = 0; round < 20; round++) ash_pool_run(p, 40, 1, where, want);
    assert_true(CPU_ISSET(0, &want[0]));
    ash_pool_close(p);
    cpu_set_t after;
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&after, &all)); /* the caller is not */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_are_counted_by_cpus),
        cmocka_unit_test(test_every_item_once),
        cmocka_unit_test(test_shares_of_large_jobs),
        cmocka_unit_test(test_threads_begin_at_home),
        cmocka_unit_test(test_what_a_held_up_node_leaves_is_taken),
        cmocka_unit_test(test_what_a_held_up_thread_leaves_is_taken),
        cmocka_unit_test(test_workers_are_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
