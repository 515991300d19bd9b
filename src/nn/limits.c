/* Owns measuring the machine's read bandwidth and product peak. Any thread; not while speed matters. */
#include "nn/limits.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/pool.h"
#include "kernel/peak.h"

enum { BYTES = 256 << 20, CHUNK = 1 << 20, PASSES = 5, ROUNDS = 20000 };

typedef struct limits_job {
    const uint64_t *memory;
    ash_peak_fn peak;
    uint64_t sink[1024]; /* by worker: keeps the reads from being optimised away */
} limits_job;

static void read_chunks(void *arg, int64_t begin, int64_t end, int worker)
{
    limits_job *j = arg;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    const uint64_t *p = j->memory + begin * (CHUNK / 8), *stop = j->memory + end * (CHUNK / 8);
    for (; p < stop; p += 32) { /* four cache lines a turn */
        a += p[0] ^ p[8];
        b += p[16] ^ p[24];
        c += p[1] ^ p[9];
        d += p[17] ^ p[25];
    }
    j->sink[worker & 1023] += a + b + c + d;
}

static void run_peak(void *arg, int64_t begin, int64_t end, int worker)
{
    limits_job *j = arg;
    for (int64_t i = begin; i < end; i++) j->sink[worker & 1023] += (uint64_t)j->peak(ROUNDS);
}

static double best_seconds(ash_pool *pool, int64_t n, ash_pool_fn fn, limits_job *j)
{
    double best = 1e9;
    for (int i = 0; i < PASSES; i++) {
        int64_t t = ash_clock_ns();
        ash_pool_run(pool, n, 1, fn, j);
        double s = (double)(ash_clock_ns() - t) * 1e-9;
        best = s < best ? s : best;
    }
    return best;
}

static ash_peak_fn peak_of(ash_cpu_level level)
{
#if defined(__x86_64__)
    if (level == ASH_CPU_AVX512)
        return ash_peak_avx512;
    if (level == ASH_CPU_AVX2)
        return ash_peak_avx2;
#endif
    return ash_peak_scalar;
}

int ash_limits_measure(int threads, ash_cpu_level level, ash_limits *out, ash_err *err)
{
    if (level > ash_cpu_get()->level)
        return ash_err_set(err, ASH_EUNSUPPORTED, "this processor has no %s", ash_cpu_level_name(level));
    ash_pool *pool;
    int rc = ash_pool_open(threads, &pool, err);
    if (rc)
        return rc;
    limits_job *j = calloc(1, sizeof *j);
    void *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!j || memory == MAP_FAILED) {
        rc = ash_err_nomem(err, "measuring the machine");
    } else {
        madvise(memory, BYTES, MADV_HUGEPAGE);
        memset(memory, 1, BYTES); /* real pages, not the one zero page */
        *j = (limits_job){.memory = memory, .peak = peak_of(level)};
        out->read_gbs = (double)BYTES / best_seconds(pool, BYTES / CHUNK, read_chunks, j) * 1e-9;
        int64_t n = 8 * ash_pool_threads(pool);
        double s = best_seconds(pool, n, run_peak, j);
        out->int8_gops = (double)n * (double)j->peak(ROUNDS) / s * 1e-9;
    }
    if (memory != MAP_FAILED)
        munmap(memory, BYTES);
    free(j);
    ash_pool_close(pool);
    return rc;
}
