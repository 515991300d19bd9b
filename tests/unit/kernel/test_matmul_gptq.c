/* GPTQ's packed forms: rows come back bit for bit whatever the order of the inputs, every table packs the
 * same bytes, and every table's product keeps to the bound of int8 activations and to the same bits in
 * any batch. */
#include "amx_emulator.h"
#include "gptq_fixture.h"

#include "kernel/kernel.h"
#include "kernel/pack_gptq.h"

typedef struct packed {
    ash_packed w;
    int32_t *order; /* or NULL */
} packed;

static void open_packed(packed *p, const gptq_fixture *f)
{
    bool ordered;
    assert_int_equal(ash_pack_gptq_plan(&p->w, &f->q, &ordered, NULL), 0);
    p->order = NULL;
    if (ordered) {
        int32_t *work = must_alloc((size_t)f->q.groups * 4);
        p->order = must_alloc((size_t)p->w.cols * 4);
        ash_pack_gptq_order(&p->w, &f->q, p->order, work);
        free(work);
    }
    size_t bytes = (size_t)(p->w.groups * p->w.group_bytes);
    p->w.data = memset(must_alloc(bytes), 0xaa, bytes);
    ash_pack_gptq_rows(&p->w, &f->q, p->order, 0, f->q.out);
}

static void close_packed(packed *p)
{
    free(p->order);
    free(p->w.data);
}

static void check_rows(const gptq_fixture *f, const packed *p)
{
    float *y = must_alloc((size_t)p->w.cols * 4), *back = must_alloc((size_t)f->q.in * 4);
    for (int64_t row = 0; row < f->q.out; row++) {
        ash_pack_row_decode(&p->w, row, y);
        memset(back, 0x7f, (size_t)f->q.in * 4);
        for (int64_t c = 0; c < p->w.cols; c++)
            if (!p->order)
                back[c] = y[c];
            else if (p->order[c] >= 0)
                back[p->order[c]] = y[c];
        assert_memory_equal(back, f->dense + row * f->q.in, (size_t)f->q.in * 4);
    }
    free(y);
    free(back);
}

static float *gather(const gptq_fixture *f, const packed *p, const float *x, int n)
{
    float *to = must_alloc((size_t)(n * p->w.cols) * 4);
    for (int i = 0; i < n; i++)
        for (int64_t c = 0; c < p->w.cols; c++) {
            int64_t from = p->order ? p->order[c] : c;
            to[i * p->w.cols + c] = from < 0 ? 0 : x[i * f->q.in + from];
        }
    return to;
}

static ash_act open_act(const ash_kernel *k, const float *x, int64_t n, int64_t cols)
{
    int64_t ld = (cols + 63) / 64 * 64, nb = ld / 32;
    ash_act a = {.n = n, .cols = cols, .ldx = cols, .ld = ld, .x = x, .q = must_alloc((size_t)(n * ld)),
                 .d = must_alloc((size_t)(n * nb * 4)), .ds = must_alloc((size_t)(n * nb * 4)),
                 .ns = must_alloc((size_t)(n * nb * 4))};
    for (int64_t i = 0; i < n; i++)
        k->quantise(x + i * cols, cols, a.q + i * ld, a.d + i * nb, a.ds + i * nb, a.ns + i * nb);
    return a;
}

static void close_act(ash_act *a)
{
    free(a->q);
    free(a->d);
    free(a->ds);
    free(a->ns);
}

/* Half a step of the activations' blocks per element of the weights, where they are rounded at all, and
 * the float rounding of a chain of `cols` operations on terms that reach 2^bits scales. */
