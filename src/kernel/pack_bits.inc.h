/* The body of pack_bits, for a file that names it PACK_BITS and is compiled for one set of instructions:
 * a vector of 16 words is as many registers as it takes. Included once a file. */
#include <string.h>

#include "kernel/kernel.h"

typedef uint32_t words __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) void pack(const ash_bits *bits, int n_words, const int per_word,
                                                       int64_t groups, uint8_t *to, int64_t stride)
{
    for (int64_t g = 0; g < groups; g++) {
        const ash_bits *f = bits;
        for (int p = 0; p < n_words; p++, f += per_word) {
            words sum = {0}, v;
#pragma GCC unroll 16
            for (int i = 0; i < per_word; i++) {
                memcpy(&v, f[i].words + g * 64, sizeof v);
                sum |= (v << f[i].rotate | v >> ((0 - f[i].rotate) & 31)) & f[i].mask;
            }
            memcpy(to + g * stride + p * 64, &sum, sizeof sum);
        }
    }
}

void PACK_BITS(const ash_bits *bits, int n_words, int per_word, int64_t groups, uint8_t *to, int64_t stride)
{
    if (per_word == 8)
        pack(bits, n_words, 8, groups, to, stride);
    else if (per_word == 4)
        pack(bits, n_words, 4, groups, to, stride);
    else
        pack(bits, n_words, 16, groups, to, stride);
}
