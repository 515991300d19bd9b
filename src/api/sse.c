/* Owns what every event stream of this server has in common: headers, pings, data and error lines.
 */
#include "api/sse.h"

#include <string.h>

bool ash_sse_open(ash_exchange *x)
{
    ash_exchange_add_header(x, "Cache-Control", "no-cache");
    ash_exchange_add_header(x, "X-Accel-Buffering", "no"); /* or nginx holds lines back */
    return ash_exchange_stream(x, 200, "text/event-stream; charset=utf-8");
}

int ash_sse_ping(ash_exchange *x)
{
    static const char ping[] = ": ping\n\n";
    return ash_exchange_write(x, ping, sizeof ping - 1);
}

void ash_sse_data(ash_buf *out, ash_str payload)
{
    ash_buf_adds(out, "data: ");
    for (;;) {
        const char *nl = payload.n ? memchr(payload.p, '\n', payload.n) : NULL;
        size_t n = nl ? (size_t)(nl - payload.p) : payload.n;
        ash_buf_add(out, payload.p, n);
        if (!nl) break;
        ash_buf_adds(out, "\ndata: ");
        payload.p += n + 1;
        payload.n -= n + 1;
    }
    ash_buf_adds(out, "\n\n");
}

void ash_sse_error(ash_buf *out, const ash_api_error *e)
{
    ash_buf_adds(out, "data: ");
    ash_errors_body(e, out);
    ash_buf_adds(out, "\n\n");
}
