/* Server-sent events (WHATWG HTML, 9.2) over an exchange. Any thread. */
#ifndef ASHLEY_API_SSE_H
#define ASHLEY_API_SSE_H

#include "api/errors.h"

#define ASH_SSE_PING_MS 15000 /* a comment after so much silence */

/* Sends 200 and the headers of an event stream, Content-Type included. false if the exchange was
 * answered before. */
bool ash_sse_open(ash_exchange *x);
/* A comment; as ash_exchange_write. */
int ash_sse_ping(ash_exchange *x);
/* Appends one event with this payload; line breaks in it are kept. */
void ash_sse_data(ash_buf *out, ash_str payload);
/* Appends {"error":...} as an event. */
void ash_sse_error(ash_buf *out, const ash_api_error *e);

#endif
