/* Owns when memory of free KV blocks goes. Refuses nothing. The scheduler's thread. */
#include "engine/kv_trim.h"

static const int64_t WHILE_NS = 10000000000ll;
static const int64_t NS_A_BYTE = 8; /* of a step, that a byte given back costs at most: 1 % at 16 GB/s */

static bool is_empty(const ash_kv_trim *t, int32_t b)
{
    return b >= 0 && b < t->kv->blocks && !ash_prefix_cache_has_memory(t->cache, b);
}

static void give_back(ash_kv_trim *t, int64_t bytes)
{
    for (; t->left && ash_prefix_cache_spare(t->cache) > t->keep; t->left--, bytes -= t->kv->block_bytes) {
        if (bytes <= 0)
            return;
        int32_t b = ash_prefix_cache_shed(t->cache);
        ash_kv_give_back(t->kv, b, is_empty(t, b - 1), is_empty(t, b + 1));
    }
    t->left = 0;
}

int64_t ash_kv_trim_turn(ash_kv_trim *t, int64_t now_ns, int64_t step_ns)
{
    if (t->until_ns && now_ns >= t->until_ns) {
        t->left = ash_prefix_cache_unneeded(t->cache);
        t->until_ns = 0;
    }
    give_back(t, step_ns / NS_A_BYTE + 1);
    if (t->left)
        return now_ns;
    if (ash_prefix_cache_spare(t->cache) <= t->keep) {
        t->until_ns = 0;
        return INT64_MAX;
    }
    if (!t->until_ns) {
        ash_prefix_cache_unneeded(t->cache);
        t->until_ns = now_ns + WHILE_NS;
    }
    return t->until_ns;
}
