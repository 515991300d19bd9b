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

/* What it has by itself. */
static ash_fit all_of(const ash_plan_facts *f)
{
    uint64_t may_go = less(f->expert_bytes, f->expert_least);
    return (ash_fit){.weights = f->fixed_bytes,
                     .weights_least = less(f->fixed_bytes, may_go),
                     .kv = f->kv_bytes,
                     .kv_least = f->kv_least};
}

static void take_fit(planning *p, size_t i, const ash_fit *fit)
{
    const ash_plan_facts *f = &p->facts[i];
    ash_plan_entry *e = &p->out[i];
    e->kv_bytes = fit->kv;
    e->resident_bytes = add(fit->weights, fit->kv);
    e->peak_bytes = add(e->resident_bytes, f->load_bytes);
    e->streams = fit->weights < f->fixed_bytes;
    e->pack_bytes = e->streams ? f->pack_bytes : 0;
    uint64_t absent = less(f->fixed_bytes, fit->weights);
    e->experts_room = e->streams ? (double)less(f->expert_bytes, absent) / (double)f->expert_bytes : 1.0;
    e->experts_found = e->streams ? ash_fit_share(&f->found, e->experts_room, &e->found_basis) : 1.0;
}

/* What entry i gets of `room`. False: it lacks short_bytes for the least that it would run in. */
static bool take_room(planning *p, size_t i, uint64_t room)
{
    const ash_plan_facts *f = &p->facts[i];
    ash_plan_entry *e = &p->out[i];
    ash_fit fit = all_of(f);
    bool fits = ash_fit_room(&fit, less(room, f->load_bytes)) && f->load_bytes <= room;
    take_fit(p, i, &fit);
    if (!fits) e->short_bytes = less(e->peak_bytes, room);
    return fits;
}

/* Takes memory for entry i of what the manager's policy leaves a preload beside those before it. False: it
 * does not fit. */
static bool take_memory(planning *p, size_t i)
{
    ash_plan_entry *e = &p->out[i];
    uint64_t room = ash_policy_room(p->m->memory, p->models, p->n, i, ASH_POLICY_BACKGROUND, 0);
    if (!take_room(p, i, room)) return false;
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

static ash_plan_verdict decide(planning *p, size_t i)
{
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
    if (!take_memory(p, i)) return ASH_PLAN_NO_MEMORY;
    if (!take_disk(p, i)) {
        give_back(p, i);
        return ASH_PLAN_NO_DISK;
    }
    load_time(p, i);
    return f->fetch_bytes ? ASH_PLAN_FITS : ASH_PLAN_READY;
}

static void plan_entry(planning *p, size_t i, ash_plan_total *total)
{
    ash_plan_entry *e = &p->out[i];
    describe(p, i);
    e->verdict = decide(p, i);
    e->tokens_per_second = token_rate(p->m, &p->facts[i], e);
    if (e->verdict == ASH_PLAN_NO_MEMORY || e->verdict == ASH_PLAN_NO_DISK) total->fits = false;
    if (!p->models[i].resident) return;
    uint64_t peak = add(p->used, p->facts[i].load_bytes);
    total->fetch_bytes = add(total->fetch_bytes, e->fetch_bytes);
    total->peak_bytes = peak > total->peak_bytes ? peak : total->peak_bytes;
    bool known = total->seconds >= 0.0 && e->fetch_seconds >= 0.0 && e->load_seconds >= 0.0;
    total->seconds = known ? total->seconds + e->fetch_seconds + e->load_seconds : -1.0;
}

void ash_plan_make(const ash_plan_machine *m, const ash_plan_facts *facts, size_t n, ash_plan_entry *out,
                   ash_plan_total *total)
{
    planning p = {.m = m,
                  .facts = facts,
                  .out = out,
                  .disk_left = less(m->disk_free, m->disk_reserve),
                  .disk_free = m->disk_free,
                  .state_left = m->state_free,
                  .n = n < ASH_PLAN_MAX ? n : ASH_PLAN_MAX};
    *total = (ash_plan_total){.fits = true};
    for (size_t i = 0; i < p.n; i++)
        p.models[i] = (ash_policy_model){
            .id = "", .preload = true, .pinned = facts[i].pin, .required = facts[i].required};
    for (size_t i = 0; i < p.n; i++)
        if (facts[i].required) plan_entry(&p, i, total);
    for (size_t i = 0; i < p.n; i++)
        if (!facts[i].required) plan_entry(&p, i, total);
    total->resident_bytes = p.used;
    total->disk_after = p.disk_free;
}
