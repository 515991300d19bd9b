/* Owns which experts are in memory, and the reads that bring them. Never more than its budget. */
#include "engine/expert_cache.h"

#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/reads.h"
#include "base/rng.h"

enum {
    PAGE = 4096,
    MATRICES = 3, /* of an expert: gate, up, down */
    DEPTH = 64,   /* reads in flight */
    FIXED_READ = 4 << 20,
    FIXED_AT_ONCE = 16,
    DRAWN = 48,            /* experts among which the coldest goes */
    HALF_LIFE = 128,       /* steps */
    WORTH_FORESEEING = 50, /* percent of right choices: below, the disk has better to do */
};

typedef struct extent {
    uint64_t offset, bytes; /* whole pages of the region */
    int state;              /* of the read that brings them (base/reads.h) */
} extent;

typedef enum presence {
    ABSENT,
    COMING,
    PRESENT,
} presence;

typedef struct expert {
    extent parts[MATRICES];
    uint64_t bytes;
    presence presence;
    float heat; /* at step `touched` */
    uint64_t touched;
    uint64_t kept;     /* until the hold after this one it may not leave: held, or expected since */
    uint64_t foreseen; /* the step in which it was last foreseen */
    int32_t place;     /* in `here` */
} expert;

struct ash_expert_cache {
    ash_moe_supply supply;
    char *region;
    int fd;
    uint64_t at, budget, resident;
    int32_t n_layers, n_experts; /* of a layer */
    expert *experts;             /* [n_layers][n_experts] */
    int32_t *here, n_here;       /* those not ABSENT */
    uint64_t step, hold;         /* forwards; calls of hold */
    int last_layer;
    bool full;              /* an expert has had to leave */
    uint64_t reads_held;    /* reads_begun when the last hold was over */
    ash_reads *reads;
    ash_rng rng;
    atomic_bool lost;
    atomic_ullong chosen, reads_begun, token_chosen, token_reads;
    atomic_ullong read_bytes, foreseen, right, wait_ns, resident_shown;
};

/* ---- sizes ---------------------------------------------------------------------------------- */

/* The pages of an item that are its alone; what is left at the end, less than a page, stays. */
static extent pages_of(const ash_bind_item *it)
{
    if (!it->expert || !it->apart) return (extent){0};
    return (extent){.offset = it->offset, .bytes = it->bytes / PAGE * PAGE};
}

void ash_expert_sizes_of(const ash_binding *b, ash_expert_sizes *out)
{
    *out = (ash_expert_sizes){.fixed = b->bytes};
    uint64_t most = 0, n = 0;
    for (size_t i = 0; i < b->n_items; i++) {
        uint64_t bytes = pages_of(&b->items[i]).bytes;
        out->experts += bytes;
        most = bytes > most ? bytes : most;
        n += bytes > 0;
    }
    out->fixed -= out->experts;
    out->n = (int32_t)(n / MATRICES);
    out->largest = most * MATRICES;
}

uint64_t ash_expert_least(const ash_expert_sizes *s)
{
    return s->fixed + 2 * s->largest;
}

/* ---- coming and going ----------------------------------------------------------------------- */

static float heat_now(const ash_expert_cache *c, const expert *e)
{
    uint64_t halves = (c->step - e->touched) / HALF_LIFE;
    return halves > 30 ? 0 : e->heat / (float)(1u << halves);
}

static void leave(ash_expert_cache *c, expert *e)
{
    for (int i = 0; i < MATRICES; i++)
        if (e->parts[i].bytes)
            madvise(c->region + e->parts[i].offset, e->parts[i].bytes, MADV_DONTNEED);
    c->resident -= e->bytes;
    c->full = true;
    e->presence = ABSENT;
    int32_t last = c->here[--c->n_here];
    c->here[e->place] = last;
    c->experts[last].place = e->place;
}

/* Takes in ends of reads: of the experts that were coming, those that are there. */
static void settle(ash_expert_cache *c, expert *e)
{
    bool busy = false;
    for (int i = 0; i < MATRICES; i++) {
        if (e->parts[i].state < 0) atomic_store(&c->lost, true);
        busy = busy || e->parts[i].state > 0;
    }
    if (!busy) e->presence = PRESENT;
}

