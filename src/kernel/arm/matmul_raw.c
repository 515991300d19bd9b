/* Owns the Arm matmul on the RAW form; compiled for each ISA. 256 columns of a group are unpacked and
 * multiplied with every row of activations before the next 256; the sums go through y in between, in the same
 * order for every tile. Any thread. */
#include "kernel/arm/dot.h"

typedef uint32x4_t vi;

INLINE vi of_bytes(uint8x16_t v) { return vreinterpretq_u32_u8(v); }
INLINE uint8x16_t bytes_of(vi v) { return vreinterpretq_u8_u32(v); }
INLINE vi vi_load(const void *p) { return of_bytes(vld1q_u8(p)); }
INLINE void vi_store(void *p, vi v) { vst1q_u8(p, bytes_of(v)); }
INLINE vi vi_and(vi a, vi b) { return vandq_u32(a, b); }
INLINE vi vi_andnot(vi a, vi b) { return vbicq_u32(b, a); } /* ~a & b */
INLINE vi vi_or(vi a, vi b) { return vorrq_u32(a, b); }
INLINE vi vi_xor(vi a, vi b) { return veorq_u32(a, b); }
INLINE vi vi_srl(vi a, int n) { return a >> (uint32_t)n; }
INLINE vi vi_sra(vi a, int n) { return (vi)((int32x4_t)a >> n); }
INLINE vi vi_sll(vi a, int n) { return a << (uint32_t)n; }
INLINE vi vi_srl_by(vi a, int n) { return vi_srl(a, n); }
INLINE vi vi_set8(int x) { return of_bytes(vdupq_n_u8((uint8_t)x)); }
INLINE vi vi_set32(int x) { return vdupq_n_u32((uint32_t)x); }
INLINE vi vi_add8(vi a, vi b) { return of_bytes(vaddq_u8(bytes_of(a), bytes_of(b))); }
INLINE vi vi_sub8(vi a, vi b) { return of_bytes(vsubq_u8(bytes_of(a), bytes_of(b))); }
INLINE vi vi_add32(vi a, vi b) { return vaddq_u32(a, b); }
INLINE vi vi_sub32(vi a, vi b) { return vsubq_u32(a, b); }
INLINE vf vi_to_f(vi a) { return vcvtq_f32_s32(vreinterpretq_s32_u32(a)); }
INLINE vf vi_as_f(vi a) { return vreinterpretq_f32_u32(a); }
INLINE vi vi_lookup(vi table, vi index) { return of_bytes(vqtbl1q_u8(bytes_of(table), bytes_of(index))); }
INLINE vi vi_table(const int8_t p[16]) { return vi_load(p); }

INLINE vi vi_bytes(const uint8_t *p) /* one to a word */
{
    return (vi){p[0], p[1], p[2], p[3]};
}

/* The half floats in the lower halves of words. */
INLINE vf vi_low_halves(vi a)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(a)));
}

/* Byte k of each word in all four. */
INLINE vi vi_spread(vi a, int k)
{
    const uint8x16_t base = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    return of_bytes(vqtbl1q_u8(bytes_of(a), vaddq_u8(base, vdupq_n_u8((uint8_t)k))));
}

/* All ones in bytes that have the bit that `mask` has there. */
INLINE vi vi_bits(vi a, int mask)
{
    return of_bytes(vtstq_u8(bytes_of(a), bytes_of(vi_set32(mask))));
}

/* x where a word of a equals n, else y. */
INLINE vi vi_where_equal(vi a, int n, vi x, vi y)
{
    return vbslq_u32(vceqq_u32(a, vi_set32(n)), x, y);
}

/* Words at base + index * size bytes. */
INLINE vi vi_gather(const void *base, vi index, int size)
{
    uint32_t at[LANES], v[LANES];
    vst1q_u32(at, index);
    UNROLL for (int i = 0; i < LANES; i++) memcpy(&v[i], (const uint8_t *)base + at[i] * (uint32_t)size, 4);
    return vld1q_u32(v);
}

#include "kernel/simd/raw.inc.h"

/* What N rows of activations times a tile read; columns from the tile's first on. */
typedef struct step {
    const raw_tile *tile;
    int blocks;
    int64_t ld, lds;
    const int8_t *q;
    const float *d, *ds;
    const int32_t *ns;
    int zero;
    bool first; /* y holds nothing yet */
} step;

/* What a type's multiplication depends on; constants of each of its copies. */
typedef struct shape {
    quants kind;
    bool halves, mins;
} shape;

/* Minus the sums of 16 columns each of a tile. */
INLINE void half_sums(const step *s, const int N, int32_t sums[TILE_ROWS][TILE_COLS / 16])
{
    UNROLL for (int n = 0; n < N; n++)
        for (int k = 0; k < 2 * s->blocks; k++) sums[n][k] = -vaddlvq_s8(vld1q_s8(s->q + n * s->ld + k * 16));
}

