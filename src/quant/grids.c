/* Owns the constants of the formats whose quants are indices. The codebooks are written as 16-bit codes
 * and widened by the compiler. */
#include "quant/grids.h"

#include "quant/grids.inc"

#define PAIR(code, j) ((uint64_t)((code) >> 2 * (j) & 3))
#define TRIPLE(code, j) ((uint32_t)((code) >> 3 * (j) & 7))
#define EIGHT(level, code)                                                                          \
    level(PAIR(code, 0)) | level(PAIR(code, 1)) << 8 | level(PAIR(code, 2)) << 16 |                 \
        level(PAIR(code, 3)) << 24 | level(PAIR(code, 4)) << 32 | level(PAIR(code, 5)) << 40 |      \
        level(PAIR(code, 6)) << 48 | level(PAIR(code, 7)) << 56,
#define FOUR(level, code)                                                                           \
    level(TRIPLE(code, 0)) | level(TRIPLE(code, 1)) << 8 | level(TRIPLE(code, 2)) << 16 |           \
        level(TRIPLE(code, 3)) << 24,

#define LEVEL_IQ2(k) (8 + 17 * (k) + ((k) >> 1))  /* 8, 25, 43 */
#define LEVEL_IQ1(k) (k)
#define LEVEL_IQ3_XXS(k) (4 + 8 * (k) + 2 * ((k) / 7)) /* 4, 12 .. 52, 62 */
#define LEVEL_IQ3_S(k) (2 * (k) + 1)

#define ENTRY_IQ2(code) EIGHT(LEVEL_IQ2, code)
#define ENTRY_IQ1(code) EIGHT(LEVEL_IQ1, code)
#define ENTRY_IQ3_XXS(code) FOUR(LEVEL_IQ3_XXS, code)
#define ENTRY_IQ3_S(code) FOUR(LEVEL_IQ3_S, code)

const uint64_t ash_grid_iq2_xxs[256] = {ASH_IQ2_XXS_CODES(ENTRY_IQ2)};
const uint64_t ash_grid_iq2_xs[512] = {ASH_IQ2_XS_CODES(ENTRY_IQ2)};
const uint64_t ash_grid_iq2_s[1024] = {ASH_IQ2_S_CODES(ENTRY_IQ2)};
const uint64_t ash_grid_iq1[2048] = {ASH_IQ1_CODES(ENTRY_IQ1)};
const uint32_t ash_grid_iq3_xxs[256] = {ASH_IQ3_XXS_CODES(ENTRY_IQ3_XXS)};
const uint32_t ash_grid_iq3_s[512] = {ASH_IQ3_S_CODES(ENTRY_IQ3_S)};

const int8_t ash_values_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};
const int8_t ash_values_fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
