/* Loops that do nothing but the widest products, to measure what this machine could reach at most.
 * Pure functions, any thread; the table of kernels points to the right one. */
#ifndef ASHLEY_KERNEL_PEAK_H
#define ASHLEY_KERNEL_PEAK_H

#include <stdint.h>

/* Runs `rounds` rounds of int8 products (of float ones on the scalar level) in registers; returns the
 * operations done, a multiply and an add counting two. */
typedef int64_t (*ash_peak_fn)(int64_t rounds);

int64_t ash_peak_scalar(int64_t rounds);
int64_t ash_peak_avx2(int64_t rounds);
int64_t ash_peak_avx512(int64_t rounds);

#endif
