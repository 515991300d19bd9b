/* A parser of server-sent events (WHATWG HTML, 9.2.6) that may be fed in pieces cut anywhere. Lines end
 * in LF, CR or CRLF; only `data` fields matter here, comments and other fields are skipped; a space after
 * the colon is optional; several data lines of one event are joined by LF. One thread at a time. */
#ifndef ASHLEY_PROVIDER_SSE_H
#define ASHLEY_PROVIDER_SSE_H

#include "base/buf.h"

typedef struct ash_sse {
    ash_buf in;    /* bytes fed; [head, len) are not used yet */
    ash_buf data;  /* of the event being read, or the one last given */
    size_t head;   /* where the next line begins */
    size_t scan;   /* no line ends before here */
    size_t max;    /* most bytes of a line or of an event's data */
    bool has_data; /* the event being read has a data field */
    bool given;    /* data was handed out and is stale at the next call */
    bool after_cr; /* an LF at head belongs to the CR before it */
    bool started;  /* past a byte order mark */
} ash_sse;

void ash_sse_init(ash_sse *s, size_t max);
void ash_sse_release(ash_sse *s); /* safe twice */
/* Feeds p[0..n), which is copied. 0, ASH_ENOMEM, or ASH_ELIMIT when more than `max` bytes and one piece
 * of 1 MiB wait to be taken. */
int ash_sse_push(ash_sse *s, const char *p, size_t n) ASH_MUST_CHECK;
/* 1 with the next event's data (borrowed until the next call), 0 when more bytes are needed, ASH_ELIMIT
 * for a line or event over the cap, ASH_ENOMEM. Call it until it gives 0. */
int ash_sse_next(ash_sse *s, ash_str *data) ASH_MUST_CHECK;
/* No more bytes will come: what an event that was never ended held so far. 1, 0 or an error, as above. */
int ash_sse_finish(ash_sse *s, ash_str *data) ASH_MUST_CHECK;

#endif
