/* Owns the made-up traffic, its run against a policy, and the best in hindsight. */
#include "weeks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

/* ---- the run ---- */

typedef struct use {
    int64_t end_ms;
    size_t model;
} use;

typedef struct run {
    const weeks_traffic *t;
    weeks_policy policy;
    ash_policy_model m[WEEKS_MOST_MODELS];
    bool draining[WEEKS_MOST_MODELS];
    size_t waiting[WEEKS_MOST_MODELS], last[WEEKS_MOST_MODELS]; /* requests in a chain, SIZE_MAX: none */
    size_t *next;                                               /* of each request */
    use *uses;
    size_t n_uses, answered;
    size_t loading; /* model, SIZE_MAX: none */
    int64_t load_end_ms, timer_ms, now;
    double *waits; /* seconds, in the order of answering */
    weeks_result r;
} run;

static void lend(run *x, size_t request)
{
    const weeks_request *q = &x->t->requests[request];
    x->waits[x->answered++] = (double)(x->now - q->at_ms) * 1e-3;
    x->m[q->model].leases++;
    ash_policy_used(&x->m[q->model].uses, x->now);
    x->uses[x->n_uses++] = (use){x->now + q->takes_ms, q->model};
}

static void arrive(run *x, size_t request)
{
    size_t i = x->t->requests[request].model;
    if (x->m[i].resident && !x->m[i].loading && !x->draining[i]) {
        lend(x, request);
        return;
    }
    x->next[request] = SIZE_MAX;
    if (x->waiting[i] == SIZE_MAX)
        x->waiting[i] = request;
    else
        x->next[x->last[i]] = request;
    x->last[i] = request;
}

static void end_uses(run *x)
{
    for (size_t u = 0; u < x->n_uses;) {
        if (x->uses[u].end_ms > x->now) {
            u++;
            continue;
        }
        x->m[x->uses[u].model].leases--;
        x->m[x->uses[u].model].last_use_ms = x->now;
        x->uses[u] = x->uses[--x->n_uses];
    }
}

static void serve_waiting(run *x)
{
    for (size_t i = 0; i < x->t->n; i++) {
        if (!x->m[i].resident || x->m[i].loading || x->draining[i]) continue;
        for (; x->waiting[i] != SIZE_MAX; x->waiting[i] = x->next[x->waiting[i]]) lend(x, x->waiting[i]);
    }
}

/* The model that is not there and whose first request waits longest, but none of `tried`. */
static size_t oldest_waiting(const run *x, const bool *tried)
{
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < x->t->n; i++)
        if (!tried[i] && !x->m[i].resident && x->waiting[i] != SIZE_MAX &&
            (best == SIZE_MAX || x->waiting[i] < x->waiting[best]))
            best = i;
    return best;
}

static void start_load(run *x, size_t i, const size_t *list, size_t n)
{
    for (size_t k = 0; k < n; k++) x->m[list[k]].resident = false;
    x->m[i].resident = x->m[i].loading = true;
    x->loading = i;
    x->load_end_ms = x->now + (int64_t)(x->m[i].bring_back_s * 1e3);
    x->r.loads++;
    x->r.load_s += x->m[i].bring_back_s;
    x->r.worst_over += ash_policy_resident(x->m, x->t->n) > x->t->budget;
    memset(x->draining, 0, sizeof x->draining);
}

/* One loader, as in the manager: in the order of waiting; who needs nobody's room may go before. */
static void dispatch(run *x)
{
    bool tried[WEEKS_MOST_MODELS] = {0}, first = true;
    size_t list[WEEKS_MOST_MODELS], i;
    x->timer_ms = INT64_MAX;
    if (x->loading != SIZE_MAX) return;
    memset(x->draining, 0, sizeof x->draining);
    for (; (i = oldest_waiting(x, tried)) != SIZE_MAX; first = false) {
        tried[i] = true;
        ash_policy_decision d = x->policy(x->t->budget, x->m, x->t->n, i, x->now, list);
        if (d.verdict == ASH_POLICY_ADMIT && (first || !d.n)) {
            start_load(x, i, list, d.n);
            return;
        }
        if (!first || d.verdict != ASH_POLICY_WAIT) continue;
        x->timer_ms = d.until_ms;
        for (size_t k = 0; k < d.n; k++) x->draining[list[k]] = true;
    }
}

