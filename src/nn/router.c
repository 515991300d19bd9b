/* Owns the choice of experts. Refuses numbers out of range. Any thread. */
#include "nn/router.h"

#include <math.h>

int ash_router_check(const ash_router *r, ash_err *err)
{
    if (r->experts < 1 || r->experts > ASH_MAX_EXPERTS || r->used < 1 || r->used > r->experts)
        return ash_err_set(err, ASH_EINVAL, "%d of %d experts a token: expected 1 or more, of up to %d",
                           r->used, r->experts, ASH_MAX_EXPERTS);
    if (r->groups < 1 || r->experts % r->groups || r->used_groups < 1 || r->used_groups > r->groups ||
        r->used > r->experts / r->groups * r->used_groups)
        return ash_err_set(err, ASH_EINVAL,
                           "%d of %d expert groups: expected groups of equal size, of which those used hold "
                           "%d of %d experts", r->used_groups, r->groups, r->used, r->experts);
    if (!isfinite(r->scale))
        return ash_err_set(err, ASH_EINVAL, "experts' weights times %g: expected a finite number",
                           (double)r->scale);
    return 0;
}

static void score(const ash_router *r, const float *logits, float *scores)
{
    if (r->score == ASH_ROUTER_SIGMOID) {
        for (int i = 0; i < r->experts; i++) scores[i] = 1.0f / (1.0f + expf(-logits[i]));
        return;
    }
    float top = logits[0], sum = 0;
    for (int i = 1; i < r->experts; i++) top = fmaxf(top, logits[i]);
    for (int i = 0; i < r->experts; i++) sum += scores[i] = expf(logits[i] - top);
    for (int i = 0; i < r->experts; i++) scores[i] /= sum;
}

/* The first of the largest of v [n] that are not taken; n > 0 and one is not. */
static int best(const float *v, const bool *taken, int n)
{
    int at = -1;
    for (int i = 0; i < n; i++)
        if (!taken[i] && (at < 0 || v[i] > v[at]))
            at = i;
    return at;
}

/* Marks the k largest of v [n]. */
static void take_best(const float *v, int n, int k, bool *taken)
{
    for (int i = 0; i < n; i++) taken[i] = false;
    for (int i = 0; i < k; i++) taken[best(v, taken, n)] = true;
}

static float worth(const float *choice, int size, bool two)
{
    bool taken[ASH_MAX_EXPERTS];
    take_best(choice, size, two && size > 1 ? 2 : 1, taken);
    float sum = 0;
    for (int i = 0; i < size; i++) sum += taken[i] ? choice[i] : 0.0f;
    return sum;
}

/* Takes the experts of all but the best groups out of the choice. */
static void limit_groups(const ash_router *r, bool two, float *choice)
{
    float worths[ASH_MAX_EXPERTS];
    bool taken[ASH_MAX_EXPERTS];
    int size = r->experts / r->groups;
    for (int g = 0; g < r->groups; g++) worths[g] = worth(choice + g * size, size, two);
    take_best(worths, r->groups, r->used_groups, taken);
    for (int i = 0; i < r->experts; i++)
        if (!taken[i / size])
            choice[i] = -INFINITY; /* not 0: a bias may leave all of the best ones below that */
}

void ash_router_pick(const ash_router *r, const float *bias, const float *logits, int32_t *ids,
                     float *weights)
{
    float scores[ASH_MAX_EXPERTS], choice[ASH_MAX_EXPERTS] = {0}, sum = 0;
    bool taken[ASH_MAX_EXPERTS];
    int n = 0;
    score(r, logits, scores);
    for (int i = 0; i < r->experts; i++) choice[i] = bias ? scores[i] + bias[i] : scores[i];
    if (r->used_groups < r->groups)
        limit_groups(r, bias != NULL, choice);
    take_best(choice, r->experts, r->used, taken);
    for (int i = 0; i < r->experts; i++) {
        if (!taken[i])
            continue;
        ids[n] = i;
        weights[n++] = scores[i];
        sum += scores[i];
    }
    float factor = r->normalise ? r->scale / (sum + 1e-20f) : r->scale;
    for (int i = 0; i < n; i++) weights[i] *= factor;
}
