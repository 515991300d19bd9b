/* Owns one sequence's sampling state: parameters, penalty window, random positions, scratch.
 * Refuses parameters out of range and logits that are no numbers. One thread at a time each. */
#include "text/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

enum { MAX_LAST_N = 1 << 20 };

typedef struct cand {
    float logit; /* later its weight */
    int32_t id;
} cand;

struct ash_sampler {
    ash_sampler_params p;
    ash_logit_bias *bias; /* [p.n_logit_bias] */
    int64_t n_usable;
    uint64_t drawn;   /* tokens drawn so far: the position of the next draw */
    cand *v;          /* [n_usable] scratch */
    uint32_t *counts; /* [n_usable] how often an id stands in the window; NULL without penalties */
    int32_t *ring;    /* [n_ring] the window's ids, oldest at `head`; NULL if it is unbounded */
    size_t n_ring, in_ring, head;
};

ash_sampler_params ash_sampler_params_default(void)
{
    return (ash_sampler_params){
        .temperature = 1.0, .top_p = 1.0, .min_p = 0.05, .top_k = 40,
        .repeat_penalty = 1.0, .repeat_last_n = 64, .seed = -1,
    };
}

/* Written so that NaN is out of range too. */
static int check_range(const char *name, double x, double lo, double hi, bool open_lo, ash_err *err)
{
    if (x <= hi && (open_lo ? x > lo : x >= lo))
        return 0;
    return ash_err_set(err, ASH_EINVAL, "'%s' must be %s %g and at most %g, not %g", name,
                       open_lo ? "more than" : "at least", lo, hi, x);
}

static int check_int(const char *name, int64_t x, int64_t lo, int64_t hi, ash_err *err)
{
    if (x >= lo && x <= hi)
        return 0;
    return ash_err_set(err, ASH_EINVAL, "'%s' must be from %lld to %lld, not %lld", name,
                       (long long)lo, (long long)hi, (long long)x);
}

int ash_sampler_check(const ash_sampler_params *p, ash_err *err)
{
    int rc = check_range("temperature", p->temperature, 0, 100, false, err);
    if (!rc)
        rc = check_range("top_p", p->top_p, 0, 1, true, err);
    if (!rc)
        rc = check_range("min_p", p->min_p, 0, 1, false, err);
    if (!rc)
        rc = check_range("repeat_penalty", p->repeat_penalty, 0, 100, true, err);
    if (!rc)
        rc = check_range("presence_penalty", p->presence_penalty, -2, 2, false, err);
    if (!rc)
        rc = check_range("frequency_penalty", p->frequency_penalty, -2, 2, false, err);
    if (!rc)
        rc = check_int("top_k", p->top_k, 0, INT32_MAX, err);
    if (!rc)
        rc = check_int("repeat_last_n", p->repeat_last_n, -1, MAX_LAST_N, err);
    if (!rc)
        rc = check_int("seed", p->seed, -1, INT64_MAX, err);
    if (!rc)
        rc = check_int("top_logprobs", p->top_logprobs, 0, ASH_MAX_TOP_LOGPROBS, err);
    if (!rc)
        rc = check_int("logit_bias", (int64_t)p->n_logit_bias, 0, ASH_MAX_LOGIT_BIAS, err);
    for (size_t i = 0; !rc && i < p->n_logit_bias; i++) {
        const ash_logit_bias *b = &p->logit_bias[i];
        if (b->id < 0 || isnan(b->bias) || b->bias == INFINITY)
            rc = ash_err_set(err, ASH_EINVAL, "'logit_bias' entry %zu must have an id of 0 or more "
                             "and a finite bias", i);
    }
    return rc;
}

static bool penalised(const ash_sampler_params *p)
{
    return p->repeat_last_n != 0 && (p->repeat_penalty < 1 || p->repeat_penalty > 1 ||
                                     fabs(p->presence_penalty) > 0 || fabs(p->frequency_penalty) > 0);
}

static int reserve(ash_sampler *s, const ash_sampler_params *p, ash_err *err)
{
    size_t n = (size_t)s->n_usable;
    s->v = calloc(n, sizeof *s->v);
    if (penalised(p)) {
        s->counts = calloc(n, sizeof *s->counts);
        s->n_ring = p->repeat_last_n > 0 ? (size_t)p->repeat_last_n : 0;
        if (s->n_ring)
            s->ring = calloc(s->n_ring, sizeof *s->ring);
    }
    if (p->n_logit_bias)
        s->bias = calloc(p->n_logit_bias, sizeof *s->bias);
    if (!s->v || (penalised(p) && !s->counts) || (s->n_ring && !s->ring) ||
        (p->n_logit_bias && !s->bias))
        return ash_err_nomem(err, "sampler");
    if (p->n_logit_bias)
        memcpy(s->bias, p->logit_bias, p->n_logit_bias * sizeof *s->bias);
    return 0;
}

