/* What a list of models will take of memory, disk and time, before anything moves: from facts to a plan.
 *
 * A pure function: no file, no clock, no network. The facts come from headers, listings and the kernel
 * (cli/plan_facts.h); here they are added up in the order in which the manager loads them. Any
 * thread. */
#ifndef ASHLEY_RESIDENCY_PLAN_H
#define ASHLEY_RESIDENCY_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "residency/fit.h"

enum { ASH_PLAN_MAX = 128 }; /* entries of a plan */

/* A size that nobody knows. */
#define ASH_PLAN_UNKNOWN_BYTES UINT64_MAX

typedef enum ash_plan_verdict {
    ASH_PLAN_READY,     /* all files are here, and it fits */
    ASH_PLAN_FITS,      /* files have to be fetched first, and it fits */
    ASH_PLAN_CONSENT,   /* it has a warning that nobody accepted: nothing is fetched */
    ASH_PLAN_NO_MEMORY, /* it does not fit the memory beside those before it */
    ASH_PLAN_NO_DISK,   /* what has to be fetched does not fit the disk */
    ASH_PLAN_ABSENT,    /* nobody knows it, or its files are not to be had */
    ASH_PLAN_REFUSED,   /* its files cannot be used: the reason is the reader's */
    ASH_PLAN_UNKNOWN,   /* how much has to be fetched, or what it takes, is not known */
    ASH_PLAN_NO_ACCESS, /* the hub does not give it to this token */
} ash_plan_verdict;
/* "ready", "fits", "consent_needed", "does_not_fit_memory", "does_not_fit_disk", "not_found", "refused",
 * "unknown", "no_access". */
const char *ash_plan_verdict_name(ash_plan_verdict v);

/* What is known of one model. Bytes may be ASH_PLAN_UNKNOWN_BYTES where the comment allows it. */
typedef struct ash_plan_facts {
    bool absent, refused, no_access; /* then nothing else counts */
    bool needs_consent;   /* and has none; counts only if something has to be fetched */
    bool pin, required;   /* as the manager is told: required ones come first */
    uint64_t fetch_bytes; /* to be fetched; 0: all is here; may be unknown */
    uint64_t fixed_bytes; /* weights, scratch and draft model, and what was measured beyond; may be unknown */
    uint64_t draft_bytes; /* of those, of the draft model, which is left out where it has no room */
    uint64_t kv_bytes;    /* the usual KV pool, */
    uint64_t kv_least;    /* and the smallest one that serves: a context */
    uint64_t load_bytes;  /* taken only while it loads */
    uint64_t read_bytes;  /* read from disk by the load */
    double load_seconds;  /* the last load took; 0: not measured */
    uint64_t expert_bytes;       /* of fixed_bytes, of experts that may come and go; 0: none do */
    uint64_t expert_least;       /* of those, in memory at least */
    uint64_t pack_bytes;         /* of disk for the pack file that they come from; 0: it is there */
    uint64_t token_bytes;        /* of the weights, what decoding a token reads; 0: not known */
    uint64_t token_expert_bytes; /* of those, of experts that may come and go */
    ash_fit_known found;         /* what they were measured to find of them in memory */
} ash_plan_facts;

/* What there is. Rates in bytes a second; 0: not measured. */
typedef struct ash_plan_machine {
    uint64_t memory;       /* that models may take */
    uint64_t disk_free;
    uint64_t disk_reserve; /* of it stays free */
    uint64_t state_free;   /* that pack files may take more (engine/pack_room.h) */
    bool one_disk;         /* they lie on the disk of the models, */
    uint64_t fetch_share;  /* and one in so many bytes that are fetched is taken from state_free; 0: none */
    double fetch_rate, read_rate, memory_rate;
} ash_plan_machine;

typedef struct ash_plan_entry {
    ash_plan_verdict verdict;
    uint64_t fetch_bytes;    /* as in the facts */
    uint64_t disk_after;     /* free once this and all before it were fetched */
    uint64_t kv_bytes;       /* the pool that it gets */
    uint64_t draft_bytes;    /* as in the facts, or 0: it has no room */
    uint64_t pack_bytes;     /* of disk for its pack file: experts come and go, and it is not there */
    bool streams;            /* experts come and go (engine/expert_cache.h) */
    double experts_room;     /* of the experts' bytes the share that is in memory at once; 1: all are */
    double experts_found;    /* of those chosen the share that will be found there (residency/fit.h), */
    ash_fit_basis found_basis; /* and from what that is known */
    double tokens_per_second; /* decoding one sequence, at most; 0: not known */
    uint64_t resident_bytes; /* of it alone, loaded; may be unknown */
    uint64_t peak_bytes;     /* of it alone, while it loads; may be unknown */
    uint64_t short_bytes;    /* what is missing, of memory or disk, where it does not fit */
    double fetch_seconds, load_seconds; /* negative: not known */
    bool load_measured;      /* load_seconds is what the last load took; else the disk's rate says it */
} ash_plan_entry;

typedef struct ash_plan_total {
    uint64_t fetch_bytes;    /* of all that are fetched; unknown sizes are not in it */
    uint64_t disk_after;
    uint64_t resident_bytes; /* of all that are loaded in the end */
    uint64_t peak_bytes;     /* most at any time */
    double seconds;          /* of all; negative: of one it is not known */
    bool fits;               /* no entry is ASH_PLAN_NO_MEMORY or ASH_PLAN_NO_DISK */
} ash_plan_total;

/* Plans facts[0..n), n at most ASH_PLAN_MAX, required ones first, else in that order: out[n] and *total are
 * the caller's.
 *
 * An entry that does not fit, waits for consent, has no size that is known, or cannot be used takes nothing,
 * and nobody leaves room for it. Disk is admitted over all fetches together. Memory: all are preloads, and a
 * preload has the room that those before it leave (ash_policy_room): none of them goes for it. What it gets
 * of that beside those after it is residency/fit.h. The bytes that it takes only while it loads are no part
 * of the budget, as they are none of the server's: peak_bytes has them, and so may be more than the memory.
 *
 * Rates: a token takes what its weights take to be read from memory, and beside that, where experts come and
 * go, what the disk takes for those not in memory. */
void ash_plan_make(const ash_plan_machine *m, const ash_plan_facts *facts, size_t n, ash_plan_entry *out,
                   ash_plan_total *total);

#endif
