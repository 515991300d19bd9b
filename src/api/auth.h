/* Who may call: keys, Host, Origin. Pure over the request's headers; any thread. */
#ifndef ASHLEY_API_AUTH_H
#define ASHLEY_API_AUTH_H

#include "api/errors.h"

typedef struct ash_auth_opts {
    const char *const *keys; /* none: open */
    size_t n_keys;
    const char *const *origins; /* "scheme://host[:port]", "scheme://" for a whole scheme, "*", or
                                   "loopback": http and https on localhost, 127.0.0.1, [::1], any port.
                                   None: loopback, tauri://, app://, vscode-webview:// */
    size_t n_origins;
    bool loopback; /* listens on a loopback address */
} ash_auth_opts;

/* The headers that matter; NULL = absent. */
typedef struct ash_auth_request {
    const char *method, *host, *origin, *authorization, *api_key /* x-api-key */;
} ash_auth_request;

/* Whether `host` (a Host header's value) names this machine's loopback, at any port. */
bool ash_auth_host_is_loopback(const char *host);
/* Whether CORS headers may be sent to this origin. */
bool ash_auth_origin_allowed(const ash_auth_opts *o, const char *origin);
/* 0, or the HTTP status of *e: 403 for Host and Origin (checked also for public paths), 401 for the
 * key unless is_public. Keys are compared in time that depends on their lengths only. */
int ash_auth_check(const ash_auth_opts *o, const ash_auth_request *r, bool is_public, ash_api_error *e);

#endif