int ash_sampler_open(const ash_sampler_params *p, int64_t n_vocab, int64_t n_usable,
                     ash_sampler **out, ash_err *err)
{
    *out = NULL;
    int rc = ash_sampler_check(p, err);
    if (rc)
        return rc;
    if (n_vocab > ASH_MAX_VOCAB || n_usable < 1 || n_usable > n_vocab)
        return ash_err_set(err, ASH_EINVAL, "sampler: %lld usable ids of a vocabulary of %lld",
                           (long long)n_usable, (long long)n_vocab);
    for (size_t i = 0; i < p->n_logit_bias; i++)
        if (p->logit_bias[i].id >= n_usable)
            return ash_err_set(err, ASH_EINVAL, "'logit_bias' has id %d, the vocabulary ends at %lld",
                               p->logit_bias[i].id, (long long)n_usable - 1);
    ash_sampler *s = calloc(1, sizeof *s);
    if (!s)
        return ash_err_nomem(err, "sampler");
    s->n_usable = n_usable;
    rc = reserve(s, p, err);
    if (rc) {
        ash_sampler_close(s);
        return rc;
    }
    s->p = *p;
    s->p.logit_bias = s->bias;
    if (s->p.seed < 0) /* 53 bits, so that it survives a client's doubles */
        s->p.seed = (int64_t)(ash_rng_entropy() >> 11);
    *out = s;
    return 0;
}

void ash_sampler_close(ash_sampler *s)
{
    if (!s)
        return;
    free(s->v);
    free(s->counts);
    free(s->ring);
    free(s->bias);
    free(s);
}

int64_t ash_sampler_seed(const ash_sampler *s)
{
    return s->p.seed;
}

size_t ash_sampler_bytes(const ash_sampler *s)
{
    size_t n = (size_t)s->n_usable;
    return sizeof *s + n * sizeof *s->v + (s->counts ? n * sizeof *s->counts : 0) +
           s->n_ring * sizeof *s->ring + s->p.n_logit_bias * sizeof *s->bias;
}

void ash_sampler_accept(ash_sampler *s, int32_t id)
{
    if (!s->counts || id < 0 || id >= s->n_usable)
        return;
    if (s->n_ring) {
        if (s->in_ring == s->n_ring)
            s->counts[s->ring[s->head]]--;
        else
            s->in_ring++;
        s->ring[s->head] = id;
        s->head = s->head + 1 == s->n_ring ? 0 : s->head + 1;
    }
    s->counts[id]++;
}

void ash_sampler_reset(ash_sampler *s)
{
    if (s->counts)
        memset(s->counts, 0, (size_t)s->n_usable * sizeof *s->counts);
    s->in_ring = s->head = 0;
    s->drawn = 0;
}

/* The total order of candidates: higher logit first, then lower id. */
static bool before(cand a, cand b)
{
    return a.logit > b.logit || (a.logit >= b.logit && a.id < b.id);
}

/* Heap with the last in order at the root. */
static void sift(cand *h, size_t n, size_t i)
{
    for (;;) {
        size_t worst = i, l = 2 * i + 1;
        if (l < n && before(h[worst], h[l]))
            worst = l;
        if (l + 1 < n && before(h[worst], h[l + 1]))
            worst = l + 1;
        if (worst == i)
            return;
        cand t = h[i];
        h[i] = h[worst];
        h[worst] = t;
        i = worst;
    }
}

/* Brings the first k in order to the front, sorted; the others follow in any order. O(n + k log k)
 * for logits in random order, O(n log k) at worst. */
static void select_front(cand *v, size_t n, size_t k)
{
    for (size_t i = k / 2; i-- > 0;) sift(v, k, i);
    for (size_t i = k; i < n; i++) {
        if (!before(v[i], v[0]))
            continue;
        cand t = v[0];
        v[0] = v[i];
        v[i] = t;
        sift(v, k, 0);
    }
    for (size_t m = k; m > 1;) {
        m--;
        cand t = v[0];
        v[0] = v[m];
        v[m] = t;
        sift(v, m, 0);
    }
}

/* Log-probabilities of the logits as they came: the n_top best into out, the log of the partition
 * sum (relative to `max`) returned. */
static double raw_logprobs(const float *logits, int64_t n, float max, int n_top, ash_sample *out)
{
    double sum = 0;
    cand best[ASH_MAX_TOP_LOGPROBS];
    int m = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)expf(logits[i] - max);
        cand c = {logits[i], (int32_t)i};
        if (n_top == 0 || (m == n_top && !before(c, best[m - 1])))
            continue;
        int at = m < n_top ? m++ : m - 1;
        for (; at > 0 && before(c, best[at - 1]); at--) best[at] = best[at - 1];
        best[at] = c;
    }
    double log_sum = log(sum);
    for (int i = 0; i < m; i++)
        out->top[i] = (ash_logprob){best[i].id, (float)((double)(best[i].logit - max) - log_sum)};
    out->n_top = m;
    return log_sum;
}

static int find_max(const float *logits, int64_t n, float *max, ash_err *err)
{
    float best = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (!(logits[i] < INFINITY)) /* NaN too */
            return ash_err_set(err, ASH_EINVAL, "logit of id %lld is %s", (long long)i,
                               isnan(logits[i]) ? "not a number" : "infinite");
        if (logits[i] > best)
            best = logits[i];
    }
    *max = best;
    if (best > -INFINITY)
        return 0;
    return ash_err_set(err, ASH_EINVAL, "every logit is -infinity: no token can be sampled");
}