static bool may_leave(const ash_expert_cache *c, const expert *e)
{
    return e->presence == PRESENT && e->kept != c->hold;
}

/* The coldest of some, or of all if none of those may leave; NULL: none may. */
static expert *coldest(ash_expert_cache *c)
{
    expert *best = NULL;
    for (int32_t tries = 0, all = c->n_here; tries < all + DRAWN; tries++) {
        if (tries == DRAWN && best) break;
        int32_t i =
            tries < DRAWN ? (int32_t)(ash_rng_u64(&c->rng) % (uint64_t)c->n_here) : tries - DRAWN;
        expert *e = &c->experts[c->here[i]];
        if (e->presence == COMING) settle(c, e);
        if (may_leave(c, e) && (!best || heat_now(c, e) < heat_now(c, best))) best = e;
    }
    return best;
}

/* Room for so many bytes more. False: not now, without `must`. */
static bool make_room(ash_expert_cache *c, uint64_t bytes, float heat, bool must)
{
    while (c->resident + bytes > c->budget) {
        expert *e = c->n_here ? coldest(c) : NULL;
        if (e && !must && heat_now(c, e) > heat) return false; /* what is kept is worth more */
        if (e)
            leave(c, e);
        else if (must)
            ash_reads_step(c->reads, true); /* what was read ahead may leave when it has come */
        else
            return false;
    }
    return true;
}

static void come(ash_expert_cache *c, expert *e)
{
    e->presence = COMING;
    e->place = c->n_here;
    c->here[c->n_here++] = (int32_t)(e - c->experts);
    c->resident += e->bytes;
    for (int i = 0; i < MATRICES; i++) {
        extent *x = &e->parts[i];
        if (!x->bytes) continue;
        ash_reads_begin(c->reads, c->fd, c->region + x->offset, x->bytes, c->at + x->offset,
                        &x->state);
    }
    atomic_fetch_add_explicit(&c->reads_begun, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->read_bytes, e->bytes, memory_order_relaxed);
}

static void wait_for(ash_expert_cache *c, expert *e)
{
    while (settle(c, e), e->presence == COMING) ash_reads_step(c->reads, true);
}

/* ---- the supply ----------------------------------------------------------------------------- */

static void note(ash_expert_cache *c, expert *e)
{
    e->heat = heat_now(c, e) + 1;
    e->touched = c->step;
    atomic_fetch_add_explicit(&c->chosen, 1, memory_order_relaxed);
    if (e->foreseen == c->step) atomic_fetch_add_explicit(&c->right, 1, memory_order_relaxed);
}

/* The n choices of a hold, with the reads that were begun for them, ahead ones too. */
static void note_token(ash_expert_cache *c, int n, int rows)
{
    uint64_t reads = atomic_load_explicit(&c->reads_begun, memory_order_relaxed);
    if (rows == 1 && c->full) {
        atomic_fetch_add_explicit(&c->token_chosen, (unsigned)n, memory_order_relaxed);
        atomic_fetch_add_explicit(&c->token_reads, reads - c->reads_held, memory_order_relaxed);
    }
    c->reads_held = reads;
}

static void hold(void *user, int layer, const int32_t *ids, int n, int rows)
{
    ash_expert_cache *c = user;
    expert *of = c->experts + (int64_t)layer * c->n_experts;
    if (layer < c->last_layer) c->step++; /* the next forward */
    c->last_layer = layer;
    c->hold++;
    for (int i = 0; i < n; i++) { /* none of these leaves for another */
        of[ids[i]].kept = c->hold;
        note(c, &of[ids[i]]);
    }
    for (int i = 0; i < n; i++) {
        expert *e = &of[ids[i]];
        if (e->presence != ABSENT) continue;
        make_room(c, e->bytes, 0, true);
        come(c, e);
    }
    note_token(c, n, rows);
    int64_t t = ash_clock_ns();
    for (int i = 0; i < n; i++)
        if (of[ids[i]].presence == COMING) wait_for(c, &of[ids[i]]);
    atomic_fetch_add_explicit(&c->wait_ns, (unsigned long long)(ash_clock_ns() - t),
                              memory_order_relaxed);
    atomic_store_explicit(&c->resident_shown, c->resident, memory_order_relaxed);
}

