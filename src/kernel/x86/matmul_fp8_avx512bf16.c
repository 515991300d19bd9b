/* Owns the AVX-512 BF16 matmul on FP8 weights, activations in bfloat16, which holds every E4M3: VBMI looks
 * numbers up on their way to the multiplication. A tile is 2 groups times up to 12 rows of activations; a
 * span's sum, one chain of vdpbf16ps in the order of the columns, takes the scale and joins the total. The
 * same float operations in the same order in every tile. Any thread. */
#include "kernel/pack_fp8.h"
#include "kernel/simd/fetch.h"
#include "kernel/x86/avx512.h"

enum {
    TILE_ROWS = 12,
    STEP = 4, /* columns widened at a time */
};

typedef struct tile {
    const uint8_t *w;
    int64_t group_bytes, ld;
    const uint16_t *h;
    fetch ahead; /* a step is STEP columns */
} tile;

/* Of the numbers with exponent E, sign 0: the upper bytes as bfloat16, and the lower bytes. */
#define EIGHT(A) (A), (A), (A), (A), (A), (A), (A), (A)
#define UPPER(E) EIGHT(60 + (E) / 2)
#define LOWER(E)                                                                                      \
    (E) % 2 * 128, (E) % 2 * 128 + 16, (E) % 2 * 128 + 32, (E) % 2 * 128 + 48, (E) % 2 * 128 + 64,    \
        (E) % 2 * 128 + 80, (E) % 2 * 128 + 96, (E) % 2 * 128 + 112

/* E4M3 to bfloat16: subnormals (exponent 0) become normal numbers, which vdpbf16ps does not take for
 * zeros. */
static const struct {
    _Alignas(64) uint8_t upper[128], lower[128];
} e4m3 = {
    {0,         59,        59,        59,        60,        60,        60,        60,
     UPPER(1),  UPPER(2),  UPPER(3),  UPPER(4),  UPPER(5),  UPPER(6),  UPPER(7),  UPPER(8),
     UPPER(9),  UPPER(10), UPPER(11), UPPER(12), UPPER(13), UPPER(14), 67,        67,
     67,        67,        67,        67,        67,        127},
    {0,         0,         128,       192,       0,         32,        64,        96,
     LOWER(1),  LOWER(2),  LOWER(3),  LOWER(4),  LOWER(5),  LOWER(6),  LOWER(7),  LOWER(8),
     LOWER(9),  LOWER(10), LOWER(11), LOWER(12), LOWER(13), LOWER(14), LOWER(15)},
};

/* Four columns of 16 rows to pairs: columns 0 and 1, 2 and 3. */
INLINE void widen(__m512i v, __m512i out[2])
{
    const __m512i order = _mm512_set_epi64( /* so that unpacking within 16 bytes puts rows in order */
        0x3f2f3e2e3d2d3c2c, 0x1f0f1e0e1d0d1c0c, 0x3b2b3a2a39293828, 0x1b0b1a0a19091808, 0x3727362635253424,
        0x1707160615051404, 0x3323322231213020, 0x1303120211011000);
    const __m512i *upper = (const __m512i *)e4m3.upper, *lower = (const __m512i *)e4m3.lower;
    v = _mm512_permutexvar_epi8(order, v);
    __m512i high = _mm512_permutex2var_epi8(upper[0], v, upper[1]);
    __m512i low = _mm512_permutex2var_epi8(lower[0], v, lower[1]);
    high = _mm512_ternarylogic_epi64(high, v, _mm512_set1_epi8(-128), 0xf8); /* high | v & sign */
    out[0] = _mm512_unpacklo_epi8(low, high);
    out[1] = _mm512_unpackhi_epi8(low, high);
}

/* Widens the columns from p on, zeros past the first `left`. */
INLINE void widen_columns(const uint8_t *p, int64_t left, __m512i out[2])
{
    if (left >= STEP)
        widen(_mm512_loadu_si512(p), out);
    else
        widen(_mm512_maskz_loadu_epi8((1ull << ASH_GROUP * left) - 1, p), out);
}

