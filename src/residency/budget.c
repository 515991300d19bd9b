/* Owns how the budget follows the machine. Pure. */
#include "residency/budget.h"

static const uint64_t MOST_RESERVE = 4ull << 30;
static const double STALLED = 10.0, CALM = 1.0; /* percent */
static const int64_t LOWER_MS = 1000, RAISE_MS = 10000, LOOKED_MS = 2000;

static uint64_t machine(const ash_memory *now)
{
    return now->available > UINT64_MAX - now->own ? UINT64_MAX : now->available + now->own;
}

uint64_t ash_budget_reserve(const ash_memory *now)
{
    uint64_t all = now->total ? now->total : machine(now);
    if (all == UINT64_MAX) return 0;
    return all / 16 < MOST_RESERVE ? all / 16 : MOST_RESERVE;
}

static uint64_t without_ceiling(const ash_budget *b, const ash_memory *now)
{
    uint64_t all = machine(now);
    if (b->limit) return b->limit < all ? b->limit : all;
    uint64_t reserve = ash_budget_reserve(now);
    if (all == UINT64_MAX) return all;
    return all > reserve ? all - reserve : 0;
}

uint64_t ash_budget_bytes(const ash_budget *b, const ash_memory *now)
{
    uint64_t bytes = without_ceiling(b, now);
    return b->ceiling && b->ceiling < bytes ? b->ceiling : bytes;
}

/* What others will have taken by the next look. */
static uint64_t taken_next(ash_budget *b, const ash_memory *now, uint64_t reserve, int64_t now_ms)
{
    uint64_t has = machine(now), before = now_ms - b->had_ms > LOOKED_MS ? 0 : b->had;
    b->had = has;
    b->had_ms = now_ms;
    uint64_t taken = before > has ? before - has : 0;
    return taken < reserve ? taken : reserve;
}

bool ash_budget_step(ash_budget *b, const ash_memory *now, uint64_t charged, int64_t now_ms)
{
    uint64_t reserve = ash_budget_reserve(now);
    uint64_t least = reserve / 4 + taken_next(b, now, reserve, now_ms);
    bool short_of = now->stalled >= STALLED && now->spare < reserve; /* else it waits for its disk */
    bool pressed = short_of || now->available < least;
    bool calm = now->stalled < CALM && now->available >= reserve / 2;
    int64_t since = now_ms - b->stepped_ms;
    if (pressed) {
        if (!charged || (b->ceiling && since < LOWER_MS)) return false;
        b->ceiling = charged - charged / 8;
        b->stepped_ms = now_ms;
        return true;
    }
    if (b->ceiling && !calm) b->stepped_ms = now_ms;
    if (!b->ceiling || !calm || since < RAISE_MS) return false;
    b->ceiling = b->ceiling > UINT64_MAX / 2 ? 0 : b->ceiling + b->ceiling / 8 + 1;
    b->stepped_ms = now_ms;
    if (b->ceiling >= without_ceiling(b, now)) b->ceiling = 0;
    return false;
}
