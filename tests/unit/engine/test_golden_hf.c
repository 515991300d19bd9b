/* Logits of checkpoint folders against the original implementation's, by every set of kernels: each
 * folder of tests/golden/hf (README.md there has the format and where each comes from). The scalar
 * kernels must agree as floats do, in every logit and every greedy id; the others, which round
 * activations, within the bound for the type of weights. ASHLEY_GOLDEN=NAME runs one folder. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/fs.h"
#include "engine/engine.h"

/* In standard deviations of a position's logits; the stored logits themselves are good to 1e-4. */
#define FLOAT_ERROR 1e-3
#define KL_16_BIT 0.002
/* For quantised weights: this many times what int8 activations do to the oracle. */
#define KL_NOISES 2.0

typedef struct golden {
    char folder[512];
    json_t *root;
    uint16_t *stored; /* [rows, n_vocab] */
    size_t rows;
    int64_t n_vocab;
} golden;

typedef struct report {
    int positions;
    double worst; /* largest |difference| of a logit, in deviations of its position's logits */
    double kl;    /* mean over positions */
    int greedy, greedy_same;
} report;

static void golden_close(golden *g)
{
    json_decref(g->root);
    free(g->stored);
}

static bool golden_open(golden *g, const char *name)
{
    char path[600];
    *g = (golden){0};
    snprintf(g->folder, sizeof g->folder, "%s/hf/%s", getenv("ASHLEY_TEST_DATA"), name);
    snprintf(path, sizeof path, "%s/golden.json", g->folder);
    g->root = json_load_file(path, 0, NULL);
    g->n_vocab = json_integer_value(json_object_get(g->root, "n_vocab"));
    snprintf(path, sizeof path, "%s/golden.u16", g->folder);
    FILE *f = fopen(path, "rb");
    if (!g->root || g->n_vocab <= 0 || !f || fseek(f, 0, SEEK_END))
        return false;
    long bytes = ftell(f);
    rewind(f);
    g->rows = (size_t)bytes / sizeof(uint16_t) / (size_t)g->n_vocab;
    g->stored = malloc((size_t)bytes + 1);
    bool ok = g->stored && fread(g->stored, 1, (size_t)bytes, f) == (size_t)bytes;
    fclose(f);
    return ok;
}

static double logsumexp(const double *l, int64_t n)
{
    double top = l[0], sum = 0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, l[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(l[i] - top);
    return top + log(sum);
}

/* want, got [n]: logits of one position. */
static void compare_position(const double *want, const double *got, int64_t n, report *r)
{
    double mean = 0, var = 0, zw = logsumexp(want, n), zg = logsumexp(got, n);
    for (int64_t i = 0; i < n; i++) mean += want[i] / (double)n;
    for (int64_t i = 0; i < n; i++) var += (want[i] - mean) * (want[i] - mean) / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(want[i] - got[i]) / sqrt(var);
        r->worst = d > r->worst || d != d ? d : r->worst;
        r->kl += exp(want[i] - zw) * ((want[i] - zw) - (got[i] - zg));
    }
    r->positions++;
}

static int64_t argmax(const float *l, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (l[i] > l[best])
            best = i;
    return best;
}

static size_t ids_of(json_t *array, int32_t *out)
{
    size_t i;
    json_t *v;
    json_array_foreach(array, i, v) out[i] = (int32_t)json_integer_value(v);
    return json_array_size(array);
}

static bool compare_positions(const golden *g, json_t *c, ash_engine *e, const int32_t *ids, size_t n_ids,
                              report *r)
{
    double low = json_number_value(json_object_get(c, "low"));
    double step = json_number_value(json_object_get(c, "step"));
    size_t first = (size_t)json_integer_value(json_object_get(c, "first")), i;
    size_t n = (size_t)g->n_vocab;
    json_t *at = json_object_get(c, "positions"), *v;
    float *l = calloc(n_ids * n, sizeof *l);
    double *want = calloc(2 * n, sizeof *want), *got = want ? want + n : NULL;
    ash_err err = ASH_ERR_INIT;
    bool ok = l && want && first + json_array_size(at) <= g->rows;
    if (ok && ash_engine_eval(e, ids, n_ids, true, l, &err)) {
        print_error("%s: %s\n", g->folder, err.msg);
        ok = false;
    }
    json_array_foreach(at, i, v)
    {
        size_t pos = (size_t)json_integer_value(v);
        ok = ok && pos < n_ids;
        for (size_t j = 0; ok && j < n; j++) {
            want[j] = low + step * g->stored[(first + i) * n + j];
            got[j] = (double)l[pos * n + j];
        }
        if (ok)
            compare_position(want, got, g->n_vocab, r);
    }
    free(l);
    free(want);
    return ok;
}

