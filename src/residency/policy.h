/* Which models go when memory is wanted: a pure function of the figures, without clock, lock or model.
 *
 * The rule. Never go: what is pinned, in use, or loading. Of the rest, required preloads go last. Then
 * the least worth goes first, where the worth of a model to each of its bytes is
 *
 *     seconds to bring it back / bytes * (1 / time since its last use + uses in the last day / a day)
 *
 * The last factor is the chance that it is wanted in the next moment: what was just used comes back soon,
 * what rests goes on resting, and what is used every day comes back some time. So what is long idle, cheap
 * to bring back and large goes first. Equals go in the order of their names. What turns out not to be
 * needed, because something larger went too, stays.
 *
 * Minimum residence: the time it takes to bring the model back, at least 2 s, at most 60 s. Until then
 * a model goes only when it has rested for a quarter of that: two models that are wanted by turns spend
 * at least as long answering as loading, and one that nobody asks for again makes room soon.
 *
 * Contention: a model in use that has had its minimum residence takes no new requests while another
 * waits for its room ("drain"). Those that come wait, and are answered together when it is back.
 *
 * Background loads (a preload, or one that was evicted and comes back) evict nothing that is a preload
 * itself or was used in the last minute, and drain nothing.
 *
 * Two loads at once. One that is wanted more begins beside one that is wanted less: a request does not wait
 * for the end of a preload, nor a required preload for that of another. Of two that are wanted alike the
 * second begins beside the first only where both are there sooner for it: the first leaves more than half of
 * the processors idle, so that it waits for the disk, and the second is known to take its bytes at less than
 * 4/5 of the rate at which that one gets them, so that it will compute. Else one after the other: two that
 * wait for one disk, or compute on the same processors, are both there only at the end. */
#ifndef ASHLEY_RESIDENCY_POLICY_H
#define ASHLEY_RESIDENCY_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How often a model is used: a count in which a use of a day ago has weight 1/e. */
typedef struct ash_policy_uses {
    double count; /* at at_ms */
    int64_t at_ms;
} ash_policy_uses;

/* One model. Times are milliseconds of one clock that never goes back. */
typedef struct ash_policy_model {
    const char *id;         /* unique; borrowed */
    uint64_t bytes;         /* what it takes, or would take */
    bool resident;          /* in memory, or its bytes are promised to a load */
    bool loading;           /* that load runs */
    bool pinned, preload, required;
    uint32_t leases;        /* requests that use it now */
    ash_policy_uses uses;
    int64_t last_use_ms;    /* resident: end of the last use, or of the load */
    int64_t loaded_ms;      /* resident: end of the load */
    double bring_back_s;    /* seconds a load takes */
} ash_policy_model;

typedef enum ash_policy_urgency {
    ASH_POLICY_BACKGROUND, /* nobody waits */
    ASH_POLICY_DEMAND,     /* somebody waits, or asked for the load */
} ash_policy_urgency;

typedef enum ash_policy_verdict {
    ASH_POLICY_ADMIT,  /* evict what is listed, then load */
    ASH_POLICY_WAIT,   /* ask again when leases end or at until_ms */
    ASH_POLICY_REFUSE, /* cannot fit, whoever leaves */
} ash_policy_verdict;

typedef enum ash_policy_reason {
    ASH_POLICY_FITS,      /* ADMIT: nothing has to go, or what is listed */
    ASH_POLICY_YOUNG,     /* WAIT: for the end of a minimum residence */
    ASH_POLICY_IN_USE,    /* WAIT: for requests or loads to end */
    ASH_POLICY_NOT_IDLE,  /* WAIT: a background load; what is there is not idle enough */
    ASH_POLICY_TOO_LARGE, /* REFUSE: more than the whole budget */
    ASH_POLICY_PINNED,    /* REFUSE: more than what pinned models leave */
} ash_policy_reason;

typedef struct ash_policy_decision {
    ash_policy_verdict verdict;
    ash_policy_reason reason;
    size_t n;             /* of the list: ADMIT: to evict, in this order; WAIT for use: to drain */
    int64_t until_ms;     /* WAIT: ask again then at the latest; INT64_MAX: only when something ends */
    uint64_t short_bytes; /* what had to go beyond the free bytes; REFUSE: what is missing at best */
    uint64_t pinned_bytes;
} ash_policy_decision;

/* How much a load is wanted, the least first. */
typedef enum ash_policy_standing {
    ASH_POLICY_OTHER,    /* a preload that is not required */
    ASH_POLICY_REQUIRED, /* readiness waits for it */
    ASH_POLICY_AWAITED,  /* somebody waits, or asked for the load */
} ash_policy_standing;

typedef struct ash_policy_load {
    ash_policy_standing standing;
    double rate; /* of file bytes a second: of the one that runs as it is now, of the next as it was alone;
                    0: not known */
} ash_policy_load;

enum { ASH_POLICY_LEAST_RESIDENCE_MS = 2000, ASH_POLICY_MOST_RESIDENCE_MS = 60000 };
enum { ASH_POLICY_BACKGROUND_IDLE_MS = 60000 };

/* Whether models[wanted], which is not resident, may be loaded into `budget` bytes. list has room for n
 * indices. Touches nothing else; the same figures in another order give the same names. */
ash_policy_decision ash_policy_admit(uint64_t budget, const ash_policy_model *models, size_t n, size_t wanted,
                                     ash_policy_urgency urgency, int64_t now_ms, size_t *list);
/* What goes so that the residents fit a budget that became smaller: as many of list, in order, as help.
 * Minimum residence does not count here: the kernel would not wait for it. Less than is needed where
 * the rest is pinned, in use or loading. */
size_t ash_policy_shrink(uint64_t budget, const ash_policy_model *models, size_t n, int64_t now_ms,
                         size_t *list);
/* The bytes of all residents; sums saturate. */
uint64_t ash_policy_resident(const ash_policy_model *models, size_t n);
/* The bytes that a load could have at most without waiting for requests and loads to end; young models count
 * as room, for they grow older. */
uint64_t ash_policy_room(uint64_t budget, const ash_policy_model *models, size_t n, size_t wanted,
                         ash_policy_urgency urgency, int64_t now_ms);
/* Whether `next` may begin while `running` runs; busy: the share of the processors in use, 0 to 1. */
bool ash_policy_beside(const ash_policy_load *running, const ash_policy_load *next, double busy);
/* Notes a use. */
void ash_policy_used(ash_policy_uses *u, int64_t now_ms);
int64_t ash_policy_residence_ms(const ash_policy_model *m);

#endif