static void check_product(const ash_kernel *k, const gptq_fixture *f, const packed *p, const ash_act *a,
                          const float *y, int64_t ldy)
{
    float *row = must_alloc((size_t)p->w.cols * 4);
    for (int64_t r = 0; r < f->q.out; r++) {
        ash_pack_row_decode(&p->w, r, row);
        for (int64_t i = 0; i < a->n; i++) {
            double want = 0, noise = 0, size = 0;
            for (int64_t c = 0; c < p->w.cols; c++) {
                double w = (double)row[c], x = (double)a->x[i * a->ldx + c], scale = 1e-30;
                uint8_t zero;
                float s;
                int64_t in = p->order ? p->order[c] : c;
                if (in >= 0) {
                    ash_gptq_zeros(&f->q, ash_gptq_group(&f->q, in), r, 1, &zero);
                    ash_gptq_scales(&f->q, ash_gptq_group(&f->q, in), r, 1, &s);
                    scale = fabs((double)s);
                }
                want += w * x;
                size += (double)(1 << f->q.bits) * scale * fabs(x);
                float step = a->d[i * a->ld / 32 + c / 32];
                if (k->act[p->w.form] == ASH_ACT_I8 && step != 1) /* else exact */
                    noise += fabs(w) * 0.5001 * (double)step;
            }
            double got = (double)y[i * ldy + r];
            double bound = noise + 0x1p-23 * (double)(p->w.cols + 8) * size + 1e-35;
            if (!(fabs(got - want) <= bound))
                fail_msg("%s %d bits [%d, %d], batch %d: y[%d, %d] = %g, expected %g +- %g", k->name,
                         f->q.bits, (int)f->q.out, (int)f->q.in, (int)a->n, (int)i, (int)r, got, want,
                         bound);
        }
    }
    free(row);
}

static void check_kernel(const ash_kernel *k, const gptq_fixture *f, const packed *p, const float *x, int n)
{
    int64_t ldy = f->q.out + 3, cols = p->w.cols;
    size_t size = (size_t)(n * ldy) * 4;
    float *ordered = gather(f, p, x, n), *y = must_alloc(size), *z = must_alloc(size);
    void *scratch = must_alloc((size_t)ash_kernel_scratch(k, cols));
    memset(y, 0x7f, size);
    memset(z, 0x7f, size);
    ash_act a = open_act(k, ordered, n, cols);
    k->matmul[p->w.form](&p->w, &a, 0, p->w.groups, y, ldy, scratch);
    check_product(k, f, p, &a, y, ldy);
    close_act(&a);
    for (int i = 0; i < n; i++) {
        a = open_act(k, ordered + i * cols, 1, cols);
        for (int64_t g = 0; g < p->w.groups; g++)
            k->matmul[p->w.form](&p->w, &a, g, g + 1, z + i * ldy, ldy, scratch);
        close_act(&a);
    }
    assert_memory_equal(y, z, size);
    free(scratch);
    free(ordered);
    free(y);
    free(z);
}

static void run_case(int bits, gptq_order order, ash_dtype type, int64_t out, int64_t in, int64_t groups,
                     int n)
{
    ash_rng rng;
    ash_rng_init(&rng, (uint64_t)(bits * 1000 + (int)order * 100 + n));
    gptq_fixture f;
    packed p;
    gptq_open(&f, &rng, bits, n % 2, false, order, type, out, in, groups, 1);
    open_packed(&p, &f);
    check_rows(&f, &p);
    float *x = rand_vector(&rng, n * in, 127); /* in odd rows integers up to 127, which int8 has exactly */
    for (int64_t i = 0; i < n * in; i++)
        if (i / in % 2)
            x[i] = i % 3 ? copysignf(127, x[i]) : rintf(x[i]);
    const ash_kernel *k;
    for (int v = 0; (k = amx_test_variant(v)); v++) check_kernel(k, &f, &p, x, n);
    free(x);
    close_packed(&p);
    gptq_close(&f);
}

static const int all_bits[] = {2, 3, 4, 8};

static void test_orders(void **state)
{
    static const ash_dtype types[] = {ASH_DTYPE_F16, ASH_DTYPE_F32, ASH_DTYPE_BF16};
    for (int b = 0; b < 4; b++)
        for (int order = GPTQ_PLAIN; order <= GPTQ_ODD; order++)
            for (int t = 0; t < 3; t++) {
                run_case(all_bits[b], (gptq_order)order, types[t], 64, 384, 3, 1 + t); /* of 128 */
                run_case(all_bits[b], (gptq_order)order, types[t], 32, 192, 8, 2);     /* of 24 */
            }
}

