/* Owns the sums of a plan. Refuses nothing: what does not fit is a verdict. Sizes come from headers that
 * may lie: sums saturate and comparisons subtract from what is known to be larger. Any thread. */
#include "residency/plan.h"

#include "residency/policy.h"

static const uint64_t UNKNOWN = ASH_PLAN_UNKNOWN_BYTES;

/* One plan in the making. */
typedef struct planning {
    const ash_plan_machine *m;
    const ash_plan_facts *facts;
    ash_plan_entry *out;
    uint64_t disk_left;   /* that may be fetched */
    uint64_t disk_free;   /* after what was admitted */
    uint64_t state_left;  /* that pack files may take */
    uint64_t used;        /* memory of what is loaded */
    size_t n;
    size_t order[ASH_PLAN_MAX];            /* in which they are loaded */
    bool no_disk[ASH_PLAN_MAX];            /* what was found of the entries: nobody leaves room for these */
    ash_policy_model models[ASH_PLAN_MAX]; /* the entries, as the manager's policy is told of them */
} planning;

const char *ash_plan_verdict_name(ash_plan_verdict v)
{
    static const char *const names[] = {"ready",     "fits",    "consent_needed", "does_not_fit_memory",
                                        "does_not_fit_disk", "not_found", "refused", "unknown",
                                        "no_access"};
    return (unsigned)v < sizeof names / sizeof *names ? names[v] : "unknown";
}

