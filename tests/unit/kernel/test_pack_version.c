/* The bytes that packing gives, of every form, as one number for each version of packing: packed weights are
 * kept on disk, and must not be believed once a build packs otherwise. */
#include "kernel_test.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "kernel/pack_fp8.h"
#include "kernel/pack_gptq.h"

enum { ROWS = 40, COLS = 512 };

/* When this fails because packing has changed on purpose: raise ASH_PACK_VERSION and write both here. */
static const struct {
    int version;
    uint64_t bytes;
} expected = {1, 0xf9e0bfdf5be83726};

static uint64_t mix(uint64_t sum, const void *p, size_t n)
{
    const uint64_t key[2] = {sum, 0x7061636b};
    return ash_hash_bytes(p, n, key);
}

static void *noise(size_t n, uint64_t seed)
{
    uint8_t *p = malloc(n);
    ash_rng r;
    assert_non_null(p);
    ash_rng_init(&r, seed);
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)(ash_rng_u64(&r) >> 24);
    return p;
}

static size_t take(ash_packed *w)
{
    size_t n = (size_t)(w->groups * w->group_bytes);
    w->data = aligned_alloc(64, (n + 63) / 64 * 64);
    assert_non_null(w->data);
    memset(w->data, 0, n);
    return n;
}

static uint64_t sum_rows(uint64_t sum)
{
    for (uint32_t id = 0; id < ASH_DTYPE_END; id++) {
        ash_packed w;
        const ash_dtype_info *info = ash_dtype_get(id);
        if (!info->block || !ash_pack_plan(&w, (ash_dtype)id, ROWS, COLS)) continue;
        size_t n = take(&w);
        void *src = noise((size_t)ROWS * COLS / info->block * info->block_bytes, id);
        ash_pack_rows(&w, src, 0, ROWS);
        sum = mix(sum + (uint64_t)w.form, w.data, n);
        free(src);
        free(w.data);
    }
    return sum;
}

static uint64_t sum_gptq(uint64_t sum)
{
    static const int bits[] = {2, 3, 4, 8};
    int32_t group_of[COLS];
    for (int i = 0; i < COLS; i++) group_of[i] = i * 7 % 4;
    for (int k = 0; k < 8; k++) {
        ash_gptq q = {.bits = bits[k / 2], .v2 = k & 1, .in = COLS, .out = 64, .groups = 4,
                      .scale_type = k & 2 ? ASH_DTYPE_F32 : ASH_DTYPE_F16,
                      .group_of = k & 1 ? group_of : NULL};
        void *weights = noise((size_t)(COLS * 64 * q.bits / 8), 100);
        void *zeros = noise((size_t)(4 * 64 * q.bits / 8), 101), *scales = noise(4 * 64 * 4, 102);
        q.qweight = weights;
        q.qzeros = zeros;
        q.scales = scales;
        ash_packed w;
        bool ordered;
        int32_t work[4] = {0}, *order = NULL;
        assert_int_equal(ash_pack_gptq_plan(&w, &q, &ordered, NULL), 0);
        size_t n = take(&w);
        if (ordered) {
            order = malloc((size_t)w.cols * sizeof *order);
            ash_pack_gptq_order(&w, &q, order, work);
            sum = mix(sum, order, (size_t)w.cols * sizeof *order);
        }
        ash_pack_gptq_rows(&w, &q, order, 0, 64);
        sum = mix(sum + (uint64_t)w.form, w.data, n);
        free(order);
        free(weights);
        free(zeros);
        free(scales);
        free(w.data);
    }
    return sum;
}

static uint64_t sum_fp8(uint64_t sum)
{
    static const int blocks[] = {8, 128};
    float scales[5 * 4];
    for (int i = 0; i < 20; i++) scales[i] = (float)(i + 1) * 0.01f;
    void *src = noise(ROWS * COLS, 103);
    for (int k = 0; k < 2; k++) {
        ash_packed w;
        assert_true(ash_pack_fp8_plan(&w, ROWS, COLS, blocks[k], 128));
        size_t n = take(&w);
        ash_pack_fp8_rows(&w, blocks[k], src, scales, 0, ROWS);
        sum = mix(sum + (uint64_t)w.form, w.data, n);
        free(w.data);
    }
    free(src);
    return sum;
}

static void packing_gives_the_bytes_of_its_version(void **state)
{
    (void)state;
    assert_int_equal(ASH_PACK_VERSION, expected.version);
    uint64_t sum = sum_fp8(sum_gptq(sum_rows(1)));
    assert_int_equal(sum, expected.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(packing_gives_the_bytes_of_its_version)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