static int64_t next_moment(const run *x, size_t next_request)
{
    int64_t at = x->timer_ms;
    if (next_request < x->t->n_requests && x->t->requests[next_request].at_ms < at)
        at = x->t->requests[next_request].at_ms;
    if (x->loading != SIZE_MAX && x->load_end_ms < at) at = x->load_end_ms;
    for (size_t u = 0; u < x->n_uses; u++)
        if (x->uses[u].end_ms < at) at = x->uses[u].end_ms;
    return at;
}

static void begin(run *x)
{
    uint64_t used = 0;
    for (size_t i = 0; i < x->t->n; i++) {
        x->m[i] = x->t->models[i];
        x->waiting[i] = SIZE_MAX;
        x->m[i].resident = x->m[i].preload && used + x->m[i].bytes <= x->t->budget;
        used += x->m[i].resident ? x->m[i].bytes : 0;
    }
    x->loading = SIZE_MAX;
    x->timer_ms = INT64_MAX;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

weeks_result weeks_run(const weeks_traffic *t, weeks_policy policy)
{
    run x = {.t = t, .policy = policy};
    size_t n = t->n_requests, r = 0;
    x.next = calloc(n, sizeof *x.next);
    x.uses = calloc(n, sizeof *x.uses);
    x.waits = calloc(n, sizeof *x.waits);
    begin(&x);
    for (int64_t at; (at = next_moment(&x, r)) != INT64_MAX;) {
        x.now = at > x.now ? at : x.now;
        end_uses(&x);
        if (x.loading != SIZE_MAX && x.load_end_ms <= x.now) {
            ash_policy_model *m = &x.m[x.loading];
            m->loading = false;
            m->loaded_ms = m->last_use_ms = x.now;
            x.loading = SIZE_MAX;
            serve_waiting(&x);
        }
        for (; r < n && t->requests[r].at_ms <= x.now; r++) arrive(&x, r);
        dispatch(&x);
        serve_waiting(&x);
    }
    x.r.unanswered = n - x.answered;
    for (size_t i = 0; i < x.answered; i++) x.r.mean_wait_s += x.waits[i] / (double)n;
    qsort(x.waits, x.answered, sizeof *x.waits, by_value);
    x.r.p99_s = x.answered ? x.waits[x.answered * 99 / 100] : 0.0;
    free(x.next);
    free(x.uses);
    free(x.waits);
    return x.r;
}

/* ---- the best in hindsight ---- */

static bool fits(const weeks_traffic *t, size_t set)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < t->n; i++) {
        sum += set >> i & 1 ? t->models[i].bytes : 0;
        if (t->models[i].pinned && !(set >> i & 1)) return false;
    }
    return sum <= t->budget;
}

double weeks_hindsight(const weeks_traffic *t)
{
    size_t sets = (size_t)1 << t->n, start = 0, before = SIZE_MAX;
    double *cost = malloc(sets * sizeof *cost), *drop = malloc(sets * sizeof *drop);
    bool *ok = malloc(sets);
    for (size_t i = 0; i < t->n; i++) /* as begin() */
        if (t->models[i].preload && fits(t, start | (size_t)1 << i)) start |= (size_t)1 << i;
    for (size_t s = 0; s < sets; s++) {
        ok[s] = fits(t, s);
        cost[s] = s == start ? 0.0 : HUGE_VAL;
    }
    for (size_t r = 0; r < t->n_requests; r++) {
        size_t m = t->requests[r].model, bit = (size_t)1 << m;
        if (m == before) continue;
        before = m;
        /* drop[s]: the least cost of having at least the models of s before, and m not */
        for (size_t s = 0; s < sets; s++) drop[s] = s & bit ? HUGE_VAL : cost[s];
        for (size_t i = 0; i < t->n; i++)
            for (size_t s = 0; s < sets; s++)
                if (!(s >> i & 1)) drop[s] = fmin(drop[s], drop[s | (size_t)1 << i]);
        for (size_t s = 0; s < sets; s++)
            cost[s] = !(s & bit) || !ok[s] ? HUGE_VAL
                                           : fmin(cost[s], drop[s ^ bit] + t->models[m].bring_back_s);
    }
    double best = HUGE_VAL;
    for (size_t s = 0; s < sets; s++) best = fmin(best, cost[s]);
    free(cost);
    free(drop);
    free(ok);
    return best;
}

