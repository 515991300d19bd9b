/* Owns measuring what the machine can do. Any thread; not while anything else is being measured. */
#include "nn/limits.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/cpu.h"
#include "kernel/peak.h"

enum { READ_BYTES = 192 << 20, HUGE_PAGE = 2 << 20, MAX_THREADS = 256, ROUNDS = 7, FEW_ROUNDS = 3 };

typedef struct task {
    pthread_t thread;
    ash_peak what;
    uint8_t *memory;
    long bytes; /* of memory */
    double rate; /* per nanosecond of this thread's CPU time */
} task;

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *task_main(void *arg)
{
    task *t = arg;
    ash_peak_run(t->what, 400000, t->memory, t->bytes); /* until the others run too */
    double start = cpu_ns();
    double done = ash_peak_run(t->what, 2000000, t->memory, t->bytes);
    t->rate = done / (cpu_ns() - start);
    return NULL;
}

/* Operations (or bytes) per nanosecond of all threads together. */
static int one_round(task *tasks, int threads, ash_peak what, double *best, ash_err *err)
{
    int n = 0;
    double sum = 0.0;
    for (; n < threads; n++) {
        tasks[n].what = what;
        if (pthread_create(&tasks[n].thread, NULL, task_main, &tasks[n]))
            break;
    }
    for (int i = 0; i < n; i++) {
        pthread_join(tasks[i].thread, NULL);
        sum += tasks[i].rate;
    }
    *best = sum > *best ? sum : *best;
    return n == threads ? 0 : ash_err_nomem(err, "a thread");
}

/* The best of so many rounds of the first n of ash_peak, on `bytes` of memory for each thread. */
static int measure(int threads, long bytes, int rounds, int n, double best[ASH_PEAK_COUNT], ash_err *err)
{
    threads = threads ? threads : ash_cpu_threads();
    if (threads < 0 || threads > MAX_THREADS)
        return ash_err_set(err, ASH_EINVAL, "1 to %d threads, not %d", MAX_THREADS, threads);
    task *tasks = calloc((size_t)threads, sizeof *tasks);
    int rc = tasks ? 0 : ash_err_nomem(err, "measuring the machine");
    for (int i = 0; !rc && i < threads; i++) {
        tasks[i].bytes = bytes;
        tasks[i].memory = aligned_alloc(HUGE_PAGE, (size_t)bytes);
        if (!tasks[i].memory) {
            rc = ash_err_nomem(err, "measuring the machine");
        } else {
            madvise(tasks[i].memory, (size_t)bytes, MADV_HUGEPAGE); /* as the engine's weights */
            memset(tasks[i].memory, i + 1, (size_t)bytes); /* real pages, not the one zero page */
        }
    }
    for (int round = 0; !rc && round < rounds; round++)
        for (int what = 0; !rc && what < n; what++)
            rc = one_round(tasks, threads, (ash_peak)what, &best[what], err);
    for (int i = 0; tasks && i < threads; i++) free(tasks[i].memory);
    free(tasks);
    return rc;
}

int ash_limits_measure(int threads, ash_limits *out, ash_err *err)
{
    double best[ASH_PEAK_COUNT] = {0};
    int rc = measure(threads, READ_BYTES, ROUNDS, ASH_PEAK_COUNT, best, err);
    *out = (ash_limits){best[ASH_PEAK_READ], best[ASH_PEAK_INT8], best[ASH_PEAK_BF16],
                        best[ASH_PEAK_F32]};
    return rc;
}

int ash_limits_measure_memory(int threads, double *read_gbs, ash_err *err)
{
    double best[ASH_PEAK_COUNT] = {0};
    int rc = measure(threads, ASH_LIMITS_BYTES, FEW_ROUNDS, ASH_PEAK_READ + 1, best, err);
    *read_gbs = best[ASH_PEAK_READ];
    return rc;
}