/* Fills the candidates in id order, with bias and penalties (llama.cpp, llama_sampler_penalties). */
static void fill(ash_sampler *s, const float *logits)
{
    for (int64_t i = 0; i < s->n_usable; i++) s->v[i] = (cand){logits[i], (int32_t)i};
    for (size_t i = 0; i < s->p.n_logit_bias; i++)
        s->v[s->bias[i].id].logit += s->bias[i].bias;
    if (!s->counts)
        return;
    float repeat = (float)s->p.repeat_penalty, presence = (float)s->p.presence_penalty,
          frequency = (float)s->p.frequency_penalty;
    for (int64_t i = 0; i < s->n_usable; i++) {
        uint32_t n = s->counts[i];
        if (n == 0)
            continue;
        float x = s->v[i].logit;
        x = x <= 0 ? x * repeat : x / repeat;
        s->v[i].logit = x - (float)n * frequency - presence;
    }
}

static int32_t greedy(const cand *v, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (before(v[i], v[best]))
            best = i;
    return v[best].id;
}

/* The smallest number of leading candidates whose probabilities reach top_p. Orders only as many as
 * it needs: 64 first, then eight times as many, and so on. */
static size_t cut_top_p(cand *v, size_t n, bool sorted, float max, double top_p)
{
    double sum = 0, have = 0;
    for (size_t i = 0; i < n; i++) sum += (double)expf(v[i].logit - max);
    size_t done = 0;
    for (size_t m = sorted ? n : 64;; m *= 8) {
        if (m > n)
            m = n;
        if (!sorted)
            select_front(v, n, m);
        for (; done < m; done++) {
            have += (double)expf(v[done].logit - max);
            if (have >= top_p * sum)
                return done + 1;
        }
        if (m == n)
            return n;
    }
}

/* Applies top-k, top-p and min-p; how many candidates are left at the front of s->v. */
static size_t truncate_candidates(ash_sampler *s, float max)
{
    size_t n = (size_t)s->n_usable;
    bool sorted = false;
    if (s->p.top_k > 0 && (uint64_t)s->p.top_k < n) {
        select_front(s->v, n, (size_t)s->p.top_k);
        n = (size_t)s->p.top_k;
        sorted = true;
    }
    if (s->p.top_p < 1)
        n = cut_top_p(s->v, n, sorted, max, s->p.top_p);
    if (s->p.min_p > 0) {
        float least = max + logf((float)s->p.min_p);
        size_t kept = 0;
        for (size_t i = 0; i < n; i++)
            if (s->v[i].logit >= least)
                s->v[kept++] = s->v[i];
        n = kept;
    }
    return n;
}

/* One draw from softmax(logit / temperature) over the first n candidates. */
static int32_t draw(ash_sampler *s, size_t n, float max)
{
    double sum = 0, inverse = 1 / s->p.temperature;
    for (size_t i = 0; i < n; i++) {
        s->v[i].logit = expf((float)((double)(s->v[i].logit - max) * inverse));
        sum += (double)s->v[i].logit;
    }
    ash_rng rng;
    ash_rng_init(&rng, (uint64_t)s->p.seed + s->drawn * 0xD1342543DE82EF95u);
    double left = ash_rng_f64(&rng) * sum;
    size_t last = 0; /* the last candidate with any weight, should rounding run past the end */
    for (size_t i = 0; i < n; i++) {
        if (!(s->v[i].logit > 0))
            continue;
        last = i;
        left -= (double)s->v[i].logit;
        if (left < 0)
            break;
    }
    return s->v[last].id;
}

int ash_sampler_sample(ash_sampler *s, float *logits, ash_sample *out, ash_err *err)
{
    float raw_max = 0, max = -INFINITY;
    int rc = find_max(logits, s->n_usable, &raw_max, err);
    if (rc)
        return rc;
    out->n_top = 0;
    out->logprob = 0;
    double log_sum = 0;
    if (s->p.logprobs)
        log_sum = raw_logprobs(logits, s->n_usable, raw_max, (int)s->p.top_logprobs, out);
    fill(s, logits);
    for (int64_t i = 0; i < s->n_usable; i++)
        if (s->v[i].logit > max)
            max = s->v[i].logit;
    if (!(max > -INFINITY))
        return ash_err_set(err, ASH_EINVAL, "'logit_bias' forbids every token");
    if (!(max < INFINITY))
        return ash_err_set(err, ASH_EINVAL, "a penalty or bias makes a logit infinite");
    if (s->p.temperature <= 0)
        out->id = greedy(s->v, (size_t)s->n_usable);
    else
        out->id = draw(s, truncate_candidates(s, max), max);
    s->drawn++;
    if (s->p.logprobs)
        out->logprob = (float)((double)(logits[out->id] - raw_max) - log_sum);
    return 0;
}