/* sum += the pair of columns u from column k on. The second is zero where the span ends with the first. */
INLINE void multiply(const tile *t, const int R, const int N, int64_t k, const __m512i u[2],
                     __m512 sum[2][TILE_ROWS])
{
    UNROLL for (int n = 0; n < N; n++)
    {
        __m512bh x = (__m512bh)broadcast4(t->h + n * t->ld + k);
        UNROLL for (int r = 0; r < R; r++) sum[r][n] = _mm512_dpbf16_ps(sum[r][n], (__m512bh)u[r], x);
    }
}

/* sum += columns [k, k + left), STEP of them at most. */
INLINE void step(const tile *t, const int R, const int N, int64_t k, int64_t left, __m512 sum[2][TILE_ROWS])
{
    __m512i a[2], b[2];
    UNROLL for (int r = 0; r < R; r++)
    {
        __m512i pairs[2];
        widen_columns(t->w + r * t->group_bytes + k * ASH_GROUP, left, pairs);
        a[r] = pairs[0];
        b[r] = pairs[1];
    }
    multiply(t, R, N, k, a, sum);
    if (left > 2)
        multiply(t, R, N, k + 2, b, sum);
}

/* left: rows of W from the tile's first on. */
INLINE void run_tile(tile *t, const int R, const int N, const ash_packed *w, float *y, int64_t ldy,
                     int64_t left)
{
    const uint8_t *s = ash_pack_fp8_scales(w, t->w);
    __m512 acc[2][TILE_ROWS];
    FETCH_TILE(R, N, y, ldy);
    ZERO_TILE(acc, R, N);
    for (int64_t k = 0, end; k < w->cols; k = end, s += w->wide ? 64 : 4) {
        __m512 sum[2][TILE_ROWS];
        ZERO_TILE(sum, R, N);
        end = k + w->span < w->cols ? k + w->span : w->cols;
        for (; k + STEP <= end; k += STEP) {
            fetch_more(&t->ahead);
            step(t, R, N, k, STEP, sum);
        }
        if (k < end)
            step(t, R, N, k, end - k, sum);
        UNROLL for (int r = 0; r < R; r++)
        {
            const float *at = (const float *)(s + r * t->group_bytes);
            __m512 scale = w->wide ? _mm512_loadu_ps(at) : _mm512_set1_ps(*at);
            UNROLL for (int n = 0; n < N; n++) acc[r][n] = _mm512_fmadd_ps(sum[r][n], scale, acc[r][n]);
        }
    }
    STORE_TILE(acc, R, N, y, ldy, left)
}

INLINE void run_rows(tile *t, const int R, int n, const ash_packed *w, float *y, int64_t ldy, int64_t left)
{
#define CALL(N) run_tile(t, R, N, w, y, ldy, left)
    BY_SIZE_12(n, CALL)
#undef CALL
}

ASH_MATMUL(ash_avx512bf16_matmul_f8)
{
    int64_t tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t g = g0; g < g1; g += 2) {
        for (int64_t i = 0; i < tiles; i++) { /* of even size: no left-over of one row */
            int64_t row = a->n * i / tiles, n = a->n * (i + 1) / tiles - row;
            tile t = {w->data + g * w->group_bytes, w->group_bytes, a->ld, a->h + row * a->ld,
                      fetch_start(w, g, 2, i, tiles, (w->cols + STEP - 1) / STEP)};
            float *out = y + row * ldy + g * ASH_GROUP;
            int64_t left = w->rows - g * ASH_GROUP;
            if (g + 1 < g1)
                run_rows(&t, 2, (int)n, w, out, ldy, left);
            else
                run_rows(&t, 1, (int)n, w, out, ldy, left);
        }
    }
}
