/* Owns the choice of the loops that show what an Arm core can do at most, and those that every one has. */
#include "kernel/arm/neon.h"
#include "kernel/peak.h"

static double read_all(long rounds, const uint8_t *p, long bytes)
{
    uint8x16_t sum[8];
    for (int i = 0; i < 8; i++) sum[i] = vdupq_n_u8(0);
    for (long r = 0; r < rounds; r++) {
        for (long at = 0; at < bytes; at += 128) {
            __builtin_prefetch(p + at + 2048, 0, 3);
            UNROLL for (int i = 0; i < 8; i++) sum[i] = veorq_u8(sum[i], vld1q_u8(p + at + 16 * i));
        }
        UNROLL for (int i = 0; i < 8; i++) __asm__ volatile("" : "+w"(sum[i]));
    }
    return (double)rounds * (double)bytes;
}

static double f32_peak(long rounds)
{
    vf a[16], x = vf_set(0.5f), y = x;
    UNROLL for (int i = 0; i < 16; i++)
    {
        a[i] = vf_zero();
        __asm__ volatile("" : "+w"(a[i])); /* else equal chains are one chain */
    }
    for (long r = 0; r < rounds; r++) {
        UNROLL for (int i = 0; i < 16; i++) a[i] = vf_fma(x, y, a[i]);
        __asm__ volatile("" : "+w"(x), "+w"(y));
    }
    UNROLL for (int i = 0; i < 16; i++) __asm__ volatile("" ::"w"(a[i]));
    return (double)rounds * 16 * 8;
}

double ash_peak_run(ash_peak what, long rounds, const void *memory, long bytes)
{
    ash_cpu_level level = ash_cpu_get()->level;
    switch (what) {
    case ASH_PEAK_READ: return read_all(rounds, memory, bytes);
    case ASH_PEAK_F32: return f32_peak(rounds);
    case ASH_PEAK_INT8:
        if (level >= ASH_CPU_I8MM)
            return ash_i8mm_peak_int8(rounds);
        return level >= ASH_CPU_DOTPROD ? ash_dotprod_peak_int8(rounds) : ash_neon_peak_int8(rounds);
    case ASH_PEAK_BF16: return ash_cpu_get()->bf16 ? ash_i8mm_peak_bf16(rounds) : 0.0;
    default: return 0.0;
    }
}
