/* The sampler against plain definitions: greedy, each truncation, penalties, log-probabilities, seeds. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "text/sampler.h"

static ash_sampler_params plain(void)
{
    ash_sampler_params p = ash_sampler_params_default();
    p.top_k = 0;
    p.min_p = 0;
    p.seed = 1;
    return p;
}

static ash_sampler *open_with(const ash_sampler_params *p, int64_t n)
{
    ash_sampler *s;
    ash_err err;
    assert_int_equal(ash_sampler_open(p, n, n, &s, &err), 0);
    return s;
}

static int32_t once(ash_sampler *s, const float *logits, size_t n, ash_sample *out)
{
    float copy[4096];
    memcpy(copy, logits, n * sizeof *copy);
    ash_err err;
    assert_int_equal(ash_sampler_sample(s, copy, out, &err), 0);
    return out->id;
}

/* Which ids of n come up in 2,000 draws, as a bit mask. */
static uint64_t support(const ash_sampler_params *p, const float *logits, size_t n)
{
    ash_sampler *s = open_with(p, (int64_t)n);
    ash_sample out;
    uint64_t seen = 0;
    for (int i = 0; i < 2000; i++) seen |= 1ull << once(s, logits, n, &out);
    ash_sampler_close(s);
    return seen;
}

static void test_greedy(void **state)
{
    ash_sampler_params p = plain();
    p.temperature = 0;
    ash_sampler *s = open_with(&p, 5);
    ash_sample out;
    assert_int_equal(once(s, (float[]){1, 3, 2, 3, 3}, 5, &out), 1); /* lowest id of a tie */
    assert_int_equal(once(s, (float[]){3, 3, 1, 0, 0}, 5, &out), 0);
    assert_int_equal(once(s, (float[]){-INFINITY, -5, -6, -7, -8}, 5, &out), 1);
    ash_sampler_close(s);
}

static void test_usable(void **state)
{
    ash_sampler_params p = plain();
    ash_sampler *s;
    ash_err err;
    ash_sample out;
    assert_int_equal(ash_sampler_open(&p, 4, 2, &s, &err), 0);
    for (int i = 0; i < 200; i++) {
        float l[4] = {0, 0, 50, NAN}; /* padding may hold anything */
        assert_int_equal(ash_sampler_sample(s, l, &out, &err), 0);
        assert_true(out.id < 2);
    }
    ash_sampler_close(s);
    assert_int_equal(ash_sampler_open(&p, 4, 5, &s, &err), ASH_EINVAL);
    assert_int_equal(ash_sampler_open(&p, 4, 0, &s, &err), ASH_EINVAL);
}

static void test_truncations(void **state)
{
    /* probabilities 0.4 0.3 0.2 0.1, shuffled */
    const float l[4] = {logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f)};
    ash_sampler_params p = plain();
    assert_int_equal(support(&p, l, 4), 15);
    p.top_k = 2;
    assert_int_equal(support(&p, l, 4), 1 << 1 | 1 << 3);
    assert_int_equal(support(&p, (float[]){0, 0, 0, 0}, 4), 3); /* ties stay with lower ids */
    p.min_p = 0.9;
    assert_int_equal(support(&p, l, 4), 1 << 1);
    p.min_p = 0;
    p.top_k = 3;
    p.top_p = 0.5; /* of 0.9: 0.44 < 0.5 <= 0.77 */
    assert_int_equal(support(&p, l, 4), 1 << 1 | 1 << 3);
    p = plain();
    p.top_p = 0.39;
    assert_int_equal(support(&p, l, 4), 1 << 1);
    p.top_p = 0.75;
    assert_int_equal(support(&p, l, 4), 1 << 1 | 1 << 3 | 1 << 0);
    p = plain();
    p.min_p = 0.6; /* 0.24 and more */
    assert_int_equal(support(&p, l, 4), 1 << 1 | 1 << 3);
    p.min_p = 1;
    assert_int_equal(support(&p, l, 4), 1 << 1);
}

/* The draw follows softmax(logits / T). */
static void test_distribution(void **state)
{
    const float l[3] = {0, 1, 2};
    ash_sampler_params p = plain();
    p.temperature = 0.5;
    ash_sampler *s = open_with(&p, 3);
    ash_sample out;
    int count[3] = {0}, n = 40000;
    for (int i = 0; i < n; i++) count[once(s, l, 3, &out)]++;
    double z = 1 + exp(2) + exp(4);
    for (int i = 0; i < 3; i++) {
        double want = exp(2.0 * i) / z, sd = sqrt(want * (1 - want) / n);
        assert_true(fabs(count[i] / (double)n - want) < 5 * sd);
    }
    ash_sampler_close(s);
}