static void test_sizes(void **state)
{
    static const int64_t groups[] = {1, 2, 5, 10, 20, 320}; /* of 320 down to 1 */
    for (int b = 0; b < 4; b++)
        for (int g = 0; g < 6; g++) run_case(all_bits[b], GPTQ_SORTED, ASH_DTYPE_F16, 32, 320, groups[g], 3);
}

static void test_batches(void **state)
{
    for (int n = 1; n <= 26; n++)
        for (int b = 2; b < 4; b++) run_case(all_bits[b], GPTQ_SORTED, ASH_DTYPE_F16, 32, 128, 2, n);
}

/* The bytes are the same by every table, and by pieces in any order. */
static void test_packing(void **state)
{
    for (int b = 0; b < 4; b++) {
        ash_rng rng;
        ash_rng_init(&rng, (uint64_t)b);
        gptq_fixture f;
        packed p;
        gptq_open(&f, &rng, all_bits[b], false, false, GPTQ_ODD, ASH_DTYPE_F16, 192, 416, 8, 1);
        open_packed(&p, &f);
        size_t bytes = (size_t)(p.w.groups * p.w.group_bytes);
        ash_packed w = p.w;
        w.data = memset(must_alloc(bytes), 0xaa, bytes);
        for (int64_t row = 176; row >= 0; row -= 16) ash_pack_gptq_rows(&w, &f.q, p.order, row, 16);
        assert_memory_equal(w.data, p.w.data, bytes);
        free(w.data);
        close_packed(&p);
        gptq_close(&f);
    }
    const ash_kernel *k;
    static _Alignas(64) uint8_t in[20 * 64], want[4 * 3 * 64], got[4 * 3 * 64];
    ash_bits bits[48];
    ash_rng rng;
    ash_rng_init(&rng, 3);
    for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)ash_rng_u64(&rng);
    for (int i = 0; i < 48; i++)
        bits[i] = (ash_bits){in + ash_rng_u64(&rng) % (16 * 64), (uint32_t)ash_rng_u64(&rng) % 32,
                             (uint32_t)ash_rng_u64(&rng)};
    for (int per_word = 4; per_word <= 16; per_word *= 2)
        for (int v = 0; (k = amx_test_variant(v)); v++) {
            memset(got, 0x55, sizeof got);
            k->pack_bits(bits, 3, per_word, 4, got, 192);
            if (v)
                assert_memory_equal(got, want, sizeof got);
            memcpy(want, got, sizeof got);
        }
}

/* 128 a group is no more than 4.2 bits a weight. Sizes that cannot be are refused. */
static void test_plan(void **state)
{
    ash_gptq q = {.bits = 4, .in = 4096, .out = 4096, .groups = 32, .scale_type = ASH_DTYPE_F16};
    ash_packed w;
    bool ordered;
    assert_int_equal(ash_pack_gptq_plan(&w, &q, &ordered, NULL), 0);
    assert_false(ordered);
    assert_int_equal(w.span, 128);
    assert_true((double)(w.groups * w.group_bytes) * 8 <= 4.2 * 4096 * 4096);
    ash_gptq bad[] = {q, q, q, q, q, q, q};
    bad[0].in = 4095;
    bad[1].out = 0;
    bad[2].groups = 0;
    bad[3].groups = 3;
    bad[4].in = INT64_MAX / 32 * 32;
    bad[5].groups = -1;
    bad[6].out = 4112;
    for (int i = 0; i < 7; i++) {
        ash_err err = ASH_ERR_INIT;
        assert_int_equal(ash_pack_gptq_plan(&w, &bad[i], &ordered, &err), ASH_EINVAL);
        assert_non_null(strstr(err.msg, "out of range"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan),  cmocka_unit_test(test_packing), cmocka_unit_test(test_orders),
        cmocka_unit_test(test_sizes), cmocka_unit_test(test_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