/* Each greedy id after the oracle's own text before it, as a prompt of its own: scalings that follow
 * the prompt's length see the same one, and one different choice does not spoil those after it. */
static bool compare_greedy(const golden *g, json_t *c, ash_engine *e, int32_t *ids, size_t n_ids, report *r)
{
    float *l = calloc((size_t)g->n_vocab, sizeof *l);
    size_t all = n_ids + ids_of(json_object_get(c, "greedy"), ids + n_ids);
    ash_err err = ASH_ERR_INIT;
    bool ok = l != NULL;
    for (size_t n = n_ids; ok && n < all; n++) {
        ok = !ash_engine_eval(e, ids, n, false, l, &err);
        r->greedy++;
        r->greedy_same += ok && argmax(l, g->n_vocab) == ids[n];
    }
    free(l);
    return ok;
}

static bool compare(const golden *g, ash_cpu_level level, report *r)
{
    ash_engine *e;
    ash_err err = ASH_ERR_INIT;
    const ash_engine_opts o = {
        .path = g->folder, .bare = true, .cpu = level, .ctx = 256, .max_sequences = 1, .threads = 1};
    *r = (report){0};
    if (ash_engine_open(&o, &e, &err)) {
        print_error("%s: %s\n", g->folder, err.msg);
        return false;
    }
    bool ok = ash_engine_info(e)->n_vocab == g->n_vocab;
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(g->root, "cases"), i, c)
    {
        json_t *ids = json_object_get(c, "ids");
        size_t all = json_array_size(ids) + json_array_size(json_object_get(c, "greedy"));
        int32_t *in = calloc(all, sizeof *in);
        size_t n_ids = in ? ids_of(ids, in) : 0;
        ok = ok && in && compare_positions(g, c, e, in, n_ids, r) && compare_greedy(g, c, e, in, n_ids, r);
        free(in);
    }
    ash_engine_close(e);
    r->kl = r->positions ? r->kl / r->positions : 0;
    return ok && r->positions > 0;
}

/* Whether one folder is within the bounds, by all kernels. */
static bool check_folder(const char *name)
{
    golden g;
    bool good = golden_open(&g, name);
    const char *weights = good ? json_string_value(json_object_get(g.root, "weights")) : NULL;
    for (int level = 0; weights && level <= (int)ash_cpu_get()->level; level++) {
        report r;
        double noise = json_number_value(json_object_get(g.root, "noise_kl"));
        double bound = strcmp(weights, "quantised") ? KL_16_BIT : KL_NOISES * noise;
        bool ok = compare(&g, (ash_cpu_level)level, &r);
        if (level == ASH_CPU_SCALAR)
            ok = ok && r.worst <= FLOAT_ERROR && r.greedy_same == r.greedy;
        else
            ok = ok && r.kl <= bound;
        print_message("%-28s %-7s %3d positions, worst logit %.2g, KL %.2g (noise %.2g), greedy %d/%d%s\n",
                      name, ash_cpu_level_name((ash_cpu_level)level), r.positions, r.worst, r.kl, noise,
                      r.greedy_same, r.greedy, ok ? "" : "   <-- FAILED");
        good = good && ok;
    }
    golden_close(&g);
    return good && weights;
}

static void folders(void **state)
{
    char path[512];
    const char *only = getenv("ASHLEY_GOLDEN");
    struct dirent **list;
    int bad = 0, done = 0;
    snprintf(path, sizeof path, "%s/hf", getenv("ASHLEY_TEST_DATA"));
    int n = scandir(path, &list, NULL, alphasort);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/hf/%s/golden.json", getenv("ASHLEY_TEST_DATA"), list[i]->d_name);
        if (ash_fs_is_file(path) && (!only || !strcmp(only, list[i]->d_name))) {
            done++;
            bad += !check_folder(list[i]->d_name);
        }
        free(list[i]);
    }
    free(list);
    print_message("%d of %d folders within the bounds\n", done - bad, done);
    assert_true(done > 0);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(folders)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