/* Of the choices that were foreseen so many came true that reading them ahead pays. Assumed at
 * first. */
static bool foresees(const ash_expert_cache *c)
{
    uint64_t foreseen = atomic_load_explicit(&c->foreseen, memory_order_relaxed);
    uint64_t right = atomic_load_explicit(&c->right, memory_order_relaxed);
    return foreseen < 256 || right * 100 >= foreseen * WORTH_FORESEEING;
}

static void expect(void *user, int layer, const int32_t *ids, int n, bool sure)
{
    ash_expert_cache *c = user;
    expert *of = c->experts + (int64_t)layer * c->n_experts;
    for (int i = 0; i < n; i++) {
        expert *e = &of[ids[i]];
        if (!sure && e->foreseen != c->step) {
            atomic_fetch_add_explicit(&c->foreseen, 1, memory_order_relaxed);
            e->foreseen = c->step;
        }
        if (!sure && !foresees(c)) continue;
        e->kept = c->hold;
        if (e->presence != ABSENT) continue;
        if (!make_room(c, e->bytes, sure ? INFINITY : heat_now(c, e) + 1, false)) break;
        come(c, e);
    }
    ash_reads_step(c->reads, false);
}

/* ---- opening -------------------------------------------------------------------------------- */

/* The reads of what is fixed: many ranges, several reads at once. */
typedef struct fixed {
    ash_expert_cache *c;
    const atomic_bool *cancel;
    int states[FIXED_AT_ONCE];
    unsigned turn;
    int rc; /* of the first that failed */
} fixed;

/* Waits for the read of this turn. */
static void await_turn(fixed *f)
{
    while (f->states[f->turn] > 0) ash_reads_step(f->c->reads, true);
    f->rc = f->rc ? f->rc : f->states[f->turn];
}

/* Pages [from, to) of the region. */
static void read_range(fixed *f, uint64_t from, uint64_t to)
{
    ash_expert_cache *c = f->c;
    for (; from < to && !f->rc; f->turn = (f->turn + 1) % FIXED_AT_ONCE) {
        uint64_t n = to - from < FIXED_READ ? to - from : FIXED_READ;
        await_turn(f);
        if (!f->rc && f->cancel && atomic_load_explicit(f->cancel, memory_order_relaxed))
            f->rc = ASH_ECANCELED;
        if (!f->rc)
            ash_reads_begin(c->reads, c->fd, c->region + from, n, c->at + from,
                            &f->states[f->turn]);
        from += n;
    }
}

/* All that is no expert's, in the order of the region, which the items have. */
static int read_fixed(ash_expert_cache *c, const ash_binding *b, const atomic_bool *cancel,
                      ash_err *err)
{
    fixed f = {.c = c, .cancel = cancel};
    uint64_t from = 0;
    for (size_t i = 0; i < b->n_items && !f.rc; i++) {
        extent x = pages_of(&b->items[i]);
        if (!x.bytes) continue;
        read_range(&f, from, x.offset);
        from = x.offset + x.bytes;
    }
    read_range(&f, from, (b->bytes + PAGE - 1) / PAGE * PAGE);
    for (f.turn = 0; f.turn < FIXED_AT_ONCE; f.turn++) await_turn(&f);
    if (f.rc == ASH_ECANCELED) return ash_err_set(err, f.rc, "the load was cancelled");
    return f.rc ? ash_err_set(err, f.rc, "the pack file %s",
                              f.rc == ASH_EFORMAT ? "is cut" : "cannot be read")
                : 0;
}

