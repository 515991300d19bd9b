/* The constants of the formats whose quants are indices: codebooks of the IQ types and the values of
 * 4-bit codes (ggml, src/ggml-common.h). Constant data, any thread. */
#ifndef ASHLEY_QUANT_GRIDS_H
#define ASHLEY_QUANT_GRIDS_H

#include <stdint.h>

/* Entries of 8 or 4 bytes, the first element lowest. */
extern const uint64_t ash_grid_iq2_xxs[256]; /* magnitudes 8, 25, 43 */
extern const uint64_t ash_grid_iq2_xs[512];
extern const uint64_t ash_grid_iq2_s[1024];
extern const uint64_t ash_grid_iq1[2048];    /* 0, 1, 2 for -1, 0, 1 */
extern const uint32_t ash_grid_iq3_xxs[256]; /* magnitudes 4 .. 52 in eights, 62 */
extern const uint32_t ash_grid_iq3_s[512];   /* magnitudes 1, 3 .. 15 */

extern const int8_t ash_values_iq4[16]; /* IQ4_NL and IQ4_XS */
extern const int8_t ash_values_fp4[16]; /* twice the values of E2M1: MXFP4 and NVFP4 */

/* Seven signs with the eighth that makes the number of minuses even. */
static inline uint32_t ash_even_signs(uint32_t s)
{
    uint32_t p = s ^ s >> 4;
    p ^= p >> 2;
    return s | ((p ^ p >> 1) & 1) << 7;
}

#endif
