/* Which experts of a mixture compute a token, and with what weights: a pure function of the router's
 * logits. Any thread.
 *
 *   scores = softmax(logits) or sigmoid(logits)
 *   choice = scores + bias
 *   groups: of `groups` groups of experts the best `used_groups` stay; a group is worth its best choice,
 *           or with a bias the sum of its two best; the other groups' experts cannot be chosen
 *   chosen: the `used` experts of the best choice; of equal ones that of the lower index
 *   weight = score (without the bias), divided by the sum of the chosen ones' if `normalise`, times scale
 *
 * This is DeepSeek-V2's greedy (one group) and group_limited_greedy, and DeepSeek-V3's noaux_tc
 * (inference/model.py, class Gate; Liu et al. 2024, sections 2.1.2 and 2.1.3; DeepSeek-V3 2.1.2). */
#ifndef ASHLEY_NN_ROUTER_H
#define ASHLEY_NN_ROUTER_H

#include "base/err.h"
#include "base/limits.h"

typedef enum ash_router_score {
    ASH_ROUTER_SOFTMAX,
    ASH_ROUTER_SIGMOID,
} ash_router_score;

typedef struct ash_router {
    int experts, used;       /* 1 <= used <= experts <= ASH_MAX_EXPERTS */
    int groups, used_groups; /* groups divides experts; 1 and 1: no groups */
    ash_router_score score;
    bool normalise;
    float scale;
} ash_router;

/* ASH_EINVAL unless the numbers are in range and the groups that are used hold `used` experts. */
int ash_router_check(const ash_router *r, ash_err *err) ASH_MUST_CHECK;
/* ids [used] ascending, each once, and weights [used] from logits [experts]. bias [experts] or NULL.
 * Whatever the logits (NaN too), the ids are experts. */
void ash_router_pick(const ash_router *r, const float *bias, const float *logits, int32_t *ids,
                     float *weights);

#endif
