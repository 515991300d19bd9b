/* The routed experts of a model larger than memory: those used most are kept, the others are read
 * from the pack file when a batch has chosen them, and the coming ones ahead.
 *
 * The model's region is reserved address space in which every weight has its place, so that nothing
 * else knows of it: an expert comes by reads straight into its pages (O_DIRECT: no copy stays in
 * the page cache) and goes by giving the pages back. What is not a routed expert's is read once and
 * stays. An expert's heat is how often it was chosen, halved every HALF_LIFE steps of the model
 * (expert_cache.c); the coldest goes first, of some drawn by lot (as many as make the choice near
 * the best: Redis' approximated LFU).
 *
 * All calls but the statistics come from one thread at a time, which is the forward's. */
#ifndef ASHLEY_ENGINE_EXPERT_CACHE_H
#define ASHLEY_ENGINE_EXPERT_CACHE_H

#include <stdatomic.h>

#include "arch/bind.h"
#include "nn/moe.h"

typedef struct ash_expert_cache ash_expert_cache;

/* Sizes, from a plan. */
typedef struct ash_expert_sizes {
    uint64_t fixed;   /* bytes of what is always in memory */
    uint64_t experts; /* bytes of all routed experts */
    uint64_t largest; /* bytes of the largest one */
    int32_t
        n; /* experts of all layers; 0: the model has none, or they are too small to come and go */
} ash_expert_sizes;
void ash_expert_sizes_of(const ash_binding *b, ash_expert_sizes *out);
/* Bytes in which the model runs at all: what is fixed, and two experts. */
uint64_t ash_expert_least(const ash_expert_sizes *s);

typedef struct ash_expert_counts {
    uint64_t chosen, found;   /* experts asked for; those less what was read, ahead or not */
    uint64_t token_chosen, token_found; /* of these, of batches of one token since the room was first full:
                                           what decoding meets, without the reads of a cold start */
    uint64_t read_bytes;
    uint64_t foreseen, right; /* choices foreseen a layer ahead; of those, made */
    uint64_t wait_ns;         /* forwards waited for the disk */
    uint64_t resident;        /* bytes of experts in memory, or coming in */
} ash_expert_counts;

/* b: planned. region: reserved address space of b->bytes, private, nothing in it yet; borrowed
 * until close. fd: the data of the region, from `at` on, opened with O_DIRECT if the file system
 * knows it; borrowed. budget: bytes of experts that may be in memory, at least two of the largest.
 * Reads what is fixed; ASH_ENOSPC, ASH_ENOMEM, ASH_EIO, ASH_EFORMAT (the file is cut),
 * ASH_ECANCELED after *cancel (may be NULL). */
int ash_expert_cache_open(const ash_binding *b, char *region, int fd, uint64_t at, uint64_t budget,
                          const atomic_bool *cancel, ash_expert_cache **out,
                          ash_err *err) ASH_MUST_CHECK;
/* For ash_run.experts. */
const ash_moe_supply *ash_expert_cache_supply(const ash_expert_cache *c);
/* True once a read has failed: what was computed since then means nothing. Any thread. */
bool ash_expert_cache_lost(const ash_expert_cache *c); /* NULL is fine */
void ash_expert_cache_counts(const ash_expert_cache *c,
                             ash_expert_counts *out); /* any thread; NULL is fine */
void ash_expert_cache_close(ash_expert_cache *c);     /* waits for reads in flight; NULL is fine */

#endif
