/* Owns the AMX matmuls on quantised weights: tiles multiply 12 rows of activations by two groups of weights,
 * vectors scale what they give.
 *
 * The sum of a block of 32 columns is an integer and exact, and every float operation on it is the one that
 * matmul_avx512.c and matmul_group_avx512.c do, in their order: results are theirs bit for bit. So what tiles
 * gain nothing for, few rows and scales of very many columns, is left to them.
 *
 * A scale every 32 columns means that a tile multiplies half of its depth and is written out and read back
 * each time. 24 sums of 16 are as many as stay in registers while that goes on: 12 rows and 2 groups. The
 * tiles of a block are begun one block ahead, and written out when the next ones are begun. Columns are taken
 * in chunks, so that the weights of one, unpacked to bytes, stay in the first cache while all rows pass; in
 * between, sums lie in y. Any thread. */
#include "kernel/pack_gptq.h"
#include "kernel/x86/amx.h"
#include "kernel/x86/avx512.h"
#include "kernel/simd/fetch.h"

enum {
    ROWS = 12,   /* of a tile of activations */
    BLOCKS = 16, /* most of a chunk */
    BAND = 512,  /* most rows that pass a chunk */
};

/* What the calling thread's scratch holds. */
typedef struct work {
    uint8_t quants[2][BLOCKS][512]; /* bytes [8][16 rows][4 columns] of a block, as U8Z's */
    float xs[BAND][BLOCKS];         /* sums of the activations of each span of a chunk */
} work;

/* Sums of one block as tiles give them. */
typedef struct sums {
    int32_t of[2][ROWS][ASH_GROUP];
} sums;

/* What ROWS rows and two groups, or one, read of a chunk. */
typedef struct tile {
    const work *work;
    const uint8_t *d, *m;  /* scales of the first group, and minima or NULL; the next one's group_bytes on */
    int64_t group_bytes, blocks, ld, lds; /* rows of q are ld apart, of d and ds lds */
    const int8_t *q;
    const float *ad, *ads; /* the activations' d and ds */
    const float *xs;       /* [ROWS][BLOCKS] */
    int64_t step;          /* blocks of a span, or 1 */
    bool wide;
    fetch ahead[2];        /* of the groups after these; a step is a block */
} tile;

static const amx_config config = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 32, 64, 64}, /* sums, sums of the other parity, activations, weights */
    .rows = {ROWS, ROWS, ROWS, ROWS, ROWS, 8, 8},
};

/* Writes out the sums of the block before, unless b is the first, and begins the products of block b, unless
 * that is behind the last. Those of even and of odd blocks have tiles of their own: a tile that is written
 * out right behind its product has all wait for that (docs/SPEED.md). */
INLINE void step(tile *t, const ash_form form, const int R, int64_t b, const int odd, const bool first,
                 const bool last, sums *before)
{
    const uint8_t *w = t->work->quants[0][b];
    if (!last) {
        AMX_LOAD(4, t->q + b * 32, t->ld);
        AMX_LOAD(5, w, 64);
        if (R == 2)
            AMX_LOAD(6, w + sizeof t->work->quants[0], 64);
    }
#define PART(r, BEFORE, C, B)                                                                         \
    do {                                                                                              \
        if (!first)                                                                                   \
            AMX_STORE(BEFORE, before->of[r], 64);                                                     \
        if (last)                                                                                     \
            break;                                                                                    \
        AMX_ZERO(C);                                                                                  \
        if (form == ASH_FORM_U8G)                                                                     \
            AMX_DOT_I8_U8(C, 4, B);                                                                   \
        else                                                                                          \
            AMX_DOT_I8(C, 4, B);                                                                      \
    } while (0)
    if (odd) {
        PART(0, 0, 2, 5);
        if (R == 2)
            PART(1, 1, 3, 6);
    } else {
        PART(0, 2, 0, 5);
        if (R == 2)
            PART(1, 3, 1, 6);
    }
#undef PART
    UNROLL for (int r = 0; r < R && !last; r++) fetch_more(&t->ahead[r]);
}

/* acc += block b: sums times both scales, and minima. */
INLINE void add_block(const tile *t, const ash_form form, const int R, int64_t b, const sums *s,
                      __m512 acc[2][ROWS])
{
    __m512 scale[2];
    UNROLL for (int r = 0; r < R; r++) scale[r] = vf_halves(t->d + r * t->group_bytes + b * 32);
    UNROLL for (int n = 0; n < ROWS; n++)
    {
        __m512 d = _mm512_set1_ps(t->ad[n * t->lds + b]);
        UNROLL for (int r = 0; r < R; r++)
        {
            __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(s->of[r][n])), scale[r]);
            acc[r][n] = _mm512_fmadd_ps(v, d, acc[r][n]);
        }
    }
    if (form != ASH_FORM_U4M)
        return;
    UNROLL for (int r = 0; r < R; r++) scale[r] = vf_halves(t->m + r * t->group_bytes + b * 32);
    UNROLL for (int n = 0; n < ROWS; n++)
    {
        __m512 ds = _mm512_set1_ps(t->ads[n * t->lds + b]);
        UNROLL for (int r = 0; r < R; r++) acc[r][n] = _mm512_fmadd_ps(scale[r], ds, acc[r][n]);
    }
}

