/* Owns the measurement of the machine's limits. The loops keep everything in registers, with enough
 * independent chains to hide latencies. */
#include "peak.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>

enum { CHAINS = 16, READ_BYTES = 192 << 20 };

#define CHAINS_OF(type, zero)                                                                      \
    type a[CHAINS];                                                                                \
    _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++)                                      \
    {                                                                                              \
        a[i] = zero;                                                                               \
        __asm__ volatile("" : "+v"(a[i])); /* else equal chains are one chain */                   \
    }
#define EACH _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++)

__attribute__((target("avx512f,avx512vnni"))) static double int8_512(long rounds)
{
    CHAINS_OF(__m512i, _mm512_setzero_si512());
    __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(1);
    for (long r = 0; r < rounds; r++) {
        EACH a[i] = _mm512_dpbusd_epi32(a[i], x, y);
        __asm__ volatile("" : "+v"(x), "+v"(y));
    }
    EACH __asm__ volatile("" ::"v"(a[i]));
    return (double)rounds * CHAINS * 128;
}

__attribute__((target("avx512f,avx512bf16"))) static double bf16_512(long rounds)
{
    CHAINS_OF(__m512, _mm512_setzero_ps());
    __m512i x = _mm512_setzero_si512(), y = x;
    for (long r = 0; r < rounds; r++) {
        EACH a[i] = _mm512_dpbf16_ps(a[i], (__m512bh)x, (__m512bh)y);
        __asm__ volatile("" : "+v"(x), "+v"(y));
    }
    EACH __asm__ volatile("" ::"v"(a[i]));
    return (double)rounds * CHAINS * 64;
}

__attribute__((target("avx512f"))) static double f32_512(long rounds)
{
    CHAINS_OF(__m512, _mm512_setzero_ps());
    __m512 x = _mm512_set1_ps(0.5f), y = x;
    for (long r = 0; r < rounds; r++) {
        EACH a[i] = _mm512_fmadd_ps(x, y, a[i]);
        __asm__ volatile("" : "+v"(x), "+v"(y));
    }
    EACH __asm__ volatile("" ::"v"(a[i]));
    return (double)rounds * CHAINS * 32;
}

__attribute__((target("avx2"))) static double int8_256(long rounds)
{
    __m256i a[8];
    for (int i = 0; i < 8; i++) {
        a[i] = _mm256_setzero_si256();
        __asm__ volatile("" : "+x"(a[i]));
    }
    __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(1), one = _mm256_set1_epi16(1);
    for (long r = 0; r < rounds; r++) {
        _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++)
        {
            __m256i p = _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), one);
            __asm__ volatile("" : "+x"(p));
            a[i] = _mm256_add_epi32(a[i], p);
        }
        __asm__ volatile("" : "+x"(x), "+x"(y));
    }
    for (int i = 0; i < 8; i++) __asm__ volatile("" ::"x"(a[i]));
    return (double)rounds * 8 * 64;
}

__attribute__((target("avx2,fma"))) static double f32_256(long rounds)
{
    __m256 a[12];
    for (int i = 0; i < 12; i++) {
        a[i] = _mm256_setzero_ps();
        __asm__ volatile("" : "+x"(a[i]));
    }
    __m256 x = _mm256_set1_ps(0.5f), y = x;
    for (long r = 0; r < rounds; r++) {
        _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = _mm256_fmadd_ps(x, y, a[i]);
        __asm__ volatile("" : "+x"(x), "+x"(y));
    }
    for (int i = 0; i < 12; i++) __asm__ volatile("" ::"x"(a[i]));
    return (double)rounds * 12 * 16;
}

__attribute__((target("avx2"))) static double read_all(const uint8_t *p, long bytes)
{
    __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
    for (long i = 0; i < bytes; i += 128)
        for (int j = 0; j < 4; j++)
            s[j] = _mm256_or_si256(s[j], _mm256_load_si256((const __m256i *)(p + i + j * 32)));
    for (int j = 0; j < 4; j++) __asm__ volatile("" ::"x"(s[j]));
    return (double)bytes;
}

typedef struct task {
    int what;
    uint8_t *memory;
    double rate; /* per nanosecond of this thread's CPU time: a core taken away does not count */
} task;

enum { READ, INT8, BF16, F32, KINDS };

static double burn(const task *t, long rounds)
{
    bool wide = ash_cpu_get()->level == ASH_CPU_AVX512;
    switch (t->what) {
    case READ:
        return read_all(t->memory, READ_BYTES);
    case INT8:
        return wide ? int8_512(rounds) : int8_256(rounds);
    case BF16:
        return ash_cpu_get()->bf16 ? bf16_512(rounds) : 0;
    default:
        return wide ? f32_512(rounds) : f32_256(rounds);
    }
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *task_main(void *arg)
{
    task *t = arg;
    burn(t, 400000); /* until the others run too */
    double start = cpu_ns();
    double done = burn(t, 2000000);
    t->rate = done / (cpu_ns() - start);
    return NULL;
}

/* Operations (or bytes) per nanosecond of all threads together. */
static double round_of(int what, int threads, uint8_t **memory)
{
    pthread_t ids[256];
    task tasks[256];
    double sum = 0;
    for (int i = 0; i < threads; i++) {
        tasks[i] = (task){what, memory[i], 0};
        if (pthread_create(&ids[i], NULL, task_main, &tasks[i])) abort();
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        sum += tasks[i].rate;
    }
    return sum;
}

bench_peak bench_peak_measure(int threads)
{
    double best[KINDS] = {0};
    uint8_t *memory[256] = {NULL};
    if (threads > 255 || ash_cpu_get()->level < ASH_CPU_AVX2) return (bench_peak){0};
    for (int i = 0; i < threads; i++) {
        memory[i] = aligned_alloc(64, READ_BYTES);
        if (!memory[i]) abort();
        memset(memory[i], i + 1, READ_BYTES);
    }
    for (int round = 0; round < 7; round++) {
        for (int what = 0; what < KINDS; what++) {
            double got = round_of(what, threads, memory);
            best[what] = got > best[what] ? got : best[what];
        }
    }
    for (int i = 0; i < threads; i++) free(memory[i]);
    return (bench_peak){best[READ], best[INT8], best[BF16], best[F32]};
}
#else
bench_peak bench_peak_measure(int threads)
{
    return (bench_peak){0};
}
#endif
