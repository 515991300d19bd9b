/* Owns worker threads that split one job at a time. Refuses more than 1024 threads.
 * One caller at a time; workers touch only the claimed ranges of the job.
 *
 * A node's share of a job is divided into lanes, in each of which some of its threads begin (up to LANES, one
 * each): a thread so goes from one chunk to the next, of which a matmul has fetched the start already.
 *
 * A job is one atomic word a lane: which job, how many chunks, how many of them are claimed. Claiming a
 * chunk is one compare-and-swap on it, so a worker that wakes late, or never, finds no chunk left and is not
 * waited for: the caller waits for claimed chunks only. What a chunk needs to know is read after it was
 * claimed, when the caller cannot yet have gone on to the next job: that begins when all words are used up,
 * and its fields are written before its first word. */
#include "base/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpu.h"

/* Spinning hides the microseconds between the jobs of a forward; 4,000 pauses are some 50 us. */
enum { MAX_THREADS = 1024, SPINS = 4000, LANES = 8 };

/* The word: job number (24 bits), chunks (20), claimed (20). */
enum { COUNT_BITS = 20, MAX_CHUNKS = (1 << COUNT_BITS) - 1 };

struct lane {
    _Alignas(64) atomic_ullong word;
    int64_t begin, end;             /* of its part of the current job */
    int node;
};

struct node {
    int before, threads;            /* threads of the nodes before it; its own */
    int lane, lanes;                /* its first; how many */
    int id;                         /* the kernel's number */
    cpu_set_t cpus;
};