/* ---- policies ---- */

ash_policy_decision weeks_ours(uint64_t budget, const ash_policy_model *models, size_t n, size_t wanted,
                               int64_t now_ms, size_t *list)
{
    return ash_policy_admit(budget, models, n, wanted, ASH_POLICY_DEMAND, now_ms, list);
}

ash_policy_decision weeks_lru(uint64_t budget, const ash_policy_model *models, size_t n, size_t wanted,
                              int64_t now_ms, size_t *list)
{
    ash_policy_decision d = {.until_ms = INT64_MAX};
    uint64_t total = ash_policy_resident(models, n) + models[wanted].bytes;
    bool gone[WEEKS_MOST_MODELS] = {0};
    while (total > budget) {
        size_t oldest = SIZE_MAX;
        for (size_t i = 0; i < n; i++)
            if (models[i].resident && !models[i].leases && !models[i].pinned && !models[i].loading &&
                !gone[i] && (oldest == SIZE_MAX || models[i].last_use_ms < models[oldest].last_use_ms))
                oldest = i;
        if (oldest == SIZE_MAX) {
            d.verdict = ASH_POLICY_WAIT;
            d.n = 0;
            return d;
        }
        gone[oldest] = true;
        list[d.n++] = oldest;
        total -= models[oldest].bytes;
    }
    return d;
}

/* ---- traffic ---- */

static const int64_t SECOND = 1000, HOUR = 3600 * 1000, DAY = 24 * 3600 * 1000;
enum { DAYS = 28 };

#define MB(x) ((uint64_t)(x) * 1000000)

/* Sizes as of the catalogue; the times are made up, but of the right order: from the page cache, from a pack
 * on a disk, or with packing. */
static const ash_policy_model fleet[WEEKS_MOST_MODELS] = {
    {.id = "small", .bytes = MB(250), .bring_back_s = 0.3, .preload = true, .required = true},
    {.id = "1b", .bytes = MB(1100), .bring_back_s = 1.2},
    {.id = "3b", .bytes = MB(2600), .bring_back_s = 4.0},
    {.id = "7b-gptq", .bytes = MB(5100), .bring_back_s = 6.0, .preload = true},
    {.id = "7b-gptq-unpacked", .bytes = MB(5100), .bring_back_s = 25.0},
    {.id = "7b-bf16", .bytes = MB(14500), .bring_back_s = 40.0},
    {.id = "7b-gguf", .bytes = MB(5300), .bring_back_s = 3.0},
    {.id = "13b-gptq-a", .bytes = MB(8600), .bring_back_s = 12.0},
    {.id = "13b-gptq-b", .bytes = MB(8600), .bring_back_s = 12.0},
    {.id = "13b-unpacked", .bytes = MB(8600), .bring_back_s = 45.0},
};

static double wait_for(ash_rng *r, double mean_ms)
{
    return -log(1.0 - ash_rng_f64(r)) * mean_ms;
}

static void add_request(weeks_traffic *t, ash_rng *r, double at_ms, size_t model)
{
    if (t->n_requests == t->room) {
        t->room = t->room ? 2 * t->room : 1024;
        t->requests = realloc(t->requests, t->room * sizeof *t->requests);
    }
    int64_t takes = 1 * SECOND + (int64_t)wait_for(r, 6.0 * (double)SECOND);
    t->requests[t->n_requests++] = (weeks_request){(int64_t)at_ms, takes, model};
}

static size_t zipf(ash_rng *r, const size_t *order, size_t n, double s)
{
    double sum = 0.0, u;
    for (size_t i = 0; i < n; i++) sum += pow((double)(i + 1), -s);
    u = ash_rng_f64(r) * sum;
    for (size_t i = 0; i < n; i++)
        if ((u -= pow((double)(i + 1), -s)) < 0.0) return order[i];
    return order[n - 1];
}

