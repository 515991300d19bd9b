/* Owns the Arm matmul on bfloat16 with activations in bfloat16: bfdot on 4 rows times 2 columns. Every result
 * is one chain in the order of the columns, whatever the tile; bfmmla would need the batch to be even. Any
 * thread. */
#include "kernel/arm/neon.h"
#include "kernel/simd/fetch.h"

enum { TILE_ROWS = 5 };

typedef struct tile {
    const uint8_t *w;
    int64_t pairs, ld;
    const uint16_t *h;
    fetch ahead; /* a step is a pair */
} tile;

INLINE bfloat16x8_t pair_of(const uint16_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return vreinterpretq_bf16_u32(vdupq_n_u32(v));
}

INLINE void run_tile(tile *t, const int N, float *y, int64_t ldy, int64_t left)
{
    vf acc[QUARTERS][TILE_ROWS];
    ZERO_TILE(acc, N)
    for (int64_t k = 0; k < t->pairs; k++) {
        bfloat16x8_t u[QUARTERS];
        fetch_more(&t->ahead);
        UNROLL for (int q = 0; q < QUARTERS; q++)
            u[q] = vreinterpretq_bf16_u8(vld1q_u8(t->w + k * 64 + q * 16));
        UNROLL for (int n = 0; n < N; n++)
        {
            bfloat16x8_t x = pair_of(t->h + n * t->ld + 2 * k);
            UNROLL for (int q = 0; q < QUARTERS; q++) acc[q][n] = vbfdotq_f32(acc[q][n], u[q], x);
        }
    }
    STORE_TILE(acc, N, y, ldy, left)
}

ASH_MATMUL(ash_i8mm_matmul_bf16)
{
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS, pairs = (a->cols + 1) / 2;
    for (int64_t g = g0; g < g1; g++) {
        for (int64_t i = 0; i < tiles; i++) {
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {w->data + g * w->group_bytes, pairs, a->ld, a->h + row * a->ld,
                      fetch_start(w, g, 1, i, tiles, pairs)};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            switch (n) {
            case 1: run_tile(&t, 1, out, ldy, left); break;
            case 2: run_tile(&t, 2, out, ldy, left); break;
            case 3: run_tile(&t, 3, out, ldy, left); break;
            case 4: run_tile(&t, 4, out, ldy, left); break;
            default: run_tile(&t, 5, out, ldy, left);
            }
        }
    }
}

void ash_i8mm_to_bf16(const float *x, int64_t n, uint16_t *h)
{
    for (int64_t i = 0; i < (n + 31) / 32 * 32; i += LANES) { /* h has room up to a multiple of 32 */
        vf v = i < n ? vf_load_part(x + i, n - i) : vf_zero();
        vst1_u16(h + i, vreinterpret_u16_bf16(vcvt_bf16_f32(v)));
    }
}