struct ash_pool {
    int threads, nodes, lanes;
    bool bound;                     /* workers are bound to the cpus of their nodes */
    struct node *node;              /* [nodes] */
    struct lane *lane;              /* [lanes], node by node */
    pthread_t *workers;
    ash_pool_fn fn;                 /* of the current job, as arg, grain and chunks */
    void *arg;
    int64_t grain;
    int chunks;
    uint32_t job;
    _Alignas(64) atomic_int epoch;  /* futex: a new job, or the end, changes it */
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

static inline uint64_t job_of(uint64_t word)
{
    return word >> (2 * COUNT_BITS);
}

/* The index of a lane's chunk that is now the calling thread's, or -1 if all are taken. At home *job becomes
 * the one of which no chunk is left there; elsewhere only its chunks are claimed, so that the next job, too,
 * is begun at home. */
static int64_t claim(struct lane *lane, bool home, uint64_t *job)
{
    uint64_t word = atomic_load_explicit(&lane->word, memory_order_relaxed);
    while (claimed(word) < chunks(word) && (home || job_of(word) == *job))
        if (atomic_compare_exchange_weak_explicit(&lane->word, (unsigned long long *)&word, word + 1,
                                                  memory_order_acquire, memory_order_relaxed))
            return (int64_t)claimed(word);
    if (home)
        *job = job_of(word);
    return -1;
}

/* Does a lane's chunks until none is left. Who ends the job's last one wakes the caller. */
static void work_lane(ash_pool *p, int worker, struct lane *lane, bool home, uint64_t *job)
{
    for (int64_t i; (i = claim(lane, home, job)) >= 0;) {
        int64_t begin = lane->begin + i * p->grain;
        int64_t end = lane->end - begin < p->grain ? lane->end : begin + p->grain;
        int all = p->chunks;
        p->fn(p->arg, begin, end, worker);
        /* From this addition on the job may be over and p's fields another's. */
        if (atomic_fetch_add(&p->done, 1) + 1 == all && worker > 0 && atomic_load(&p->waiting))
            futex_wake(&p->done, 1);
    }
}

/* Does chunks until none is left: those of lane `home` first, then those of its node, then the others'. */
static void work(ash_pool *p, int worker, int home)
{
    uint64_t job = 0;
    const struct node *node = &p->node[p->lane[home].node];
    for (int i = 0; i < node->lanes; i++) {
        int at = node->lane + (home - node->lane + i) % node->lanes;
        work_lane(p, worker, &p->lane[at], at == home, &job);
    }
    for (int i = node->lanes; i < p->lanes; i++)
        work_lane(p, worker, &p->lane[(node->lane + i) % p->lanes], false, &job);
}

static bool has_chunk(ash_pool *p)
{
    for (int k = 0; k < p->lanes; k++) {
        uint64_t word = atomic_load_explicit(&p->lane[k].word, memory_order_relaxed);
        if (claimed(word) < chunks(word))
            return true;
    }
    return false;
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
    const struct node *node = &s.pool->node[ash_pool_node_of(s.pool, s.index)];
    int home = node->lane + (s.index - node->before) * node->lanes / node->threads;
    if (s.pool->bound) /* refused: it runs where the system wants it to */
        pthread_setaffinity_np(pthread_self(), sizeof(cpu_set_t), &node->cpus);
    while (wait_for_job(s.pool)) work(s.pool, s.index, home);
    return NULL;
}

/* Gives each thread to the node that has the most CPUs for each of its threads, this one included; the first
 * of equals. */
static void count_threads(const ash_numa *numa, int threads, int count[ASH_MAX_NODES])
{
    memset(count, 0, ASH_MAX_NODES * sizeof *count);
    for (int t = 0; t < threads; t++) {
        int best = 0;
        for (int k = 1; k < numa->nodes; k++)
            if ((int64_t)CPU_COUNT(&numa->cpus[k]) * (count[best] + 1) >
                (int64_t)CPU_COUNT(&numa->cpus[best]) * (count[k] + 1))
                best = k;
        count[best]++;
    }
}

/* The lanes of all nodes. */
static int make_lanes(ash_pool *p)
{
    for (int k = 0; k < p->nodes; k++) {
        p->node[k].lane = p->lanes;
        p->node[k].lanes = p->node[k].threads < LANES ? p->node[k].threads : LANES;
        p->lanes += p->node[k].lanes;
    }
    p->lane = aligned_alloc(64, (size_t)p->lanes * sizeof *p->lane);
    if (!p->lane)
        return ASH_ENOMEM;
    for (int k = 0; k < p->nodes; k++)
        for (int i = 0; i < p->node[k].lanes; i++)
            p->lane[p->node[k].lane + i] = (struct lane){.node = k};
    return 0;
}

/* Those of numa's nodes that get threads. */
static int make_nodes(ash_pool *p, const ash_numa *numa, int threads)
{
    static const ash_numa one = {.nodes = 1};
    int count[ASH_MAX_NODES], before = 0;
    numa = numa ? numa : &one;
    p->node = calloc((size_t)numa->nodes, sizeof *p->node);
    if (!p->node)
        return ASH_ENOMEM;
    count_threads(numa, threads, count);
    for (int k = 0; k < numa->nodes; k++) {
        if (!count[k])
            continue;
        p->node[p->nodes++] = (struct node){.before = before, .threads = count[k], .id = numa->id[k],
                                            .cpus = numa->cpus[k]};
        before += count[k];
    }
    p->bound = numa->real && p->nodes > 1;
    return make_lanes(p);
}

static void free_pool(ash_pool *p)
{
    free(p->node);
    free(p->lane);
    free(p->workers);
    free(p);
}

int ash_pool_open_on(const ash_numa *numa, int threads, ash_pool **out, ash_err *err)
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
    if (!p->workers || make_nodes(p, numa, threads)) {
        free_pool(p);
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

int ash_pool_open(int threads, ash_pool **out, ash_err *err)
{
    return ash_pool_open_on(NULL, threads, out, err);
}

void ash_pool_close(ash_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->epoch, 1);
    futex_wake(&p->epoch, MAX_THREADS);
    for (int i = 1; i < p->threads; i++) pthread_join(p->workers[i], NULL);
    free_pool(p);
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

int ash_pool_nodes(const ash_pool *p)
{
    return p ? p->nodes : 1;
}

int ash_pool_node_of(const ash_pool *p, int worker)
{
    int k = 0;
    while (worker >= p->node[k].before + p->node[k].threads) k++;
    return k;
}

int ash_pool_node_threads(const ash_pool *p, int node)
{
    return p->node[node].threads;
}

bool ash_pool_node_get(const ash_pool *p, int node, cpu_set_t *cpus, int *id)
{
    if (!p || !p->bound)
        return false;
    *cpus = p->node[node].cpus;
    *id = p->node[node].id;
    return true;
}

int64_t ash_pool_share(const ash_pool *p, int64_t n, int node)
{
    if (node == 0 || node == ash_pool_nodes(p))
        return node ? n : 0;
    int before = p->node[node].before, all = p->node[p->nodes - 1].before + p->node[p->nodes - 1].threads;
    return n / all * before + n % all * before / all;
}

/* The node on whose CPU the caller runs, or the first. */
static int node_of_caller(const ash_pool *p)
{
    int cpu = p->bound ? sched_getcpu() : -1;
    for (int k = 1; cpu >= 0 && k < p->nodes; k++)
        if (CPU_ISSET_S((size_t)cpu, sizeof p->node[k].cpus, &p->node[k].cpus))
            return k;
    return 0;
}

/* Divides the job among the lanes, whole chunks to each, and returns its chunks. */
static int64_t set_shares(ash_pool *p, const int64_t *ends, int64_t *count)
{
    int64_t all = 0, begin = 0;
    for (int k = 0; k < p->nodes; k++) {
        const struct node *node = &p->node[k];
        int64_t chunks_here = (ends[k] - begin + p->grain - 1) / p->grain;
        for (int i = 0; i < node->lanes; i++) {
            struct lane *lane = &p->lane[node->lane + i];
            int64_t first = chunks_here * i / node->lanes, next = chunks_here * (i + 1) / node->lanes;
            count[node->lane + i] = next - first;
            lane->begin = begin + first * p->grain;
            lane->end = next == chunks_here ? ends[k] : begin + next * p->grain;
        }
        all += chunks_here;
        begin = ends[k];
    }
    return all;
}

static void run_alone(int nodes, const int64_t *ends, ash_pool_fn fn, void *arg)
{
    int64_t begin = 0;
    for (int k = 0; k < nodes; begin = ends[k++])
        if (begin < ends[k])
            fn(arg, begin, ends[k], 0);
}

void ash_pool_run_shares(ash_pool *p, const int64_t *ends, int64_t grain, ash_pool_fn fn, void *arg)
{
    int nodes = ash_pool_nodes(p);
    int64_t n = ends[nodes - 1], count[ASH_MAX_NODES * LANES];
    if (!p || p->threads == 1 || n <= grain) {
        run_alone(nodes, ends, fn, arg);
        return;
    }
    if (n / grain >= MAX_CHUNKS)
        grain = n / (MAX_CHUNKS - 1) + 1;
    p->fn = fn;
    p->arg = arg;
    p->grain = grain;
    int64_t all = set_shares(p, ends, count);
    p->chunks = (int)all;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    uint64_t job = (uint64_t)++p->job << (2 * COUNT_BITS);
    for (int k = 0; k < p->lanes; k++)
        atomic_store(&p->lane[k].word, job | (uint64_t)count[k] << COUNT_BITS);
    wake(p, all);
    work(p, 0, p->node[node_of_caller(p)].lane);
    wait_for_chunks(p, (int)all);
}

void ash_pool_run(ash_pool *p, int64_t n, int64_t grain, ash_pool_fn fn, void *arg)
{
    int64_t ends[ASH_MAX_NODES];
    if (n <= 0)
        return;
    for (int k = 0; k < ash_pool_nodes(p); k++) ends[k] = ash_pool_share(p, n, k + 1);
    ash_pool_run_shares(p, ends, grain, fn, arg);
}
