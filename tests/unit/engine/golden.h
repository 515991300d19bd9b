/* Reads tests/golden/logits (see make.py there) and compares an engine's logits with it. Tests only. */
#ifndef ASHLEY_TESTS_GOLDEN_H
#define ASHLEY_TESTS_GOLDEN_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "engine/engine.h"

/* How an engine differs from the oracle over all checked positions. */
typedef struct golden_report {
    int positions;
    double worst;      /* largest |difference| of a checked logit, in standard deviations of the logits */
    double rmse;       /* root of the mean square of those differences */
    double position;   /* the same of the worst position */
    double kl;         /* mean over positions of sum p log(p/q) over the oracle's top ids */
    int greedy, greedy_same;
    int clear, clear_same; /* greedy steps where the oracle's margin is over 0.2 */
} golden_report;

static inline const char *golden_path(const char *name, char *out, size_t n)
{
    snprintf(out, n, "%s/logits/%s", getenv("ASHLEY_TEST_DATA"), name);
    return out;
}

static inline double golden_num(json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static inline double golden_logsumexp(const float *l, int64_t n)
{
    double top = (double)l[0], sum = 0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, (double)l[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)l[i] - top);
    return top + log(sum);
}

static inline void golden_note(golden_report *r, double *square, int *n, double want, double got, double std)
{
    double d = fabs(want - got) / std;
    r->worst = d > r->worst || d != d ? d : r->worst;
    *square += d * d;
    ++*n;
}

/* Compares the logits [n_vocab] of one position. */
static inline void golden_position(json_t *p, const float *l, int64_t n_vocab, golden_report *r,
                                   double *square, int *n)
{
    double std = golden_num(p, "std"), z = golden_num(p, "logsumexp"), own = golden_logsumexp(l, n_vocab);
    double square_before = *square;
    int n_before = *n;
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(p, "top"), i, v)
    {
        int64_t id = json_integer_value(json_array_get(v, 0));
        double want = json_number_value(json_array_get(v, 1));
        golden_note(r, square, n, want, (double)l[id], std);
        r->kl += exp(want - z) * ((want - z) - ((double)l[id] - own));
    }
    json_array_foreach(json_object_get(p, "logits"), i, v)
        golden_note(r, square, n, json_number_value(v), (double)l[i], std);
    json_array_foreach(json_object_get(p, "strided"), i, v)
        golden_note(r, square, n, json_number_value(v), (double)l[16 * i], std);
    golden_note(r, square, n, z, own, std);
    r->position = fmax(r->position, sqrt((*square - square_before) / (*n - n_before)));
    r->positions++;
}

static inline int64_t golden_argmax(const float *l, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (l[i] > l[best])
            best = i;
    return best;
}

/* Every case of a golden file of at most max_ids ids against `e`. False if reading or evaluating
 * failed. The greedy ids are checked with the oracle's own prefix before each, so that one rightly
 * different choice does not spoil those after it. */
static inline bool golden_compare(ash_engine *e, const char *name, size_t max_ids, golden_report *r)
{
    char path[512];
    json_t *root = json_load_file(golden_path(name, path, sizeof path), 0, NULL), *c;
    int64_t n_vocab = ash_engine_info(e)->n_vocab;
    bool ok = root && (double)n_vocab == golden_num(root, "n_vocab");
    double square = 0;
    int n = 0;
    size_t i, j;
    *r = (golden_report){0};
    json_array_foreach(json_object_get(root, "cases"), i, c)
    {
        json_t *ids = json_object_get(c, "ids"), *greedy = json_object_get(c, "greedy"), *v;
        size_t n_ids = json_array_size(ids), all = n_ids + json_array_size(greedy);
        if (n_ids > max_ids)
            continue;
        int32_t *in = calloc(all, sizeof *in);
        float *l = calloc(all * (size_t)n_vocab, sizeof *l);
        json_array_foreach(ids, j, v) in[j] = (int32_t)json_integer_value(v);
        json_array_foreach(greedy, j, v) in[n_ids + j] = (int32_t)json_integer_value(v);
        ash_err err = ASH_ERR_INIT;
        if (!in || !l || ash_engine_eval(e, in, all - 1, true, l, &err)) {
            fprintf(stderr, "%s: %s\n", name, err.msg);
            ok = false;
        } else {
            json_array_foreach(json_object_get(c, "positions"), j, v)
                golden_position(v, l + (int64_t)golden_num(v, "pos") * n_vocab, n_vocab, r, &square, &n);
            for (j = n_ids; j < all; j++) {
                bool same = golden_argmax(l + (j - 1) * (size_t)n_vocab, n_vocab) == in[j];
                json_t *margins = json_object_get(c, "greedy_margin");
                double margin = json_number_value(json_array_get(margins, j - n_ids));
                r->greedy++;
                r->greedy_same += same;
                r->clear += margin > 0.2;
                r->clear_same += margin > 0.2 && same;
            }
        }
        free(in);
        free(l);
    }
    r->rmse = n ? sqrt(square / n) : 0;
    r->kl = r->positions ? r->kl / r->positions : 0;
    json_decref(root);
    return ok && r->positions > 0;
}

#endif