static int list_experts(ash_expert_cache *c, const ash_binding *b, ash_err *err)
{
    for (size_t i = 0; i < b->n_items; i++) {
        const ash_bind_item *it = &b->items[i];
        if (!it->expert) continue;
        c->n_layers = it->layer >= c->n_layers ? it->layer + 1 : c->n_layers;
        c->n_experts = it->expert > c->n_experts ? it->expert : c->n_experts;
    }
    size_t n = (size_t)c->n_layers * (size_t)c->n_experts;
    c->experts = calloc(n, sizeof *c->experts);
    c->here = calloc(n, sizeof *c->here);
    if (!c->experts || !c->here) return ash_err_nomem(err, "the list of experts");
    for (size_t i = 0; i < b->n_items; i++) {
        const ash_bind_item *it = &b->items[i];
        extent x = pages_of(it);
        if (!x.bytes) continue;
        expert *e = &c->experts[it->layer * c->n_experts + it->expert - 1];
        int part = 0;
        while (e->parts[part].bytes) part++; /* rules have three stacks of experts */
        e->parts[part] = x;
        e->bytes += x.bytes;
    }
    return 0;
}

int ash_expert_cache_open(const ash_binding *b, char *region, int fd, uint64_t at, uint64_t budget,
                          const atomic_bool *cancel, ash_expert_cache **out, ash_err *err)
{
    ash_expert_sizes sizes;
    *out = NULL;
    ash_expert_sizes_of(b, &sizes);
    if (!sizes.n || budget < 2 * sizes.largest)
        return ash_err_set(err, ASH_ENOSPC, "no room for two experts at once");
    ash_expert_cache *c = calloc(1, sizeof *c);
    if (!c) return ash_err_nomem(err, "experts");
    uint64_t most = budget / 2 / sizes.largest; /* the other half is for those that come ahead */
    c->supply =
        (ash_moe_supply){c, most < ASH_MAX_EXPERTS ? (int)most : ASH_MAX_EXPERTS, hold, expect};
    c->region = region;
    c->fd = fd;
    c->at = at;
    c->budget = budget;
    c->last_layer = -1;
    ash_rng_init(&c->rng, 1);
    int rc = ash_reads_open(DEPTH, &c->reads, err);
    rc = rc ? rc : list_experts(c, b, err);
    /* a huge page would be more than one expert's */
    if (!rc) madvise(region, b->bytes, MADV_NOHUGEPAGE);
    rc = rc ? rc : read_fixed(c, b, cancel, err);
    if (rc)
        ash_expert_cache_close(c);
    else
        *out = c;
    return rc;
}

const ash_moe_supply *ash_expert_cache_supply(const ash_expert_cache *c)
{
    return c ? &c->supply : NULL;
}

bool ash_expert_cache_lost(const ash_expert_cache *c)
{
    return c && atomic_load_explicit(&c->lost, memory_order_relaxed);
}

void ash_expert_cache_counts(const ash_expert_cache *c, ash_expert_counts *out)
{
    *out = (ash_expert_counts){0};
    if (!c) return;
    out->chosen = atomic_load_explicit(&c->chosen, memory_order_relaxed);
    uint64_t reads = atomic_load_explicit(&c->reads_begun, memory_order_relaxed);
    out->found = out->chosen > reads ? out->chosen - reads : 0;
    out->token_chosen = atomic_load_explicit(&c->token_chosen, memory_order_relaxed);
    reads = atomic_load_explicit(&c->token_reads, memory_order_relaxed);
    out->token_found = out->token_chosen > reads ? out->token_chosen - reads : 0;
    out->read_bytes = atomic_load_explicit(&c->read_bytes, memory_order_relaxed);
    out->foreseen = atomic_load_explicit(&c->foreseen, memory_order_relaxed);
    out->right = atomic_load_explicit(&c->right, memory_order_relaxed);
    out->wait_ns = atomic_load_explicit(&c->wait_ns, memory_order_relaxed);
    out->resident = atomic_load_explicit(&c->resident_shown, memory_order_relaxed);
}

void ash_expert_cache_close(ash_expert_cache *c)
{
    if (!c) return;
    ash_reads_close(c->reads);
    free(c->experts);
    free(c->here);
    free(c);
}