/* acc += what scale k of block b is for: half a block or a whole one. */
INLINE void add_scale(const step *s, int b, int k, const shape o, const int N,
                      int32_t half[TILE_ROWS][TILE_COLS / 16], vf acc[QUARTERS][TILE_ROWS])
{
    int p = o.halves ? 4 * k : 8 * k;
    int32_t start[TILE_ROWS] = {0};
    UNROLL for (int n = 0; n < N; n++)
        if (!o.mins && o.kind == QUANTS_SMALL)
            start[n] = (o.halves ? half[n][k] : s->ns[n * s->lds + b]) * s->zero;
    UNROLL for (int h = 0; h < QUARTERS; h++)
    {
        int32x4_t sums[TILE_ROWS];
        dot(s->tile->q[p], o.kind, o.halves ? 4 : 8, h, s->q + p * 4, s->ld, N, start, sums);
        vf scale = vf_load(&s->tile->scale[k][h * LANES]);
        vf min = o.mins ? vf_load(&s->tile->min[k][h * LANES]) : vf_zero();
        UNROLL for (int n = 0; n < N; n++)
        {
            float d = s->d[n * s->lds + b];
            acc[h][n] = vf_fma(vf_mul(vcvtq_f32_s32(sums[n]), scale), vf_set(d), acc[h][n]);
            if (o.mins) {
                float sum = o.halves ? -d * (float)half[n][k] : s->ds[n * s->lds + b];
                acc[h][n] = vfmsq_f32(acc[h][n], min, vf_set(sum));
            }
        }
    }
}

INLINE void run_tile(const step *s, fetch *ahead, const shape o, const int N, float *y, int64_t ldy,
                     int64_t left)
{
    vf acc[QUARTERS][TILE_ROWS];
    int32_t half[TILE_ROWS][TILE_COLS / 16];
    UNROLL for (int n = 0; n < N; n++) UNROLL for (int h = 0; h < QUARTERS; h++)
        acc[h][n] = s->first ? vf_zero() : vf_load_part(y + n * ldy + h * LANES, left - h * LANES);
    if (o.halves)
        half_sums(s, N, half);
    for (int b = 0; b < s->blocks; b++) {
        fetch_more(ahead);
        add_scale(s, b, o.halves ? 2 * b : b, o, N, half, acc);
        if (o.halves)
            add_scale(s, b, 2 * b + 1, o, N, half, acc);
    }
    STORE_TILE(acc, N, y, ldy, left)
}

/* A function for each kind of type and rows of activations. */
typedef void (*tile_fn)(const step *s, fetch *ahead, float *y, int64_t ldy, int64_t left);

#define TILE(K, H, M, N)                                                                              \
    static void tile_##K##_##H##M##_##N(const step *s, fetch *ahead, float *y, int64_t ldy, int64_t left) \
    {                                                                                                 \
        run_tile(s, ahead, (shape){QUANTS_##K, H, M}, N, y, ldy, left);                               \
    }
#define TILES(K, H, M)                                                                                \
    TILE(K, H, M, 1)                                                                                  \
    TILE(K, H, M, 2)                                                                                  \
    TILE(K, H, M, 3)                                                                                  \
    TILE(K, H, M, 4)                                                                                  \
    static const tile_fn fns_##K##_##H##M[TILE_ROWS] = {tile_##K##_##H##M##_1, tile_##K##_##H##M##_2, \
                                                        tile_##K##_##H##M##_3, tile_##K##_##H##M##_4};
TILES(SMALL, 0, 0)
TILES(SMALL, 0, 1)
TILES(SMALL, 1, 0)
TILES(SMALL, 1, 1)
TILES(SIGNED, 0, 0)
TILES(SIGNED, 1, 0)

static const tile_fn *fns_of(const raw_type *t)
{
    if (t->size == RAW_255)
        return t->halves ? fns_SIGNED_10 : fns_SIGNED_00;
    if (t->halves)
        return t->mins ? fns_SMALL_11 : fns_SMALL_10;
    return t->mins ? fns_SMALL_01 : fns_SMALL_00;
}

ASH_MATMUL(NAME(matmul_raw))
{
    raw_tile tile;
    raw_matrix m = raw_matrix_of(w);
    const tile_fn *fns = fns_of(m.type);
    int64_t row_tiles = (a->n + TILE_ROWS - 1) / TILE_ROWS, lds = a->ld / 32, nb = a->cols / 32;
    for (int64_t g = g0; g < g1; g++) {
        int64_t left = w->rows - g * ASH_GROUP;
        for (int64_t t = 0; t < m.tiles; t++) {
            int64_t b0 = t * TILE_BLOCKS;
            int blocks = (int)(nb - b0 < TILE_BLOCKS ? nb - b0 : TILE_BLOCKS);
            fetch ahead = fetch_tiles(w, g, 1, t, m.tiles, row_tiles);
            unpack_tile(&m, g, 1, t, &tile, &ahead);
            for (int64_t i = 0; i < row_tiles; i++) {
                int64_t row = a->n * i / row_tiles, n = a->n * (i + 1) / row_tiles - row;
                int64_t at = row * lds + b0;
                step s = {&tile,     blocks,     a->ld,      lds,          a->q + row * a->ld + b0 * 32,
                          a->d + at, a->ds + at, a->ns + at, m.type->zero, t == 0};
                fns[n - 1](&s, &ahead, y + row * ldy + g * ASH_GROUP, ldy, left);
            }
        }
    }
}