/* sum += block b, by the scale of its activations alone. */
INLINE void add_to_span(const tile *t, const int R, int64_t b, const sums *s, __m512 sum[2][ROWS])
{
    UNROLL for (int n = 0; n < ROWS; n++)
    {
        __m512 d = _mm512_set1_ps(t->ad[n * t->lds + b]);
        UNROLL for (int r = 0; r < R; r++)
            sum[r][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(s->of[r][n])), d, sum[r][n]);
    }
}

/* acc += span i of the chunk, whose sum starts anew. */
INLINE void end_span(const tile *t, const int R, int64_t i, __m512 sum[2][ROWS], __m512 acc[2][ROWS])
{
    const int64_t wide = t->wide ? 64 : 32;
    UNROLL for (int r = 0; r < R; r++)
    {
        const uint8_t *s = t->d + r * t->group_bytes + i * (wide + 16);
        __m512 scale = t->wide ? _mm512_loadu_ps(s) : vf_halves(s);
        __m512 zero = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(s + wide))));
        UNROLL for (int n = 0; n < ROWS; n++)
        {
            __m512 v = _mm512_fnmadd_ps(zero, _mm512_set1_ps(t->xs[n * BLOCKS + i]), sum[r][n]);
            acc[r][n] = _mm512_fmadd_ps(v, scale, acc[r][n]);
            sum[r][n] = _mm512_setzero_ps();
        }
    }
}

/* y (+)= a chunk; the first `skip` rows are not written. left: rows of W from the tile's first on. */
INLINE void run_tile(tile *t, const ash_form form, const int R, bool first, int skip, float *y, int64_t ldy,
                     int64_t left)
{
    const bool spans = form == ASH_FORM_U4G || form == ASH_FORM_U8G;
    _Alignas(64) sums s[2];
    __m512 acc[2][ROWS], sum[2][ROWS];
    int64_t span = 0, end = t->step;
    UNROLL for (int n = 0; n < ROWS; n++) UNROLL for (int r = 0; r < R; r++)
    {
        __mmask16 m = first ? 0 : lanes(left - r * ASH_GROUP);
        acc[r][n] = _mm512_maskz_loadu_ps(m, y + n * ldy + r * ASH_GROUP);
    }
    ZERO_TILE(sum, R, ROWS);
    step(t, form, R, 0, 0, true, false, &s[0]);
#define ADD(b, s)                                                                                        \
    if (!spans) {                                                                                     \
        add_block(t, form, R, b, s, acc);                                                            \
    } else {                                                                                          \
        add_to_span(t, R, b, s, sum);                                                                \
        if ((b) + 1 == end) {                                                                         \
            end_span(t, R, span++, sum, acc);                                                         \
            end += t->step;                                                                           \
        }                                                                                             \
    }
    int64_t b = 0;
    for (; b + 2 < t->blocks; b += 2) {
        step(t, form, R, b + 1, 1, false, false, &s[0]);
        ADD(b, &s[0]);
        step(t, form, R, b + 2, 0, false, false, &s[1]);
        ADD(b + 1, &s[1]);
    }
    if (b + 1 < t->blocks) {
        step(t, form, R, b + 1, 1, false, false, &s[0]);
        ADD(b, &s[0]);
        step(t, form, R, b + 2, 0, false, true, &s[1]);
        ADD(b + 1, &s[1]);
    } else {
        step(t, form, R, b + 1, 1, false, true, &s[0]);
        ADD(b, &s[0]);
    }
#undef ADD
    UNROLL for (int n = 0; n < ROWS; n++) UNROLL for (int r = 0; r < R; r++)
        if (n >= skip)
            _mm512_mask_storeu_ps(y + n * ldy + r * ASH_GROUP, lanes(left - r * ASH_GROUP), acc[r][n]);
}

/* Blocks [b0, b0 + blocks) of a group to bytes: signed ones, without their zero point, where it is known. */
INLINE void unpack(const uint8_t *group, const ash_form form, int64_t b0, int64_t blocks, uint8_t (*to)[512])
{
    const __m512i low = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(form == ASH_FORM_U4Z ? 8 : 0);
    const __m512i top = _mm512_set1_epi8(form == ASH_FORM_U8Z ? -128 : 0);
    const bool bytes = form == ASH_FORM_U8Z || form == ASH_FORM_U8G;
    for (int64_t b = 0; b < blocks; b++) {
        const uint8_t *from = group + (b0 + b) * (bytes ? 512 : 256);
        for (int c = 0; c < (bytes ? 8 : 4); c++) {
            __m512i v = _mm512_loadu_si512(from + c * 64), *part = (__m512i *)(to[b] + c * 64);
            if (bytes) {
                _mm512_store_si512(part, _mm512_xor_si512(v, top));
            } else {
                __m512i high = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
                _mm512_store_si512(part, _mm512_sub_epi8(_mm512_and_si512(v, low), eight));
                _mm512_store_si512(part + 4, _mm512_sub_epi8(high, eight));
            }
        }
    }
}

