/* Owns worker threads that split one job at a time. Refuses more than 1024 threads.
 * One caller at a time; workers touch only the claimed ranges of the job.
 *
 * A job is published by an odd/even epoch; chunks are claimed from one atomic counter, so a core that
 * is taken away delays at most the chunk that it holds. Workers spin briefly, then sleep on a futex. */
#include "base/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpu.h"

enum { MAX_THREADS = 1024, SPINS = 2000 };

struct ash_pool {
    int threads;
    pthread_t *workers;
    ash_pool_fn fn;
    void *arg;
    int64_t n, grain;
    _Alignas(64) atomic_int epoch;     /* a new job, or the end, changes it */
    _Alignas(64) atomic_llong next;    /* first element not claimed */
    _Alignas(64) atomic_int active;    /* workers that have not finished this job */
    atomic_int sleepers;
    atomic_bool stop;
};

struct start {
    ash_pool *pool;
    int index;
};

static void futex_wait(atomic_int *at, int value)
{
    syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake_all(atomic_int *at)
{
    syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, MAX_THREADS, NULL, NULL, 0);
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void work(ash_pool *p, int worker)
{
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&p->next, p->grain, memory_order_relaxed);
        if (begin >= p->n)
            return;
        int64_t end = begin + p->grain;
        p->fn(p->arg, begin, end < p->n ? end : p->n, worker);
    }
}

static int wait_for_epoch(ash_pool *p, int seen)
{
    for (int i = 0; i < SPINS; i++) {
        int now = atomic_load_explicit(&p->epoch, memory_order_acquire);
        if (now != seen)
            return now;
        relax();
    }
    atomic_fetch_add(&p->sleepers, 1);
    int now;
    while ((now = atomic_load(&p->epoch)) == seen) futex_wait(&p->epoch, seen);
    atomic_fetch_sub(&p->sleepers, 1);
    return now;
}

static void *worker_main(void *arg)
{
    struct start s = *(struct start *)arg;
    free(arg);
    for (int seen = 0;;) {
        seen = wait_for_epoch(s.pool, seen);
        if (atomic_load(&s.pool->stop))
            return NULL;
        work(s.pool, s.index);
        if (atomic_fetch_sub_explicit(&s.pool->active, 1, memory_order_acq_rel) == 1)
            futex_wake_all(&s.pool->active);
    }
}

int ash_pool_open(int threads, ash_pool **out, ash_err *err)
{
    *out = NULL;
    if (threads == 0)
        threads = ash_cpu_threads();
    if (threads < 1 || threads > MAX_THREADS)
        return ash_err_set(err, ASH_EINVAL, "a pool has 1 to %d threads, not %d", MAX_THREADS, threads);
    ash_pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p)
        return ash_err_nomem(err, "thread pool");
    *p = (ash_pool){.threads = 1};
    p->workers = calloc((size_t)threads, sizeof *p->workers);
    if (!p->workers) {
        free(p);
        return ash_err_nomem(err, "thread pool");
    }
    for (int i = 1; i < threads; i++) {
        struct start *s = malloc(sizeof *s);
        if (s)
            *s = (struct start){p, i};
        if (!s || pthread_create(&p->workers[i], NULL, worker_main, s)) {
            free(s);
            ash_pool_close(p);
            return ash_err_nomem(err, "a thread of the pool");
        }
        p->threads = i + 1;
    }
    *out = p;
    return 0;
}

void ash_pool_close(ash_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->epoch, 1);
    futex_wake_all(&p->epoch);
    for (int i = 1; i < p->threads; i++) pthread_join(p->workers[i], NULL);
    free(p->workers);
    free(p);
}

int ash_pool_threads(const ash_pool *p)
{
    return p ? p->threads : 1;
}

void ash_pool_run(ash_pool *p, int64_t n, int64_t grain, ash_pool_fn fn, void *arg)
{
    if (n <= 0)
        return;
    if (!p || p->threads == 1 || n <= grain) {
        fn(arg, 0, n, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    p->grain = grain;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->active, p->threads - 1, memory_order_relaxed);
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->sleepers))
        futex_wake_all(&p->epoch);
    work(p, 0);
    for (int i = 0; i < SPINS && atomic_load_explicit(&p->active, memory_order_acquire); i++) relax();
    int left;
    while ((left = atomic_load_explicit(&p->active, memory_order_acquire)))
        futex_wait(&p->active, left);
}
