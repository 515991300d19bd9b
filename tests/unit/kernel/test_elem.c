/* Every table's vector functions against the plain definition in double precision, at all sizes around
 * the register width and at values that hurt. */
#include "kernel_test.h"

#include "kernel/kernel.h"

enum { MOST = 100 };

/* |got - want| within `ulps` float roundings of `size`. */
static void near(const char *what, const ash_kernel *k, int n, int i, float got, double want, double size,
                 double ulps)
{
    if (isnan(want) ? isnan(got) : (double)got == want)
        return;
    if (!(fabs((double)got - want) <= ulps * 0x1p-24 * size + 1e-44))
        fail_msg("%s %s n %d: [%d] = %.9g, expected %.9g", k->name, what, n, i, (double)got, want);
}

static void check_add(const ash_kernel *k, ash_rng *r, int n)
{
    float x[MOST + 1], d[MOST], y[MOST + 1];
    for (int i = 0; i < n; i++) {
        y[i] = x[i] = rand_f32(r);
        d[i] = rand_f32(r);
    }
    y[n] = x[n] = 42;
    k->add(y, d, n);
    for (int i = 0; i < n; i++) assert_true(y[i] == x[i] + d[i]);
    assert_true(y[n] == 42);
}

static void check_norm(const ash_kernel *k, ash_rng *r, int n)
{
    float x[MOST + 1], w[MOST], y[MOST + 1];
    double sum = 0;
    for (int i = 0; i < n; i++) {
        x[i] = rand_f32(r) * 100;
        w[i] = rand_f32(r);
        sum += (double)x[i] * (double)x[i];
    }
    y[n] = 42;
    k->rms_norm(y, x, w, n, 1e-5f);
    for (int i = 0; i < n; i++) {
        double want = (double)x[i] / sqrt(sum / n + (double)1e-5f) * (double)w[i];
        near("rms_norm", k, n, i, y[i], want, fabs(want), 8 + n / 2.0);
    }
    assert_true(y[n] == 42);
    k->rms_norm(x, x, w, n, 1e-5f); /* in place */
    assert_memory_equal(x, y, (size_t)n * sizeof *x);
}

static void check_silu(const ash_kernel *k, ash_rng *r, int n)
{
    static const float special[] = {0,    -0.0f, 88,  -88,   100,       -100, 1e30f, -1e30f,
                                    1e-30f, -104,  -87, 88.8f, INFINITY, NAN,  -90,   -103};
    float g[MOST + 1], u[MOST], y[MOST + 1];
    for (int i = 0; i < n; i++) {
        g[i] = i < 16 && n > 50 ? special[i] : rand_f32(r) * 30;
        u[i] = rand_f32(r);
        y[i] = g[i];
    }
    y[n] = 42;
    k->silu_mul(y, u, n);
    for (int i = 0; i < n; i++) {
        double x = (double)g[i], want = x / (1 + exp(-x)) * (double)u[i];
        /* exp(-g) beyond float range makes 0 of what is below 1e-36 anyway */
        if (x < -87 && isfinite(x))
            assert_true(fabs((double)y[i]) <= fabs(want) * 2 + 1e-35);
        else
            near("silu_mul", k, n, i, y[i], want, fabs(want), 8 + fabs(x) / 8);
    }
    assert_true(y[n] == 42);
}

static void check_rope(const ash_kernel *k, ash_rng *r, int n)
{
    float x[2 * MOST + 1], c[MOST], s[MOST], y[2 * MOST + 1];
    for (int i = 0; i < n; i++) {
        double a = ash_rng_f64(r) * 6;
        c[i] = (float)cos(a);
        s[i] = (float)sin(a);
        x[2 * i] = rand_f32(r);
        x[2 * i + 1] = rand_f32(r);
    }
    x[2 * n] = 42;
    for (int halves = 0; halves < 2; halves++) {
        memcpy(y, x, sizeof x);
        (halves ? k->rope_halves : k->rope_adjacent)(y, c, s, n);
        for (int i = 0; i < n; i++) {
            int a = halves ? i : 2 * i, b = halves ? n + i : 2 * i + 1;
            double xa = (double)x[a], xb = (double)x[b], ci = (double)c[i], si = (double)s[i];
            near("rope", k, n, a, y[a], xa * ci - xb * si, fabs(xa * ci) + fabs(xb * si), 2);
            near("rope", k, n, b, y[b], xa * si + xb * ci, fabs(xa * si) + fabs(xb * ci), 2);
        }
        assert_true(y[2 * n] == 42);
    }
}

