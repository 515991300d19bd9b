/* Owns the AMX matmul on BF16: tiles of 16 rows of activations times 16 of weights times 32 columns, as both
 * lie in memory.
 *
 * tdpbf16ps adds up the even columns of its 32 and the odd ones, each from zero, then both together, then
 * that to the sum: in another order than vdpbf16ps. So tiles multiply few rows, too, and a row's result is
 * the same in any. Two tiles by two fill the four of sums. Columns are taken in chunks so that the weights of
 * one stay in the first cache while all rows pass; in between, sums lie in y. Any thread. */
#include <string.h>

#include "kernel/x86/amx.h"
#include "kernel/x86/avx512.h"
#include "kernel/simd/fetch.h"

enum {
    ROWS = 16,  /* of a tile of activations; fewer if there are fewer in all */
    COLS = 32,  /* of a tile */
    STEPS = 16, /* tiles of a chunk */
};

/* The last columns of two groups, filled up with zeros, and sums of two tiles by two that y has no room for
 * or that must not be written again. */
typedef struct work {
    uint8_t last[2][16][64];
    float sums[2][2][ROWS][ASH_GROUP];
} work;

/* What is computed: columns of the tiles [k0, k1). */
typedef struct job {
    const ash_packed *w;
    const ash_act *a;
    work *work;
    int64_t k0, k1;
    float *y;
    int64_t ldy;
} job;

/* One product of up to two tiles of activations and two of weights. */
typedef struct tile {
    const uint8_t *w[2], *last[2]; /* last: in place of the tile k1 - 1, or NULL */
    const uint16_t *h[2];
    int64_t ld, k0, k1;
    float *sums[2][2]; /* [activations][weights] */
    int64_t sums_ld[2][2];
    fetch ahead[2]; /* of the groups after these; a step is a tile */
} tile;

/* do_(tile of sums, m, r) for all four, of which there are M by R. */
#define EACH_SUM(M, R, do_)                                                                           \
    do_(0, 0, 0);                                                                                     \
    if ((R) == 2) {                                                                                   \
        do_(1, 0, 1);                                                                                 \
    }                                                                                                 \
    if ((M) == 2) {                                                                                   \
        do_(2, 1, 0);                                                                                 \
    }                                                                                                 \
    if ((M) == 2 && (R) == 2) {                                                                       \
        do_(3, 1, 1);                                                                                 \
    }

INLINE void run_tile(tile *t, const int M, const int R)
{
#define ZERO(T, m, r) AMX_ZERO(T)
#define LOAD(T, m, r) AMX_LOAD(T, t->sums[m][r], t->sums_ld[m][r] * 4)
#define STORE(T, m, r) AMX_STORE(T, t->sums[m][r], t->sums_ld[m][r] * 4)
    if (t->k0) {
        EACH_SUM(M, R, LOAD)
    } else {
        EACH_SUM(M, R, ZERO)
    }
    for (int64_t k = t->k0; k < t->k1; k++) {
        const bool last = t->last[0] && k + 1 == t->k1;
        AMX_LOAD(6, last ? t->last[0] : t->w[0] + k * 1024, 64);
        AMX_LOAD(4, t->h[0] + k * COLS, t->ld * 2);
        AMX_DOT_BF16(0, 4, 6);
        if (R == 2) {
            AMX_LOAD(7, last ? t->last[1] : t->w[1] + k * 1024, 64);
            AMX_DOT_BF16(1, 4, 7);
        }
        if (M == 2) {
            AMX_LOAD(5, t->h[1] + k * COLS, t->ld * 2);
            AMX_DOT_BF16(2, 5, 6);
            if (R == 2)
                AMX_DOT_BF16(3, 5, 7);
        }
        UNROLL for (int r = 0; r < R; r++) fetch_more(&t->ahead[r]);
    }
    EACH_SUM(M, R, STORE)
#undef ZERO
#undef LOAD
#undef STORE
}

/* Rows [i0, i1) of 16 columns, of which `left` exist. */
static void copy_sums(const float *from, int64_t from_ld, float *to, int64_t to_ld, int64_t i0, int64_t i1,
                      int64_t left)
{
    for (int64_t i = i0; i < i1; i++)
        vf_store_part(to + i * to_ld, left, vf_load_part(from + i * from_ld, left));
}