/* One product, and the part of it that is being computed: rows [row, row + n), blocks [b0, b0 + blocks). */
typedef struct job {
    const ash_packed *w;
    const ash_act *a;
    work *work;
    float *y;
    int64_t ldy, row, n, b0, blocks;
} job;

/* The sums of the activations of each span, added up as matmul_group_avx512.c does. */
static void sum_spans(const job *j)
{
    const int64_t step = j->w->span / 32, lds = j->a->ld / 32;
    for (int64_t i = 0; i < j->n; i++) {
        const float *ds = j->a->ds + (j->row + i) * lds + j->b0;
        for (int64_t s = 0; s * step < j->blocks; s++) {
            float sum = 0;
            for (int64_t b = 0; b < step; b++) sum += ds[s * step + b];
            j->work->xs[i][s] = sum;
        }
    }
}

/* Groups [g, g + R) of the job's part. */
INLINE void run_groups(const job *j, const ash_form form, const int R, int64_t g)
{
    const ash_packed *w = j->w;
    const ash_act *a = j->a;
    const bool spans = form == ASH_FORM_U4G || form == ASH_FORM_U8G;
    const int64_t quants = form == ASH_FORM_U8Z || form == ASH_FORM_U8G ? 512 : 256, nb = w->cols / 32;
    const int64_t lds = a->ld / 32, tiles = (j->n + ROWS - 1) / ROWS, step = spans ? w->span / 32 : 1;
    const int64_t entry = spans ? ash_pack_gptq_entry(w) : 32;
    const uint8_t *group = w->data + g * w->group_bytes, *d = group + nb * quants;
    for (int r = 0; r < R; r++)
        unpack(group + r * w->group_bytes, form, j->b0, j->blocks, j->work->quants[r]);
    for (int64_t i = 0; i < tiles; i++) {
        /* the last tile begins where it is whole; rows of the one before are not written again */
        int64_t from = i + 1 < tiles ? i * ROWS : j->n - ROWS, row = j->row + from;
        int64_t at = row * lds + j->b0;
        tile t = {.work = j->work, .d = d + j->b0 / step * entry, .m = d + (nb + j->b0) * 32,
                  .group_bytes = w->group_bytes, .blocks = j->blocks, .ld = a->ld, .lds = lds,
                  .q = a->q + row * a->ld + j->b0 * 32, .ad = a->d + at, .ads = a->ds + at,
                  .xs = j->work->xs[from], .step = step, .wide = w->wide};
        for (int r = 0; r < R; r++)
            t.ahead[r] = fetch_share(group + (R + r) * w->group_bytes + j->b0 * quants, j->blocks * quants, i,
                                     tiles, j->blocks);
        run_tile(&t, form, R, !j->b0, (int)(i * ROWS - from), j->y + row * j->ldy + g * ASH_GROUP, j->ldy,
                 w->rows - g * ASH_GROUP);
    }
}

INLINE void run(job *j, const ash_form form, int64_t g0, int64_t g1)
{
    const bool spans = form == ASH_FORM_U4G || form == ASH_FORM_U8G;
    const int64_t step = spans ? j->w->span / 32 : 1, nb = j->a->cols / 32, n = j->a->n;
    const int64_t chunk = BLOCKS / step * step, bands = (n + BAND - 1) / BAND;
    amx_configure(&config);
    for (int64_t i = 0; i < bands; i++) { /* of even size: at least ROWS */
        j->row = n * i / bands;
        j->n = n * (i + 1) / bands - j->row;
        for (j->b0 = 0; j->b0 < nb; j->b0 += chunk) {
            j->blocks = j->b0 + chunk < nb ? chunk : nb - j->b0;
            if (spans)
                sum_spans(j);
            for (int64_t g = g0; g < g1; g += 2) {
                if (g + 1 < g1)
                    run_groups(j, form, 2, g);
                else
                    run_groups(j, form, 1, g);
            }
        }
    }
    amx_release();
}

int64_t ash_amx_scratch(void)
{
    return sizeof(work);
}

#define MATMUL(name, form)                                                                            \
    ASH_MATMUL(ash_amx_matmul_##name)                                                                 \
    {                                                                                                 \
        job j = {.w = w, .a = a, .work = scratch, .y = y, .ldy = ldy};                                \
        if (a->n < ROWS || w->span > 32 * BLOCKS)                                                     \
            ash_avx512_matmul_##name(w, a, g0, g1, y, ldy, scratch);                                  \
        else                                                                                          \
            run(&j, form, g0, g1);                                                                    \
    }
MATMUL(u4z, ASH_FORM_U4Z)
MATMUL(u4m, ASH_FORM_U4M)
MATMUL(u8z, ASH_FORM_U8Z)
MATMUL(u4g, ASH_FORM_U4G)
MATMUL(u8g, ASH_FORM_U8G)
