/* Weeks of made-up traffic on a policy: what is loaded, and how long requests wait. No thread, no clock, no
 * model: events in order, from one seed. */
#ifndef ASHLEY_TESTS_RESIDENCY_WEEKS_H
#define ASHLEY_TESTS_RESIDENCY_WEEKS_H

#include "residency/policy.h"

enum { WEEKS_MOST_MODELS = 10 };

typedef struct weeks_request {
    int64_t at_ms;
    int64_t takes_ms; /* how long it uses its model */
    size_t model;
} weeks_request;

typedef struct weeks_traffic {
    const char *name;
    const ash_policy_model *models; /* id, bytes, bring_back_s, pinned, preload, required */
    size_t n;
    uint64_t budget;
    weeks_request *requests; /* by time; owned */
    size_t n_requests, room;
} weeks_traffic;

/* As ash_policy_admit, for requests on demand. */
typedef ash_policy_decision (*weeks_policy)(uint64_t budget, const ash_policy_model *models, size_t n,
                                            size_t wanted, int64_t now_ms, size_t *list);

typedef struct weeks_result {
    size_t loads;
    double load_s;             /* all loads together */
    double mean_wait_s, p99_s; /* from a request's arrival to its model, of all requests */
    size_t worst_over;         /* times that the residents were over the budget: must be 0 */
    size_t unanswered;         /* must be 0 */
} weeks_result;

/* Runs the whole traffic; the preloads are there at first as far as they fit. */
weeks_result weeks_run(const weeks_traffic *t, weeks_policy policy);

/* The least seconds of loading with which any policy can answer the requests in the order of their arrival,
 * knowing all of them beforehand: exact, by dynamic programming over the sets of models that fit the budget.
 * (Belady's rule is optimal for pages of one size; for sizes and costs the problem is NP-hard in the number
 * of models, and ten of them are 1,024 sets.) Requests take no time and nobody is young or in use there,
 * so a policy that has to mind these can only be worse, unless it changes the order. */
double weeks_hindsight(const weeks_traffic *t);

/* What most servers do: the least recently used of those that nobody uses go until there is room. */
ash_policy_decision weeks_lru(uint64_t budget, const ash_policy_model *models, size_t n, size_t wanted,
                              int64_t now_ms, size_t *list);
ash_policy_decision weeks_ours(uint64_t budget, const ash_policy_model *models, size_t n, size_t wanted,
                               int64_t now_ms, size_t *list);

enum { WEEKS_SHAPES = 5 };
/* The traffic of a shape; release it by free(t.requests). */
weeks_traffic weeks_make(int shape, uint64_t seed);

#endif
