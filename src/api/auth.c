/* Owns the decision who may call. Without keys only pages and programs of this machine may: a Host
 * that is not loopback is DNS rebinding, a foreign Origin that changes state is a web page's
 * forgery. With keys neither is needed: a foreign page does not know the key. */
#include "api/auth.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static bool is_port(const char *p)
{
    if (*p == 0) return true;
    if (*p++ != ':') return false;
    size_t n = strspn(p, "0123456789");
    return n <= 5 && p[n] == 0;
}

bool ash_auth_host_is_loopback(const char *host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = strlen(names[i]);
        if (!strncasecmp(host, names[i], n) && is_port(host + n)) return true;
    }
    return false;
}

static bool origin_is_loopback(const char *origin)
{
    if (!strncasecmp(origin, "http://", 7)) return ash_auth_host_is_loopback(origin + 7);
    return !strncasecmp(origin, "https://", 8) && ash_auth_host_is_loopback(origin + 8);
}

static bool entry_allows(const char *entry, const char *origin)
{
    size_t n = strlen(entry);
    if (!strcmp(entry, "*")) return true;
    if (!strcasecmp(entry, "loopback")) return origin_is_loopback(origin);
    if (n > 3 && !strcmp(entry + n - 3, "://")) return !strncasecmp(entry, origin, n);
    while (n && entry[n - 1] == '/') n--;
    return strlen(origin) == n && !strncasecmp(entry, origin, n);
}

bool ash_auth_origin_allowed(const ash_auth_opts *o, const char *origin)
{
    static const char *const defaults[] = {"loopback", "tauri://", "app://", "vscode-webview://"};
    const char *const *list = o->n_origins ? o->origins : defaults;
    size_t n = o->n_origins ? o->n_origins : sizeof defaults / sizeof *defaults;
    for (size_t i = 0; i < n; i++)
        if (entry_allows(list[i], origin)) return true;
    return false;
}

/* The page that this server sent itself: its origin is the Host it was asked under. */
static bool same_origin(const char *origin, const char *host)
{
    const char *at = strstr(origin, "://");
    return host && at && !strcasecmp(at + 3, host);
}

static bool same_key(const char *given, size_t n, const char *key)
{
    size_t m = strlen(key);
    volatile unsigned char diff = n != m;
    for (size_t i = 0; i < n; i++) diff |= (unsigned char)(given[i] ^ key[i < m ? i : m]);
    return !diff;
}

static bool known_key(const ash_auth_opts *o, const char *given)
{
    bool found = false;
    size_t n = strlen(given);
    for (size_t i = 0; i < o->n_keys; i++) found |= same_key(given, n, o->keys[i]);
    return found;
}

static const char *bearer(const char *authorization)
{
    if (!authorization || strncasecmp(authorization, "Bearer", 6) ||
        !isspace((unsigned char)authorization[6]))
        return NULL;
    authorization += 6;
    while (*authorization == ' ' || *authorization == '\t') authorization++;
    return authorization;
}

static int check_key(const ash_auth_opts *o, const ash_auth_request *r, ash_api_error *e)
{
    const char *given = bearer(r->authorization);
    if ((given && known_key(o, given)) || (r->api_key && known_key(o, r->api_key))) return 0;
    if (!r->authorization && !r->api_key)
        return ash_errors_set(e, 401, "missing_api_key", NULL,
                              "this server wants a key: send 'Authorization: Bearer KEY', one of "
                              "ASHLEY_API_KEYS");
    return ash_errors_set(e, 401, "invalid_api_key", NULL,
                          "the key in 'Authorization: Bearer' is none of ASHLEY_API_KEYS");
}

static bool changes_state(const char *method)
{
    return strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0 &&
           strcmp(method, "OPTIONS") != 0;
}

int ash_auth_check(const ash_auth_opts *o, const ash_auth_request *r, bool is_public,
                   ash_api_error *e)
{
    if (o->n_keys) return is_public ? 0 : check_key(o, r, e);
    if (o->loopback && r->host && !ash_auth_host_is_loopback(r->host))
        return ash_errors_set(e, 403, "host_not_allowed", NULL,
                              "Host must be localhost, 127.0.0.1 or [::1] while no ASHLEY_API_KEYS "
                              "are set");
    if (r->origin && changes_state(r->method) && !ash_auth_origin_allowed(o, r->origin) &&
        !same_origin(r->origin, r->host))
        return ash_errors_set(e, 403, "origin_not_allowed", NULL,
                              "this web origin may not call the API: see ASHLEY_ORIGINS");
    return 0;
}