static int by_order(const void *a, const void *b)
{
    const ash_logprob *x = a, *y = b;
    if (x->logprob > y->logprob || x->logprob < y->logprob)
        return x->logprob > y->logprob ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* Partial selection against a full sort: top-k and top-p leave the same set, many sizes and ties. */
static void test_selection(void **state)
{
    ash_rng r;
    ash_rng_init(&r, 3);
    for (int round = 0; round < 60; round++) {
        size_t n = 1 + ash_rng_u64(&r) % 3000;
        static float l[3000];
        static ash_logprob sorted[3000];
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            l[i] = (float)(ash_rng_u64(&r) % 64) / 8.0f;
            sorted[i] = (ash_logprob){(int32_t)i, l[i]};
            sum += exp((double)l[i]);
        }
        qsort(sorted, n, sizeof *sorted, by_order);
        ash_sampler_params p = plain();
        p.top_p = 0.05 + 0.9 * ash_rng_f64(&r);
        size_t keep = 0;
        for (double have = 0; keep < n && have < p.top_p * sum;) have += exp((double)sorted[keep++].logprob);
        ash_sampler *s = open_with(&p, (int64_t)n);
        ash_sample out;
        for (int i = 0; i < 50; i++) {
            int32_t id = once(s, l, n, &out);
            size_t rank = 0;
            while (sorted[rank].id != id) rank++;
            assert_true(rank <= keep); /* one off: float against double sums */
        }
        ash_sampler_close(s);
    }
}

static void test_logprobs(void **state)
{
    const float l[4] = {1, 2, 2, -INFINITY};
    double z = exp(1) + 2 * exp(2);
    ash_sampler_params p = plain();
    p.temperature = 0;
    p.logprobs = true;
    p.top_logprobs = 3;
    p.logit_bias = &(ash_logit_bias){0, 10};
    p.n_logit_bias = 1;
    ash_sampler *s = open_with(&p, 4);
    ash_sample out;
    assert_int_equal(once(s, l, 4, &out), 0); /* the bias chooses, the report is of the raw logits */
    assert_true(fabs((double)out.logprob - log(exp(1) / z)) < 1e-6);
    assert_int_equal(out.n_top, 3);
    assert_int_equal(out.top[0].id, 1);
    assert_int_equal(out.top[1].id, 2);
    assert_int_equal(out.top[2].id, 0);
    assert_true(fabs((double)out.top[0].logprob - log(exp(2) / z)) < 1e-6);
    ash_sampler_close(s);
    p.top_logprobs = ASH_MAX_TOP_LOGPROBS; /* more than there are ids */
    s = open_with(&p, 4);
    once(s, l, 4, &out);
    assert_int_equal(out.n_top, 4);
    assert_true(isinf(out.top[3].logprob));
    ash_sampler_close(s);
}

static void test_penalties(void **state)
{
    ash_sampler_params p = plain();
    p.temperature = 0;
    p.repeat_penalty = 2;
    p.repeat_last_n = 2;
    ash_sampler *s = open_with(&p, 3);
    ash_sample out;
    const float l[3] = {4, 3, -1};
    assert_int_equal(once(s, l, 3, &out), 0);
    ash_sampler_accept(s, 0);
    assert_int_equal(once(s, l, 3, &out), 1); /* 4 / 2 < 3 */
    ash_sampler_accept(s, 2);
    ash_sampler_accept(s, 2); /* 0 leaves the window */
    assert_int_equal(once(s, l, 3, &out), 0);
    ash_sampler_accept(s, 0);
    ash_sampler_reset(s);
    assert_int_equal(once(s, l, 3, &out), 0);
    ash_sampler_accept(s, -1);
    ash_sampler_accept(s, 99);
    ash_sampler_close(s);

    p = plain();
    p.temperature = 0;
    p.frequency_penalty = 0.5;
    p.repeat_last_n = -1;
    s = open_with(&p, 3);
    ash_sampler_accept(s, 0);
    ash_sampler_accept(s, 0);
    assert_int_equal(once(s, (float[]){4, 3.1f, 0}, 3, &out), 1); /* 4 - 2 * 0.5 < 3.1 */
    assert_int_equal(once(s, (float[]){4, 2.9f, 0}, 3, &out), 0);
    ash_sampler_close(s);

    p.frequency_penalty = 0;
    p.presence_penalty = 0.5;
    s = open_with(&p, 3);
    ash_sampler_accept(s, 0);
    ash_sampler_accept(s, 0);
    assert_int_equal(once(s, (float[]){4, 3.4f, 0}, 3, &out), 0); /* once, however often */
    assert_int_equal(once(s, (float[]){4, 3.6f, 0}, 3, &out), 1);
    ash_sampler_close(s);

    p.presence_penalty = 0;
    p.repeat_penalty = 3; /* negative logits are multiplied */
    s = open_with(&p, 3);
    ash_sampler_accept(s, 0);
    assert_int_equal(once(s, (float[]){-1, -2, -9}, 3, &out), 1);
    ash_sampler_close(s);
}

