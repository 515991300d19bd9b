/* Errors as clients see them: one shape, {"error":{message,type,code,param,...}} (interfaces.md). */
#ifndef ASHLEY_API_ERRORS_H
#define ASHLEY_API_ERRORS_H

#include "api/http.h"
#include "base/arena.h"
#include "provider/provider.h"

/* Fills *e; the type follows from the status. code and param are borrowed or NULL. Returns e->status. */
int ash_errors_set(ash_api_error *e, int status, const char *code, const char *param, const char *fmt,
                   ...) ASH_PRINTF(5, 6);
/* From a library error. A message that starts with a quoted field name gives `param` (copied to a). */
void ash_errors_from(ash_api_error *e, const ash_err *err, ash_arena *a);
/* The same from what a manager's call on a model refused; ASH_EAUTH is consent that is missing. Returns
 * e->status. */
int ash_errors_manage(ash_api_error *e, const ash_err *err, ash_arena *a);
/* 503: the bodies of all requests take too much memory. Returns e->status. */
int ash_errors_crowded(ash_api_error *e);
/* "invalid_request_error", ... of an HTTP status. */
const char *ash_errors_type(int status);
/* Appends {"error":{...}}. Secrets known to the log are masked. */
int ash_errors_body(const ash_api_error *e, ash_buf *out);
/* The same as Ollama does: {"error":"text"}. */
int ash_errors_plain(const ash_api_error *e, ash_buf *out);
/* Answers the exchange with it, Retry-After included, and X-Should-Retry where trying again is of no use;
 * in Ollama's form under /api/. */
void ash_errors_send(ash_exchange *x, const ash_api_error *e);

#endif
