/* Owns how a model is made to fit. Refuses nothing; sizes come from headers that may lie, so that sums
 * saturate and what is subtracted is known to be less. */
#include "residency/fit.h"

#include <math.h>

static uint64_t add(uint64_t a, uint64_t b)
{
    return a < UINT64_MAX - b ? a + b : UINT64_MAX;
}

uint64_t ash_fit_bytes(const ash_fit *f)
{
    return add(add(f->weights, f->kv), add(f->draft, f->others));
}

static uint64_t least_weights(const ash_fit *f)
{
    return f->weights_least < f->weights ? f->weights_least : f->weights;
}

static uint64_t least_kv(const ash_fit *f)
{
    return f->kv_least < f->kv ? f->kv_least : f->kv;
}

uint64_t ash_fit_least(const ash_fit *f)
{
    return add(add(least_weights(f), least_kv(f)), f->others);
}

/* As many experts as fit beside a pool of so many bytes. */
static bool stream(ash_fit *f, uint64_t kv, uint64_t room)
{
    uint64_t beside = add(kv, f->others);
    if (beside > room || f->weights_least > room - beside) return false;
    f->kv = kv;
    if (f->weights > room - beside) f->weights = room - beside;
    return true;
}

bool ash_fit_room(ash_fit *f, uint64_t room)
{
    uint64_t least = least_kv(f), fixed = add(f->weights, f->others);
    if (ash_fit_bytes(f) <= room) return true;
    f->draft = 0;
    if (ash_fit_bytes(f) <= room) return true;
    if (f->weights_least < f->weights && (stream(f, f->kv, room) || stream(f, least, room))) return true;
    if (fixed <= room && least <= room - fixed) {
        f->kv = room - fixed;
        return true;
    }
    f->weights = least_weights(f);
    f->kv = least;
    return false;
}

/* Whether f has its least in *left, which is what the next ones have then. */
static bool joins(const ash_fit *f, uint64_t *left)
{
    uint64_t least = ash_fit_least(f);
    if (least > *left) return false;
    *left -= least;
    return true;
}

static uint64_t beyond_least(const ash_fit *f)
{
    return ash_fit_bytes(f) - ash_fit_least(f);
}

/* What all have beyond their least at most, where `spare` bytes are shared: those who like no more than that
 * have what they like. */
static uint64_t level_of(const ash_fit *models, size_t n, uint64_t room, uint64_t spare)
{
    for (uint64_t level = 0;;) {
        uint64_t rest = spare, left = room, above = 0;
        for (size_t k = 0; k < n; k++) {
            if (!joins(&models[k], &left)) continue;
            if (beyond_least(&models[k]) > level)
                above++;
            else
                rest -= beyond_least(&models[k]); /* all of these together have less than was spared */
        }
        if (!above) return UINT64_MAX;
        if (rest / above <= level) return level;
        level = rest / above;
    }
}

uint64_t ash_fit_beside(const ash_fit *models, size_t n, size_t i, uint64_t room)
{
    uint64_t spare = room;
    for (size_t k = 0; k < n; k++)
        if (!joins(&models[k], &spare) && k == i) return spare;
    uint64_t level = level_of(models, n, room, spare), beyond = beyond_least(&models[i]);
    return ash_fit_least(&models[i]) + (beyond < level ? beyond : level);
}

const char *ash_fit_basis_name(ash_fit_basis b)
{
    static const char *const names[] = {"alike", "interpolated", "measured"};
    return names[b];
}

double ash_fit_share(const ash_fit_known *known, double room, ash_fit_basis *basis)
{
    ash_fit_found below = {0.0, 0.0}, above = {1.0, 1.0};
    *basis = known->n ? ASH_FIT_INTERPOLATED : ASH_FIT_ALIKE;
    for (size_t i = 0; i < known->n; i++) {
        const ash_fit_found *p = &known->v[i];
        if (p->room <= room && p->room >= below.room) below = *p;
        if (p->room >= room && p->room <= above.room) above = *p;
        if (fabs(p->room - room) <= 0.1 * room) *basis = ASH_FIT_MEASURED;
    }
    if (above.room <= below.room) return below.found;
    return below.found + (above.found - below.found) * (room - below.room) / (above.room - below.room);
}