/* M tiles of rows from tile i on, R groups from g on. */
INLINE void run_part(const job *j, const int M, const int R, int64_t i, int64_t tiles, int64_t g)
{
    const ash_packed *w = j->w;
    const int64_t n = j->a->n, rows = n < ROWS ? n : ROWS, left = w->rows - g * ASH_GROUP;
    tile t = {.ld = j->a->ld, .k0 = j->k0, .k1 = j->k1};
    int64_t skip[2];
    float *y[2];
    bool aside[2][2];
    for (int r = 0; r < R; r++) {
        const uint8_t *at = w->data + (g + r) * w->group_bytes;
        t.w[r] = at;
        t.last[r] = j->k1 * COLS > w->cols ? j->work->last[r][0] : NULL;
        t.ahead[r] = fetch_share(at + R * w->group_bytes + j->k0 * 1024, (j->k1 - j->k0) * 1024, i / 2,
                                 (tiles + 1) / 2, j->k1 - j->k0);
    }
    for (int m = 0; m < M; m++) {
        /* the last tile begins where it is whole; rows of the one before are not written again */
        int64_t row = (i + m) * ROWS + rows > n ? n - rows : (i + m) * ROWS;
        skip[m] = (i + m) * ROWS - row;
        t.h[m] = j->a->h + row * j->a->ld;
        y[m] = j->y + row * j->ldy + g * ASH_GROUP;
        for (int r = 0; r < R; r++) {
            aside[m][r] = skip[m] || left < (r + 1) * ASH_GROUP;
            t.sums[m][r] = aside[m][r] ? j->work->sums[m][r][0] : y[m] + r * ASH_GROUP;
            t.sums_ld[m][r] = aside[m][r] ? ASH_GROUP : j->ldy;
            if (aside[m][r] && j->k0)
                copy_sums(y[m] + r * ASH_GROUP, j->ldy, t.sums[m][r], ASH_GROUP, 0, rows,
                          left - r * ASH_GROUP);
        }
    }
    run_tile(&t, M, R);
    for (int m = 0; m < M; m++)
        for (int r = 0; r < R; r++)
            if (aside[m][r])
                copy_sums(t.sums[m][r], ASH_GROUP, y[m] + r * ASH_GROUP, j->ldy, skip[m], rows,
                          left - r * ASH_GROUP);
}

INLINE void run_groups(const job *j, const int R, int64_t g)
{
    const ash_packed *w = j->w;
    const int64_t tiles = (j->a->n + ROWS - 1) / ROWS, pairs = (w->cols % COLS + 1) / 2;
    for (int r = 0; r < R && j->k1 * COLS > w->cols; r++) {
        memset(j->work->last[r], 0, sizeof j->work->last[r]);
        memcpy(j->work->last[r], w->data + (g + r) * w->group_bytes + (j->k1 - 1) * 1024, (size_t)pairs * 64);
    }
    int64_t i = 0;
    for (; i + 1 < tiles; i += 2) run_part(j, 2, R, i, tiles, g);
    if (i < tiles)
        run_part(j, 1, R, i, tiles, g);
}

ASH_MATMUL(ash_amx_matmul_bf16)
{
    const int64_t steps = (w->cols + COLS - 1) / COLS, chunk = a->n > 2 * ROWS ? STEPS : steps;
    const uint8_t rows = (uint8_t)(a->n < ROWS ? a->n : ROWS);
    const amx_config config = {.palette = 1,
                               .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, /* 4 of sums, 2 of */
                               .rows = {rows, rows, rows, rows, rows, rows, 16, 16}}; /* h, 2 of w */
    _Alignas(64) work aside;
    job j = {.w = w, .a = a, .work = &aside, .y = y, .ldy = ldy};
    amx_configure(&config);
    for (; j.k0 < steps; j.k0 += chunk) {
        j.k1 = j.k0 + chunk < steps ? j.k0 + chunk : steps;
        for (int64_t g = g0; g < g1; g += 2) {
            if (g + 1 < g1)
                run_groups(&j, 2, g);
            else
                run_groups(&j, 1, g);
        }
    }
    amx_release();
}
