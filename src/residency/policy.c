/* Owns the choice of what leaves memory. Refuses what cannot fit. Pure: no state, any thread. */
#include "residency/policy.h"

#include <math.h>
#include <string.h>

/* How soon a resident can make room. */
typedef enum standing {
    FREE,   /* now */
    YOUNG,  /* when its minimum residence is over */
    BUSY,   /* when its requests or its load end */
    RECENT, /* for a background load: not now */
    FIXED,  /* never */
} standing;

static const double DAY_MS = 24.0 * 3600.0 * 1000.0;

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

int64_t ash_policy_residence_ms(const ash_policy_model *m)
{
    double ms = m->bring_back_s * 1e3;
    if (!(ms > ASH_POLICY_LEAST_RESIDENCE_MS)) return ASH_POLICY_LEAST_RESIDENCE_MS;
    return ms < ASH_POLICY_MOST_RESIDENCE_MS ? (int64_t)ms : ASH_POLICY_MOST_RESIDENCE_MS;
}

static int64_t idle_ms(const ash_policy_model *m, int64_t now)
{
    return m->leases || now <= m->last_use_ms ? 0 : now - m->last_use_ms;
}

/* When its minimum residence no longer keeps it; at most now if it does not. */
static int64_t grown_ms(const ash_policy_model *m)
{
    int64_t residence = ash_policy_residence_ms(m);
    int64_t old = m->loaded_ms + residence, rested = m->last_use_ms + residence / 4;
    return m->leases || old < rested ? old : rested;
}

static standing standing_of(const ash_policy_model *m, ash_policy_urgency urgency, int64_t now)
{
    if (m->pinned) return FIXED;
    if (m->leases || m->loading) return BUSY;
    if (urgency == ASH_POLICY_BACKGROUND)
        return m->preload || idle_ms(m, now) < ASH_POLICY_BACKGROUND_IDLE_MS ? RECENT : FREE;
    return grown_ms(m) > now ? YOUNG : FREE;
}

static double count_at(const ash_policy_uses *u, int64_t now)
{
    return now > u->at_ms ? u->count * exp((double)(u->at_ms - now) / DAY_MS) : u->count;
}

void ash_policy_used(ash_policy_uses *u, int64_t now_ms)
{
    u->count = count_at(u, now_ms) + 1.0;
    u->at_ms = now_ms;
}

/* The higher, the sooner it goes: one through the worth of a byte. Uses of one millisecond ago and now are
 * alike, and so are loads that cost less than that. */
static double weight(const ash_policy_model *m, int64_t now)
{
    int64_t idle = idle_ms(m, now);
    double cost = m->bring_back_s > 1e-3 ? m->bring_back_s : 1e-3;
    double chance = 1.0 / (double)(idle > 1 ? idle : 1) + count_at(&m->uses, now) / DAY_MS;
    return (double)m->bytes / (cost * chance);
}

static bool goes_before(const ash_policy_model *a, const ash_policy_model *b, int64_t now)
{
    bool keep_a = a->preload && a->required, keep_b = b->preload && b->required;
    if (keep_a != keep_b) return keep_b;
    double wa = weight(a, now), wb = weight(b, now);
    return wa != wb ? wa > wb : strcmp(a->id, b->id) < 0;
}

static void insert(const ash_policy_model *models, size_t *list, size_t count, size_t i, int64_t now)
{
    size_t at = count;
    for (; at && goes_before(&models[i], &models[list[at - 1]], now); at--) list[at] = list[at - 1];
    list[at] = i;
}

/* Keeps of the list, which is in order, the first that free `need` bytes, without those that the later ones
 * make needless. Returns how many; the bytes they free in *freed. */