/* The sum, or the largest size that is known. */
static uint64_t add(uint64_t a, uint64_t b)
{
    return a == UNKNOWN || b == UNKNOWN ? UNKNOWN : a < UNKNOWN - 1 - b ? a + b : UNKNOWN - 1;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* All but the draft model, which the loader gives up first. */
static uint64_t weights_of(const ash_plan_facts *f)
{
    return less(f->fixed_bytes, f->draft_bytes);
}

/* What it has by itself. */
static ash_fit all_of(const ash_plan_facts *f)
{
    uint64_t may_go = less(f->expert_bytes, f->expert_least);
    return (ash_fit){.weights = weights_of(f),
                     .weights_least = less(weights_of(f), may_go),
                     .kv = f->kv_bytes,
                     .kv_least = f->kv_least,
                     .draft = f->draft_bytes};
}

static void take_fit(planning *p, size_t i, const ash_fit *fit)
{
    const ash_plan_facts *f = &p->facts[i];
    ash_plan_entry *e = &p->out[i];
    e->kv_bytes = fit->kv;
    e->draft_bytes = fit->draft;
    e->resident_bytes = add(add(fit->weights, fit->kv), fit->draft);
    e->peak_bytes = add(e->resident_bytes, f->load_bytes);
    e->streams = fit->weights < weights_of(f);
    e->pack_bytes = e->streams ? f->pack_bytes : 0;
    uint64_t absent = less(weights_of(f), fit->weights);
    e->experts_room = e->streams ? (double)less(f->expert_bytes, absent) / (double)f->expert_bytes : 1.0;
    e->experts_found = e->streams ? ash_fit_share(&f->found, e->experts_room, &e->found_basis) : 1.0;
}

/* What entry i gets of `room`. False: it lacks short_bytes for the least that it would run in. */
static bool take_room(planning *p, size_t i, uint64_t room)
{
    ash_plan_entry *e = &p->out[i];
    ash_fit fit = all_of(&p->facts[i]);
    bool fits = ash_fit_room(&fit, room);
    take_fit(p, i, &fit);
    if (!fits) e->short_bytes = less(e->resident_bytes, room);
    return fits;
}

/* Whether the manager will try to load entry i, as far as is known before its turn. */
static bool is_awaited(const planning *p, size_t i)
{
    const ash_plan_facts *f = &p->facts[i];
    bool usable = !f->absent && !f->refused && !f->no_access && !(f->needs_consent && f->fetch_bytes);
    bool known = f->fetch_bytes != UNKNOWN && f->fixed_bytes != UNKNOWN;
    return usable && known && !p->no_disk[i];
}

/* Takes memory for the entry at `turn` of the order: of what the manager's policy leaves a preload beside
 * those before it, its share beside those after it. False: it does not fit. */
static bool take_memory(planning *p, size_t turn)
{
    size_t i = p->order[turn], n = 0;
    ash_plan_entry *e = &p->out[i];
    ash_fit fits[ASH_PLAN_MAX];
    uint64_t room = ash_policy_room(p->m->memory, p->models, p->n, i, ASH_POLICY_BACKGROUND, 0);
    for (size_t k = turn; k < p->n; k++)
        if (k == turn || is_awaited(p, p->order[k])) fits[n++] = all_of(&p->facts[p->order[k]]);
    if (!take_room(p, i, ash_fit_beside(fits, n, 0, room))) return false;
    p->used = add(p->used, e->resident_bytes);
    p->models[i].bytes = e->resident_bytes;
    p->models[i].resident = true;
    return true;
}

static void give_back(planning *p, size_t i)
{
    p->used -= p->out[i].resident_bytes;
    p->models[i].resident = false;
    p->models[i].bytes = 0;
}

static double seconds(uint64_t bytes, double rate)
{
    return !bytes ? 0.0 : rate > 0.0 && bytes != UNKNOWN ? (double)bytes / rate : -1.0;
}

/* A first load of a model whose experts come and go reads its files twice, to learn what they are and to make
 * the pack file, and writes that; a later one reads what no expert has. */
static void load_time(planning *p, size_t i)
{
    const ash_plan_facts *f = &p->facts[i];
    ash_plan_entry *e = &p->out[i];
    uint64_t bytes = f->read_bytes;
    if (e->streams && bytes != UNKNOWN)
        bytes = e->pack_bytes ? add(add(bytes, bytes), e->pack_bytes) : less(f->fixed_bytes, f->expert_bytes);
    e->load_measured = f->load_seconds > 0.0;
    e->load_seconds = e->load_measured ? f->load_seconds : seconds(bytes, p->m->read_rate);
}

static double token_rate(const ash_plan_machine *m, const ash_plan_facts *f, const ash_plan_entry *e)
{
    double read = (1.0 - e->experts_found) * (double)f->token_expert_bytes;
    if (!f->token_bytes || m->memory_rate <= 0.0 || (read > 0.0 && m->read_rate <= 0.0)) return 0.0;
    double s = (double)f->token_bytes / m->memory_rate;
    return 1.0 / (read > 0.0 ? s + read / m->read_rate : s);
}

/* What entry i takes by itself, with the smallest pool. */
static void describe(planning *p, size_t i)
{
    const ash_plan_facts *f = &p->facts[i];
    ash_plan_entry *e = &p->out[i];
    ash_fit fit = all_of(f);
    *e = (ash_plan_entry){.fetch_bytes = f->fetch_bytes, .disk_after = p->disk_free};
    fit.kv = f->kv_least < f->kv_bytes ? f->kv_least : f->kv_bytes;
    take_fit(p, i, &fit);
    e->fetch_seconds = seconds(f->fetch_bytes, p->m->fetch_rate);
    load_time(p, i);
}

/* Disk for what is fetched and for its pack file. False: short_bytes are missing for that. */
static bool take_disk(planning *p, size_t i)
{
    const ash_plan_facts *f = &p->facts[i];
    ash_plan_entry *e = &p->out[i];
    uint64_t left = less(p->disk_left, f->fetch_bytes), on_disk = p->m->one_disk ? e->pack_bytes : 0;
    uint64_t room = less(p->state_left, p->m->fetch_share ? f->fetch_bytes / p->m->fetch_share : 0);
    if (p->m->one_disk && left < room) room = left;
    if (e->pack_bytes > room) {
        e->short_bytes = e->pack_bytes - room;
        return false;
    }
    p->state_left = room - e->pack_bytes;
    p->disk_left = left - on_disk;
    p->disk_free = less(less(p->disk_free, f->fetch_bytes), on_disk);
    e->disk_after = p->disk_free;
    return true;
}

static ash_plan_verdict decide(planning *p, size_t turn)
{
    size_t i = p->order[turn];
    const ash_plan_facts *f = &p->facts[i];
    ash_plan_entry *e = &p->out[i];
    if (f->absent) return ASH_PLAN_ABSENT;
    if (f->refused) return ASH_PLAN_REFUSED;
    if (f->no_access) return ASH_PLAN_NO_ACCESS;
    /* What can never fit is said before consent is asked for. */
    if (f->fetch_bytes != UNKNOWN && f->fetch_bytes > p->disk_left) {
        e->short_bytes = f->fetch_bytes - p->disk_left;
        return ASH_PLAN_NO_DISK;
    }
    if (f->fixed_bytes != UNKNOWN && !take_room(p, i, p->m->memory)) return ASH_PLAN_NO_MEMORY;
    if (f->needs_consent && f->fetch_bytes) return ASH_PLAN_CONSENT;
    if (f->fetch_bytes == UNKNOWN || f->fixed_bytes == UNKNOWN) return ASH_PLAN_UNKNOWN;
    if (!take_memory(p, turn)) return ASH_PLAN_NO_MEMORY;
    if (!take_disk(p, i)) {
        give_back(p, i);
        return ASH_PLAN_NO_DISK;
    }
    load_time(p, i);
    return f->fetch_bytes ? ASH_PLAN_FITS : ASH_PLAN_READY;
}

static void plan_entry(planning *p, size_t turn, ash_plan_total *total)
{
    size_t i = p->order[turn];
    ash_plan_entry *e = &p->out[i];
    describe(p, i);
    e->verdict = decide(p, turn);
    e->tokens_per_second = token_rate(p->m, &p->facts[i], e);
    if (e->verdict == ASH_PLAN_NO_MEMORY || e->verdict == ASH_PLAN_NO_DISK) total->fits = false;
    if (!p->models[i].resident) return;
    uint64_t peak = add(p->used, p->facts[i].load_bytes);
    total->fetch_bytes = add(total->fetch_bytes, e->fetch_bytes);
    total->peak_bytes = peak > total->peak_bytes ? peak : total->peak_bytes;
    bool known = total->seconds >= 0.0 && e->fetch_seconds >= 0.0 && e->load_seconds >= 0.0;
    total->seconds = known ? total->seconds + e->fetch_seconds + e->load_seconds : -1.0;
}

/* Required ones first. */
static void set_order(planning *p)
{
    size_t n = 0;
    for (int required = 1; required >= 0; required--)
        for (size_t i = 0; i < p->n; i++)
            if (p->facts[i].required == required) p->order[n++] = i;
}

/* True if a disk turned out too small for one that others have left room for. */
static bool plan_all(planning *p, ash_plan_total *total)
{
    const ash_plan_machine *m = p->m;
    bool again = false;
    p->disk_left = less(m->disk_free, m->disk_reserve);
    p->disk_free = m->disk_free;
    p->state_left = m->state_free;
    p->used = 0;
    *total = (ash_plan_total){.fits = true};
    for (size_t i = 0; i < p->n; i++)
        p->models[i] = (ash_policy_model){
            .id = "", .preload = true, .pinned = p->facts[i].pin, .required = p->facts[i].required};
    for (size_t turn = 0; turn < p->n; turn++) plan_entry(p, turn, total);
    for (size_t i = 0; i < p->n; i++) {
        bool lacks = p->out[i].verdict == ASH_PLAN_NO_DISK;
        again |= lacks && is_awaited(p, i);
        p->no_disk[i] |= lacks;
    }
    total->resident_bytes = p->used;
    total->disk_after = p->disk_free;
    return again;
}

void ash_plan_make(const ash_plan_machine *m, const ash_plan_facts *facts, size_t n, ash_plan_entry *out,
                   ash_plan_total *total)
{
    planning p = {.m = m, .facts = facts, .out = out, .n = n < ASH_PLAN_MAX ? n : ASH_PLAN_MAX};
    set_order(&p);
    while (plan_all(&p, total)) {} /* one more each time is known not to come */
}
