/* Owns how transfers that run at once are measured. Refuses to guess what one that failed has moved. */
#include "base/meter.h"

void ash_meter_begin(ash_meter *m, int64_t now_ms)
{
    if (!m->running++) *m = (ash_meter){.running = 1, .whole = true, .began_ms = now_ms};
}

bool ash_meter_end(ash_meter *m, uint64_t bytes, bool known, int64_t now_ms, ash_metered *out)
{
    m->whole = m->whole && known && bytes <= UINT64_MAX - m->bytes;
    m->bytes += m->whole ? bytes : 0;
    *out = (ash_metered){.bytes = m->bytes, .ms = now_ms - m->began_ms};
    return !--m->running && m->whole;
}
