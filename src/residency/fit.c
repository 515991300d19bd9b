/* Owns how a model is made to fit. Refuses nothing; sizes come from headers that may lie, so that sums
 * saturate and what is subtracted is known to be less. */
#include "residency/fit.h"

static uint64_t add(uint64_t a, uint64_t b)
{
    return a < UINT64_MAX - b ? a + b : UINT64_MAX;
}

uint64_t ash_fit_bytes(const ash_fit *f)
{
    return add(add(f->weights, f->kv), f->others);
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
    uint64_t least = f->kv_least < f->kv ? f->kv_least : f->kv;
    uint64_t fixed = add(f->weights, f->others);
    if (ash_fit_bytes(f) <= room) return true;
    if (f->weights_least < f->weights && (stream(f, f->kv, room) || stream(f, least, room))) return true;
    if (fixed <= room && least <= room - fixed) {
        f->kv = room - fixed;
        return true;
    }
    if (f->weights_least < f->weights) f->weights = f->weights_least;
    f->kv = least;
    return false;
}
