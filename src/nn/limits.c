/* Owns measuring what the machine can do. Any thread; not while anything else is being measured. */
#include "nn/limits.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/cpu.h"
#include "kernel/peak.h"

enum { READ_BYTES = 192 << 20, HUGE_PAGE = 2 << 20, MAX_THREADS = 256, ROUNDS = 7 };

typedef struct task {
    pthread_t thread;
    ash_peak what;
    uint8_t *memory;
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
    ash_peak_run(t->what, 400000, t->memory, READ_BYTES); /* until the others run too */
    double start = cpu_ns();
    double done = ash_peak_run(t->what, 2000000, t->memory, READ_BYTES);
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

int ash_limits_measure(int threads, ash_limits *out, ash_err *err)
{
    double best[ASH_PEAK_COUNT] = {0};
    threads = threads ? threads : ash_cpu_threads();
    if (threads < 0 || threads > MAX_THREADS)
        return ash_err_set(err, ASH_EINVAL, "1 to %d threads, not %d", MAX_THREADS, threads);
    task *tasks = calloc((size_t)threads, sizeof *tasks);
    int rc = tasks ? 0 : ash_err_nomem(err, "measuring the machine");
    for (int i = 0; !rc && i < threads; i++) {
        tasks[i].memory = aligned_alloc(HUGE_PAGE, READ_BYTES);
        if (!tasks[i].memory) {
            rc = ash_err_nomem(err, "measuring the machine");
        } else {
            madvise(tasks[i].memory, READ_BYTES, MADV_HUGEPAGE); /* as the engine's weights */
            memset(tasks[i].memory, i + 1, READ_BYTES); /* real pages, not the one zero page */
        }
    }
    for (int round = 0; !rc && round < ROUNDS; round++)
        for (int what = 0; !rc && what < ASH_PEAK_COUNT; what++)
            rc = one_round(tasks, threads, (ash_peak)what, &best[what], err);
    *out = (ash_limits){best[ASH_PEAK_READ], best[ASH_PEAK_INT8], best[ASH_PEAK_BF16],
                        best[ASH_PEAK_F32]};
    for (int i = 0; tasks && i < threads; i++) free(tasks[i].memory);
    free(tasks);
    return rc;
}
