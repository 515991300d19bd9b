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

/* The KV pool for `room` bytes: the usual one while a sixteenth of the room stays free, or what loading
 * takes if that is more. */
static uint64_t pool_for(const ash_plan_facts *f, uint64_t room)
{
    uint64_t least = f->kv_least < f->kv_bytes ? f->kv_least : f->kv_bytes;
    uint64_t spare = room / 16 > f->load_bytes ? room / 16 : f->load_bytes;
    uint64_t beside = less(less(room, spare), f->fixed_bytes);
    return f->kv_bytes <= beside ? f->kv_bytes : beside > least ? beside : least;
}

static bool fits(const ash_plan_facts *f, uint64_t room)
{
    uint64_t least = f->kv_least < f->kv_bytes ? f->kv_least : f->kv_bytes;
    return add(add(f->fixed_bytes, least), f->load_bytes) <= room;
}

/* Takes memory for entry i of what the manager's policy leaves a preload beside those before it. False: it
 * does not fit. */
static bool take_memory(planning *p, size_t i)
{
    const ash_plan_facts *f = &p->facts[i];
    ash_plan_entry *e = &p->out[i];
    uint64_t room = ash_policy_room(p->m->memory, p->models, p->n, i, ASH_POLICY_BACKGROUND, 0);
    if (!fits(f, room)) {
        e->short_bytes = less(e->peak_bytes, room);
        return false;
    }
    e->kv_bytes = pool_for(f, room);
    e->resident_bytes = add(f->fixed_bytes, e->kv_bytes);
    e->peak_bytes = add(e->resident_bytes, f->load_bytes);
    p->used = add(p->used, e->resident_bytes);
    p->models[i].bytes = e->resident_bytes;
    p->models[i].resident = true;
    return true;
}

static double seconds(uint64_t bytes, double rate)
{
    return !bytes ? 0.0 : rate > 0.0 && bytes != UNKNOWN ? (double)bytes / rate : -1.0;
}

/* What entry i takes by itself, with the smallest pool: what is said of one that is not loaded. */
static void describe(planning *p, size_t i)
{
    const ash_plan_facts *f = &p->facts[i];
    ash_plan_entry *e = &p->out[i];
    *e = (ash_plan_entry){.fetch_bytes = f->fetch_bytes, .disk_after = p->disk_free};
    e->kv_bytes = f->kv_least < f->kv_bytes ? f->kv_least : f->kv_bytes;
    e->resident_bytes = add(f->fixed_bytes, e->kv_bytes);
    e->peak_bytes = add(e->resident_bytes, f->load_bytes);
    e->fetch_seconds = seconds(f->fetch_bytes, p->m->fetch_rate);
    e->load_seconds = seconds(f->read_bytes, p->m->read_rate);
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
    if (f->fixed_bytes != UNKNOWN && !fits(f, p->m->memory)) {
        e->short_bytes = less(e->peak_bytes, p->m->memory);
        return ASH_PLAN_NO_MEMORY;
    }
    if (f->needs_consent && f->fetch_bytes) return ASH_PLAN_CONSENT;
    if (f->fetch_bytes == UNKNOWN || f->fixed_bytes == UNKNOWN) return ASH_PLAN_UNKNOWN;
    if (!take_memory(p, i)) return ASH_PLAN_NO_MEMORY;
    p->disk_left -= f->fetch_bytes;
    p->disk_free = less(p->disk_free, f->fetch_bytes);
    e->disk_after = p->disk_free;
    return f->fetch_bytes ? ASH_PLAN_FITS : ASH_PLAN_READY;
}

static void plan_entry(planning *p, size_t i, ash_plan_total *total)
{
    ash_plan_entry *e = &p->out[i];
    describe(p, i);
    e->verdict = decide(p, i);
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