static void check_halves(const ash_kernel *k, ash_rng *r, int n)
{
    static const float special[] = {0, -0.0f, 65504, 65519, 65520, 1e9f, -1e9f, 6e-8f, 2.9e-8f, 3.1e-8f,
                                    INFINITY, -INFINITY, 5.96e-8f, 6.1e-5f, 1e-40f, 1.0009765f};
    float x[MOST];
    uint16_t h[MOST + 32], b[MOST + 64];
    for (int i = 0; i < n; i++) x[i] = i < 16 && n > 50 ? special[i] : rand_f32(r) * 1e3f;
    h[n] = 42;
    k->to_f16(x, n, h);
    k->to_bf16(x, n, b);
    for (int i = 0; i < n; i++) {
        assert_int_equal(h[i], ash_f16_from_f32(x[i]));
        if (fabsf(x[i]) > 1e-37f || x[i] == 0) /* vcvtneps2bf16 takes subnormals for 0 */
            assert_int_equal(b[i], ash_bf16_from_f32(x[i]));
    }
    assert_int_equal(h[n], 42);
    for (int i = n; i % 32; i++) assert_int_equal(b[i], 0);
}

static void check_quantise(const ash_kernel *k, ash_rng *r, int n)
{
    float x[MOST + 32], d[4], ds[4];
    int8_t q[MOST + 32];
    int32_t ns[4];
    n = n / 32 * 32;
    for (int i = 0; i < n; i++) x[i] = rand_f32(r) * (i < 32 ? 1e-30f : i < 64 ? 1e30f : 1);
    k->quantise(x, n, q, d, ds, ns);
    for (int b = 0; b < n / 32; b++) {
        int sum = 0, top = 0;
        for (int i = b * 32; i < b * 32 + 32; i++) {
            double step = (double)d[b];
            assert_true(fabs((double)q[i] * step - (double)x[i]) <= 0.5001 * step);
            sum += q[i];
            top = abs(q[i]) > top ? abs(q[i]) : top;
        }
        assert_int_equal(top, 127); /* the whole range is used */
        assert_int_equal(ns[b], -sum);
        assert_true(fabs((double)ds[b] - (double)d[b] * sum) <= 1e-6 * fabs((double)ds[b]));
    }
}

static void test_all(void **state)
{
    const ash_kernel *k;
    for (int v = 0; (k = ash_kernel_variant(v)); v++) {
        ash_rng r;
        ash_rng_init(&r, 5);
        for (int n = 1; n <= MOST; n++) {
            check_add(k, &r, n);
            check_norm(k, &r, n);
            check_silu(k, &r, n);
            check_rope(k, &r, n);
            check_halves(k, &r, n);
            check_quantise(k, &r, n);
        }
    }
}

/* No table lacks anything, and the levels are those of the tables. */
static void test_tables(void **state)
{
    const ash_kernel *k;
    int v = 0;
    for (; (k = ash_kernel_variant(v)); v++) {
        for (int f = 0; f < ASH_FORM_COUNT; f++) {
            assert_non_null(k->matmul[f]);
            assert_true((k->act[f] == ASH_ACT_BF16) == (k->fine[f] != NULL));
        }
        assert_true(k->quantise && k->to_bf16 && k->to_f16 && k->pack_bits);
        assert_true(k->rms_norm && k->add && k->silu_mul && k->rope_adjacent && k->rope_halves);
        assert_true(k->span && k->merge);
        assert_true(k->level <= ash_cpu_get()->level);
        assert_int_equal(ash_kernel_get(k->level)->level, k->level);
    }
    assert_true(v > (int)ash_cpu_get()->level);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all), cmocka_unit_test(test_tables)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
