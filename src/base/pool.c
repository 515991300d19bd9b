/* Owns worker threads that split one job at a time. Refuses more than 1024 threads.
 * One caller at a time; workers touch only the claimed ranges of the job.
 *
 * A job is one atomic word: which job, how many chunks, how many of them are claimed. Claiming a chunk
 * is one compare-and-swap on it, so a worker that wakes late, or never, finds no chunk left and is not
 * waited for: the caller waits for claimed chunks only. What a chunk needs to know is read after it was
 * claimed, when the caller cannot yet have gone on to the next job. */
#include "base/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpu.h"

/* Spinning hides the microseconds between the jobs of a forward; 4,000 pauses are some 50 us. */
enum { MAX_THREADS = 1024, SPINS = 4000 };

/* The word: job number (24 bits), chunks (20), claimed (20). */
enum { COUNT_BITS = 20, MAX_CHUNKS = (1 << COUNT_BITS) - 1 };

struct ash_pool {
    int threads;
    pthread_t *workers;
    ash_pool_fn fn; /* of the current job, as n, grain and arg */
    void *arg;
    int64_t n, grain;
    uint32_t job;
    _Alignas(64) atomic_ullong word;
    atomic_int epoch;               /* futex: a new job, or the end, changes it */
    atomic_int sleepers;            /* workers in, or about to enter, futex_wait */
    atomic_bool stop;
    _Alignas(64) atomic_int done;   /* chunks of this job that are finished */
    atomic_int waiting;             /* the caller sleeps on done */
};

struct start {
    ash_pool *pool;
    int index;
};

static void futex_wait(atomic_int *at, int value)
{
    syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(atomic_int *at, int threads)
{
    syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* yield does nothing on most; a pause as long as x86's */
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static inline uint64_t claimed(uint64_t word)
{
    return word & MAX_CHUNKS;
}

static inline uint64_t chunks(uint64_t word)
{
    return word >> COUNT_BITS & MAX_CHUNKS;
}

/* The index of a chunk that is now the calling thread's, or -1 if all are taken. */
static int64_t claim(ash_pool *p)
{
    uint64_t word = atomic_load_explicit(&p->word, memory_order_relaxed);
    while (claimed(word) < chunks(word))
        if (atomic_compare_exchange_weak_explicit(&p->word, (unsigned long long *)&word, word + 1,
                                                  memory_order_acquire, memory_order_relaxed))
            return (int64_t)claimed(word);
    return -1;
}

/* Does chunks until none is left. Who ends the last one wakes the caller. */
static void work(ash_pool *p, int worker)
{
    for (int64_t i; (i = claim(p)) >= 0;) {
        int64_t begin = i * p->grain, end = begin + p->grain < p->n ? begin + p->grain : p->n;
        int all = (int)((p->n + p->grain - 1) / p->grain);
        p->fn(p->arg, begin, end, worker);
        /* From this addition on the job may be over and p's fields another's. */
        if (atomic_fetch_add(&p->done, 1) + 1 == all && worker > 0 && atomic_load(&p->waiting))
            futex_wake(&p->done, 1);
    }
}

static bool has_chunk(ash_pool *p)
{
    uint64_t word = atomic_load_explicit(&p->word, memory_order_relaxed);
    return claimed(word) < chunks(word);
}

/* Until there is a chunk to claim (true) or the pool ends (false). */
static bool wait_for_job(ash_pool *p)
{
    for (int i = 0; i < SPINS; i++) {
        if (has_chunk(p))
            return true;
        relax();
    }
    for (;;) {
        int epoch = atomic_load(&p->epoch);
        atomic_fetch_add(&p->sleepers, 1);
        bool stop = atomic_load(&p->stop);
        if (!stop && !has_chunk(p))
            futex_wait(&p->epoch, epoch);
        atomic_fetch_sub(&p->sleepers, 1);
        if (stop || has_chunk(p))
            return !stop;
    }
}

static void *worker_main(void *arg)
{
    struct start s = *(struct start *)arg;
    free(arg);
    while (wait_for_job(s.pool)) work(s.pool, s.index);
    return NULL;
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
    futex_wake(&p->epoch, MAX_THREADS);
    for (int i = 1; i < p->threads; i++) pthread_join(p->workers[i], NULL);
    free(p->workers);
    free(p);
}

int ash_pool_threads(const ash_pool *p)
{
    return p ? p->threads : 1;
}

/* Wakes sleepers for a job of `count` chunks; the caller takes at least one itself. */
static void wake(ash_pool *p, int64_t count)
{
    atomic_fetch_add(&p->epoch, 1);
    int sleepers = atomic_load(&p->sleepers);
    if (sleepers)
        futex_wake(&p->epoch, count - 1 < sleepers ? (int)(count - 1) : sleepers);
}

static void wait_for_chunks(ash_pool *p, int count)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&p->done, memory_order_acquire) == count)
            return;
        relax();
    }
    atomic_store(&p->waiting, 1);
    int done;
    while ((done = atomic_load(&p->done)) != count) futex_wait(&p->done, done);
    atomic_store(&p->waiting, 0);
}

void ash_pool_run(ash_pool *p, int64_t n, int64_t grain, ash_pool_fn fn, void *arg)
{
    if (n <= 0)
        return;
    if (!p || p->threads == 1 || n <= grain) {
        fn(arg, 0, n, 0);
        return;
    }
    if (n / grain >= MAX_CHUNKS)
        grain = n / (MAX_CHUNKS - 1) + 1;
    int64_t count = (n + grain - 1) / grain;
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    p->grain = grain;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    uint64_t job = (uint64_t)++p->job << (2 * COUNT_BITS);
    atomic_store(&p->word, job | (uint64_t)count << COUNT_BITS);
    wake(p, count);
    work(p, 0);
    wait_for_chunks(p, (int)count);
}