static void test_seeds(void **state)
{
    float l[64];
    for (int i = 0; i < 64; i++) l[i] = (float)(i % 7);
    ash_sampler_params p = plain();
    p.seed = 42;
    ash_sampler *a = open_with(&p, 64), *b = open_with(&p, 64);
    ash_sampler_params q = p;
    q.seed = 43;
    ash_sampler *c = open_with(&q, 64);
    ash_sample x, y, z;
    int same = 0;
    int32_t first[32];
    for (int i = 0; i < 32; i++) first[i] = once(a, l, 64, &x);
    for (int i = 0; i < 32; i++) {
        once(b, l, 64, &y);
        once(c, l, 64, &z);
        assert_int_equal(first[i], y.id);
        same += z.id == y.id;
    }
    assert_true(same < 16);
    assert_int_equal(ash_sampler_seed(a), 42);
    p.seed = -1;
    ash_sampler *d = open_with(&p, 64), *e = open_with(&p, 64);
    assert_true(ash_sampler_seed(d) >= 0);
    assert_true(ash_sampler_seed(d) != ash_sampler_seed(e));
    ash_sampler_close(a);
    ash_sampler_close(b);
    ash_sampler_close(c);
    ash_sampler_close(d);
    ash_sampler_close(e);
}

static void test_bad_logits(void **state)
{
    ash_sampler_params p = plain();
    ash_sampler *s = open_with(&p, 2);
    ash_sample out;
    ash_err err;
    assert_int_equal(ash_sampler_sample(s, (float[]){0, NAN}, &out, &err), ASH_EINVAL);
    assert_string_equal(err.msg, "logit of id 1 is not a number");
    assert_int_equal(ash_sampler_sample(s, (float[]){INFINITY, 0}, &out, &err), ASH_EINVAL);
    assert_int_equal(ash_sampler_sample(s, (float[]){-INFINITY, -INFINITY}, &out, &err), ASH_EINVAL);
    ash_sampler_close(s);
    s = open_with(&p, 9);
    float long_enough[9] = {[3] = -INFINITY, [5] = NAN};
    assert_int_equal(ash_sampler_sample(s, long_enough, &out, &err), ASH_EINVAL);
    assert_string_equal(err.msg, "logit of id 5 is not a number");
    long_enough[5] = 20;
    assert_int_equal(ash_sampler_sample(s, long_enough, &out, &err), 0);
    assert_int_equal(out.id, 5);
    ash_sampler_close(s);
    ash_logit_bias never[2] = {{0, -INFINITY}, {1, -INFINITY}};
    p.logit_bias = never;
    p.n_logit_bias = 2;
    s = open_with(&p, 2);
    assert_int_equal(ash_sampler_sample(s, (float[]){0, 0}, &out, &err), ASH_EINVAL);
    ash_sampler_close(s);
    p.n_logit_bias = 1;
    assert_int_equal(support(&p, (float[]){9, 0}, 2), 2);
}

static void refuse(ash_sampler_params p, const char *start)
{
    ash_err err;
    assert_int_equal(ash_sampler_check(&p, &err), ASH_EINVAL);
    assert_memory_equal(err.msg, start, strlen(start));
}

static void test_check(void **state)
{
    ash_err err;
    ash_sampler_params p = ash_sampler_params_default();
    assert_int_equal(ash_sampler_check(&p, &err), 0);
#define REFUSE(field, value) \
    p = ash_sampler_params_default(), p.field = value, refuse(p, "'" #field "' ")
    REFUSE(temperature, -0.1);
    REFUSE(temperature, (double)NAN);
    REFUSE(temperature, 101);
    REFUSE(top_p, 0);
    REFUSE(top_p, 1.01);
    REFUSE(min_p, -1);
    REFUSE(repeat_penalty, 0);
    REFUSE(presence_penalty, 2.5);
    REFUSE(frequency_penalty, -2.5);
    REFUSE(top_k, -1);
    REFUSE(repeat_last_n, -2);
    REFUSE(seed, -2);
    REFUSE(top_logprobs, 21);
#undef REFUSE
    p = ash_sampler_params_default();
    p.n_logit_bias = ASH_MAX_LOGIT_BIAS + 1;
    refuse(p, "'logit_bias' ");
    ash_logit_bias b = {7, 1};
    p.logit_bias = &b;
    p.n_logit_bias = 1;
    ash_sampler *s;
    assert_int_equal(ash_sampler_open(&p, 7, 7, &s, &err), ASH_EINVAL);
    assert_null(s);
    assert_int_equal(ash_sampler_check_ids(&p, 7, &err), ASH_EINVAL);
    assert_int_equal(ash_sampler_check_ids(&p, 8, &err), 0);
    b.bias = NAN;
    assert_int_equal(ash_sampler_check(&p, &err), ASH_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),       cmocka_unit_test(test_usable),
        cmocka_unit_test(test_truncations),  cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_selection),    cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_penalties),    cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_bad_logits),   cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