static size_t cut_list(const ash_policy_model *models, size_t *list, size_t count, uint64_t need,
                       uint64_t *freed)
{
    size_t n = 0, kept = 0;
    *freed = 0;
    while (n < count && *freed < need) *freed = add(*freed, models[list[n++]].bytes);
    for (size_t i = n; i-- > 0;) { /* the most worth first */
        uint64_t bytes = models[list[i]].bytes;
        if (*freed < UINT64_MAX && *freed > need && *freed - need >= bytes) {
            *freed -= bytes;
            list[i] = SIZE_MAX;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (list[i] != SIZE_MAX) list[kept++] = list[i];
    return kept;
}

/* All residents of a standing at most `most` in the order in which they go. */
static size_t list_of(const ash_policy_model *models, size_t n, ash_policy_urgency urgency, standing most,
                      int64_t now, size_t *list)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (models[i].resident && standing_of(&models[i], urgency, now) <= most)
            insert(models, list, count++, i, now);
    return count;
}

uint64_t ash_policy_resident(const ash_policy_model *models, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        if (models[i].resident) sum = add(sum, models[i].bytes);
    return sum;
}

uint64_t ash_policy_room(uint64_t budget, const ash_policy_model *models, size_t n, size_t wanted,
                         ash_policy_urgency urgency, int64_t now_ms)
{
    uint64_t held = 0;
    for (size_t i = 0; i < n; i++)
        if (i != wanted && models[i].resident && standing_of(&models[i], urgency, now_ms) >= BUSY)
            held = add(held, models[i].bytes);
    return budget > held ? budget - held : 0;
}

/* The first moment at which those that are idle, or young no more, free enough. */
static int64_t grown_enough(const ash_policy_model *models, size_t n, uint64_t need, int64_t now)
{
    int64_t at = now;
    for (;;) {
        int64_t next = INT64_MAX;
        uint64_t freed = 0;
        for (size_t i = 0; i < n; i++) {
            if (!models[i].resident || standing_of(&models[i], ASH_POLICY_DEMAND, now) > YOUNG) continue;
            int64_t grown = grown_ms(&models[i]);
            if (grown <= at)
                freed = add(freed, models[i].bytes);
            else if (grown < next)
                next = grown;
        }
        if (freed >= need || next == INT64_MAX) return at;
        at = next;
    }
}

/* Those in use that have to end, or to end taking new requests, so that enough goes. Those that have not had
 * their minimum residence are not listed, but asked for again when they have. */
static void wait_for_use(const ash_policy_model *models, size_t n, uint64_t need, int64_t now, size_t *list,
                         ash_policy_decision *d)
{
    uint64_t freed;
    size_t count = list_of(models, n, ASH_POLICY_DEMAND, BUSY, now, list);
    d->verdict = ASH_POLICY_WAIT;
    d->reason = ASH_POLICY_IN_USE;
    d->until_ms = INT64_MAX;
    count = cut_list(models, list, count, need, &freed);
    for (size_t i = 0; i < count; i++) {
        const ash_policy_model *m = &models[list[i]];
        int64_t grown = grown_ms(m);
        if (m->loading || (!m->leases && grown <= now)) continue;
        if (grown > now)
            d->until_ms = grown < d->until_ms ? grown : d->until_ms;
        else
            list[d->n++] = list[i];
    }
}

static uint64_t bytes_of(const ash_policy_model *models, size_t n, ash_policy_urgency urgency, standing least,
                         standing most, int64_t now)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (!models[i].resident) continue;
        standing s = standing_of(&models[i], urgency, now);
        if (s >= least && s <= most) sum = add(sum, models[i].bytes);
    }
    return sum;
}

ash_policy_decision ash_policy_admit(uint64_t budget, const ash_policy_model *models, size_t n, size_t wanted,
                                     ash_policy_urgency urgency, int64_t now_ms, size_t *list)
{
    ash_policy_decision d = {.until_ms = INT64_MAX};
    uint64_t bytes = models[wanted].bytes, used = ash_policy_resident(models, n), freed;
    uint64_t left = budget > used ? budget - used : 0, total = add(used, bytes);
    d.pinned_bytes = bytes_of(models, n, urgency, FIXED, FIXED, now_ms);
    if (bytes > budget || d.pinned_bytes > budget - bytes) {
        d.verdict = ASH_POLICY_REFUSE;
        d.reason = bytes > budget ? ASH_POLICY_TOO_LARGE : ASH_POLICY_PINNED;
        d.short_bytes = add(bytes, bytes > budget ? 0 : d.pinned_bytes) - budget;
        return d;
    }
    if (bytes <= left && used <= budget) return d;
    uint64_t need = total - budget;
    d.short_bytes = need;
    if (bytes_of(models, n, urgency, FREE, FREE, now_ms) >= need) {
        size_t count = list_of(models, n, urgency, FREE, now_ms, list);
        d.n = cut_list(models, list, count, need, &freed);
    } else if (urgency == ASH_POLICY_BACKGROUND) {
        d.verdict = ASH_POLICY_WAIT;
        d.reason = ASH_POLICY_NOT_IDLE;
        d.until_ms = now_ms + ASH_POLICY_BACKGROUND_IDLE_MS / 4;
    } else if (bytes_of(models, n, urgency, FREE, YOUNG, now_ms) >= need) {
        d.verdict = ASH_POLICY_WAIT;
        d.reason = ASH_POLICY_YOUNG;
        d.until_ms = grown_enough(models, n, need, now_ms);
    } else {
        wait_for_use(models, n, need, now_ms, list, &d);
    }
    return d;
}

size_t ash_policy_shrink(uint64_t budget, const ash_policy_model *models, size_t n, int64_t now_ms,
                         size_t *list)
{
    uint64_t used = ash_policy_resident(models, n), freed;
    if (used <= budget) return 0;
    return cut_list(models, list, list_of(models, n, ASH_POLICY_DEMAND, YOUNG, now_ms, list), used - budget,
                    &freed);
}

bool ash_policy_beside(const ash_policy_load *running, const ash_policy_load *next, double busy)
{
    if (next->standing != running->standing) return next->standing > running->standing;
    return busy < 0.5 && next->rate > 0.0 && next->rate < 0.8 * running->rate;
}
