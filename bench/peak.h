/* What this machine can do at most: memory reads and register-only arithmetic, measured. */
#ifndef ASHLEY_BENCH_PEAK_H
#define ASHLEY_BENCH_PEAK_H

typedef struct bench_peak {
    double read_gb;  /* GB/s of reads from memory beyond the caches */
    double int8_gop; /* vpdpbusd (vpmaddubsw + vpmaddwd without VNNI), a multiply-add is 2 */
    double bf16_gop; /* vdpbf16ps; 0 without it */
    double f32_gop;  /* FMA */
} bench_peak;

/* The best of several rounds on `threads` threads; about a second each. Zeros where not x86-64. */
bench_peak bench_peak_measure(int threads);

#endif
