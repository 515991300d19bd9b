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
    float *raw;       /* [n_usable] logits before bias and penalties; NULL if none needs them */
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

int ash_sampler_check_ids(const ash_sampler_params *p, int64_t n_usable, ash_err *err)
{
    for (size_t i = 0; i < p->n_logit_bias; i++)
        if (p->logit_bias[i].id >= n_usable)
            return ash_err_set(err, ASH_EINVAL, "'logit_bias' has id %d, the vocabulary ends at %lld",
                               p->logit_bias[i].id, (long long)n_usable - 1);
    return 0;
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
    bool keep_raw = p->logprobs && (penalised(p) || p->n_logit_bias > 0);
    if (keep_raw)
        s->raw = calloc(n, sizeof *s->raw);
    if (!s->v || (keep_raw && !s->raw) || (penalised(p) && !s->counts) ||
        (s->n_ring && !s->ring) || (p->n_logit_bias && !s->bias))
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
    if ((rc = ash_sampler_check_ids(p, n_usable, err)))
        return rc;
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
    free(s->raw);
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
           (s->raw ? n * sizeof *s->raw : 0) +
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

/* A heap of sift's kind becomes sorted. */
static void sort_heap(cand *h, size_t n)
{
    while (n > 1) {
        n--;
        cand t = h[0];
        h[0] = h[n];
        h[n] = t;
        sift(h, n, 0);
    }
}

/* Below this distance from the maximum a candidate's share is under 1e-17: it is not summed. */
static const float NEGLIGIBLE = -40.0f;

/* Log-probabilities of the logits as they came: the n_top best into out, the log of the partition
 * sum (relative to `max`) returned. */
static double raw_logprobs(const float *logits, int64_t n, float max, int n_top, ash_sample *out)
{
    double sum = 0;
    cand best[ASH_MAX_TOP_LOGPROBS];
    int m = 0;
    for (int64_t i = 0; i < n; i++) {
        float d = logits[i] - max;
        if (d > NEGLIGIBLE)
            sum += (double)expf(d);
        if (n_top == 0 || (m == n_top && logits[i] <= best[m - 1].logit)) /* ids only grow */
            continue;
        cand c = {logits[i], (int32_t)i};
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

/* Says which logit is no number; 0 if it was only -infinity that made `find_max` look closer. */
static int check_each(const float *x, int64_t n, ash_err *err)
{
    for (int64_t i = 0; i < n; i++)
        if (!(x[i] < INFINITY)) /* NaN too */
            return ash_err_set(err, ASH_EINVAL, "logit of id %lld is %s", (long long)i,
                               isnan(x[i]) ? "not a number" : "infinite");
    return 0;
}

/* The largest of x [n]. Four sums of their own keep the processor busy; 0 * x is a number only for
 * finite x. */
static int find_max(const float *x, int64_t n, float *max, ash_err *err)
{
    float m[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, zero[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++) {
            m[k] = x[i + k] > m[k] ? x[i + k] : m[k];
            zero[k] += x[i + k] * 0.0f;
        }
    for (; i < n; i++) {
        m[0] = x[i] > m[0] ? x[i] : m[0];
        zero[0] += x[i] * 0.0f;
    }
    for (int k = 1; k < 4; k++) {
        m[0] = m[k] > m[0] ? m[k] : m[0];
        zero[0] += zero[k];
    }
    *max = m[0];
    int rc = isnan(zero[0]) ? check_each(x, n, err) : 0;
    if (rc || m[0] > -INFINITY)
        return rc;
    return ash_err_set(err, ASH_EINVAL, "every logit is -infinity: no token can be sampled");
}

/* Adds bias and penalties in place (llama.cpp, llama_sampler_penalties); false if there are none. */
static bool adjust(const ash_sampler *s, float *logits)
{
    for (size_t i = 0; i < s->p.n_logit_bias; i++) logits[s->bias[i].id] += s->bias[i].bias;
    if (!s->counts)
        return s->p.n_logit_bias > 0;
    float repeat = (float)s->p.repeat_penalty, presence = (float)s->p.presence_penalty,
          frequency = (float)s->p.frequency_penalty;
    for (int64_t i = 0; i < s->n_usable; i++) {
        uint32_t n = s->counts[i];
        if (n == 0)
            continue;
        float x = logits[i];
        x = x <= 0 ? x * repeat : x / repeat;
        logits[i] = x - (float)n * frequency - presence;
    }
    return true;
}

static int32_t greedy(const float *logits, float max)
{
    int32_t i = 0;
    while (logits[i] < max) i++;
    return i;
}

/* The k best of the logits into s->v, sorted. */
static void take_top_k(ash_sampler *s, const float *logits, size_t k)
{
    for (size_t i = 0; i < k; i++) s->v[i] = (cand){logits[i], (int32_t)i};
    for (size_t i = k / 2; i-- > 0;) sift(s->v, k, i);
    float least = s->v[0].logit;
    for (int64_t i = (int64_t)k; i < s->n_usable; i++) {
        if (logits[i] <= least) /* a tie stays with the lower id */
            continue;
        s->v[0] = (cand){logits[i], (int32_t)i};
        sift(s->v, k, 0);
        least = s->v[0].logit;
    }
    sort_heap(s->v, k);
}

/* How many of n sorted candidates reach top_p together. */
static size_t cut_sorted(const cand *v, size_t n, float max, double top_p)
{
    double sum = 0, have = 0;
    for (size_t i = 0; i < n; i++) sum += (double)expf(v[i].logit - max);
    for (size_t i = 0; i < n; i++) {
        have += (double)expf(v[i].logit - max);
        if (have >= top_p * sum)
            return i + 1;
    }
    return n;
}

enum { BUCKETS = 1024 };

/* Buckets of equal width of distance from the maximum; the last takes all that is far. */
static int bucket_of(float logit, float max)
{
    float at = (max - logit) * (BUCKETS / 32.0f);
    return at < BUCKETS - 1 ? (int)at : BUCKETS - 1;
}

/* Top-p over all logits, without sorting them: whole buckets of probability first, only the bucket
 * in which top_p is reached is put in order. The candidates come into s->v; their number. */
static size_t take_top_p(ash_sampler *s, const float *logits, float max)
{
    double mass[BUCKETS] = {0}, sum = 0, have = 0;
    for (int64_t i = 0; i < s->n_usable; i++)
        mass[bucket_of(logits[i], max)] += (double)expf(logits[i] - max);
    for (int b = 0; b < BUCKETS; b++) sum += mass[b];
    int last = 0;
    while (last < BUCKETS - 1 && have + mass[last] < s->p.top_p * sum) have += mass[last++];
    size_t sure = 0, maybe = (size_t)s->n_usable; /* from the front, and from the back */
    for (int64_t i = 0; i < s->n_usable; i++) {
        int b = bucket_of(logits[i], max);
        if (b < last)
            s->v[sure++] = (cand){logits[i], (int32_t)i};
        else if (b == last)
            s->v[--maybe] = (cand){logits[i], (int32_t)i};
    }
    size_t n = (size_t)s->n_usable - maybe;
    cand *edge = s->v + maybe;
    for (size_t i = n / 2; i-- > 0;) sift(edge, n, i);
    sort_heap(edge, n);
    for (size_t i = 0; i < n && (sure == 0 || have < s->p.top_p * sum); i++) {
        have += (double)expf(edge[i].logit - max);
        s->v[sure++] = edge[i];
    }
    return sure;
}

/* The logits that are at least `least` into s->v, in the order of ids; their number. */
static size_t take_from(ash_sampler *s, const float *logits, float least)
{
    size_t n = 0;
    for (int64_t i = 0; i < s->n_usable; i++)
        if (logits[i] >= least)
            s->v[n++] = (cand){logits[i], (int32_t)i};
    return n;
}

/* Top-k, top-p and min-p: the candidates that are left into s->v; their number. */
static size_t truncate_candidates(ash_sampler *s, const float *logits, float max)
{
    float least = s->p.min_p > 0 ? max + logf((float)s->p.min_p) : -INFINITY;
    size_t n, kept = 0;
    if (s->p.top_k > 0 && s->p.top_k < s->n_usable) {
        n = (size_t)s->p.top_k;
        take_top_k(s, logits, n);
        if (s->p.top_p < 1)
            n = cut_sorted(s->v, n, max, s->p.top_p);
    } else if (s->p.top_p < 1) {
        n = take_top_p(s, logits, max);
    } else {
        return take_from(s, logits, least);
    }
    for (size_t i = 0; i < n; i++)
        if (s->v[i].logit >= least)
            s->v[kept++] = s->v[i];
    return kept;
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
    float raw_max = 0, max;
    int rc = find_max(logits, s->n_usable, &raw_max, err);
    if (rc)
        return rc;
    out->n_top = 0;
    out->logprob = 0;
    double log_sum = 0;
    const float *raw = logits;
    if (s->p.logprobs) {
        log_sum = raw_logprobs(logits, s->n_usable, raw_max, (int)s->p.top_logprobs, out);
        if (s->raw)
            raw = memcpy(s->raw, logits, (size_t)s->n_usable * sizeof *raw);
    }
    max = raw_max;
    if (adjust(s, logits))
        rc = find_max(logits, s->n_usable, &max, err);
    if (rc)
        return ash_err_prefix(err, "after 'logit_bias' and penalties");
    if (s->p.temperature <= 0)
        out->id = greedy(logits, max);
    else
        out->id = draw(s, truncate_candidates(s, logits, max), max);
    s->drawn++;
    if (s->p.logprobs)
        out->logprob = (float)((double)(raw[out->id] - raw_max) - log_sum);
    return 0;
}