/* Each model has its hours of the day. */
static void daily(weeks_traffic *t, ash_rng *r)
{
    static const double every_s[WEEKS_MOST_MODELS] = {240, 600, 500, 400, 1500, 6000, 1200, 2500, 4000, 9000};
    for (size_t m = 0; m < t->n; m++)
        for (double at = 0.0; (at += wait_for(r, every_s[m] * 1e3 / 2.0)) < (double)DAYS * (double)DAY;) {
            double hour = fmod(at / (double)HOUR, 24.0), peak = fmod(9.0 + 5.0 * (double)m, 24.0);
            double wave = 0.5 + 0.5 * cos((hour - peak) * 2.0 * 3.141592653589793 / 24.0);
            if (ash_rng_f64(r) < wave * wave) add_request(t, r, at, m);
        }
}

/* Somebody sits down, takes a model, and asks it for a while. */
static void sessions(weeks_traffic *t, ash_rng *r, double every_ms, size_t n_popular)
{
    static const size_t order[WEEKS_MOST_MODELS] = {3, 2, 7, 6, 1, 4, 8, 0, 9, 5};
    for (double at = 0.0; (at += wait_for(r, every_ms)) < (double)DAYS * (double)DAY;) {
        size_t m = zipf(r, order, n_popular, 1.0);
        double when = at;
        for (int k = 4 + (int)(ash_rng_f64(r) * 20.0); k > 0; k--) {
            add_request(t, r, when, m);
            when += wait_for(r, 45.0 * (double)SECOND);
        }
    }
}

/* Two models of which one fits: two hours a day both are wanted every 20 s. */
static void contend(weeks_traffic *t, ash_rng *r)
{
    for (size_t m = 7; m <= 9; m += 2)
        for (int day = 0; day < DAYS; day++) {
            double from = (double)day * (double)DAY + 10.0 * (double)HOUR;
            for (double at = from; (at += wait_for(r, 20.0 * (double)SECOND)) < from + 2.0 * (double)HOUR;)
                add_request(t, r, at, m);
        }
}

static void long_tail(weeks_traffic *t, ash_rng *r)
{
    static const size_t order[WEEKS_MOST_MODELS] = {0, 3, 1, 6, 7, 2, 4, 8, 9, 5};
    for (double at = 0.0; (at += wait_for(r, 150.0 * (double)SECOND)) < (double)DAYS * (double)DAY;)
        add_request(t, r, at, zipf(r, order, t->n, 1.3));
}

/* Every night something asks each model in turn, as an evaluation does. */
static void sweep(weeks_traffic *t, ash_rng *r)
{
    sessions(t, r, 40.0 * 60.0 * (double)SECOND, 4);
    for (int day = 0; day < DAYS; day++)
        for (size_t m = 0; m < t->n; m++)
            for (int k = 0; k < 3; k++)
                add_request(t, r,
                            (double)day * (double)DAY + 2.0 * (double)HOUR + (double)(m * 6 + k) * 60.0 * 1e3,
                            m);
}

static int by_time(const void *a, const void *b)
{
    const weeks_request *x = a, *y = b;
    if (x->at_ms != y->at_ms) return x->at_ms < y->at_ms ? -1 : 1;
    return x->model != y->model ? (x->model < y->model ? -1 : 1) : 0;
}

weeks_traffic weeks_make(int shape, uint64_t seed)
{
    static const char *const names[WEEKS_SHAPES] = {"daily pattern", "sessions", "two contending models",
                                                    "long tail", "sessions and a nightly sweep"};
    weeks_traffic t = {.name = names[shape], .models = fleet, .n = WEEKS_MOST_MODELS};
    ash_rng r;
    ash_rng_init(&r, seed);
    t.budget = MB(shape == 2 ? 15000 : 20000);
    switch (shape) {
    case 0:
        daily(&t, &r);
        break;
    case 1:
        sessions(&t, &r, 25.0 * 60.0 * (double)SECOND, WEEKS_MOST_MODELS);
        break;
    case 2:
        contend(&t, &r);
        break;
    case 3:
        long_tail(&t, &r);
        break;
    default:
        sweep(&t, &r);
    }
    qsort(t.requests, t.n_requests, sizeof *t.requests, by_time);
    return t;
}
