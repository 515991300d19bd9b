/* Owns the client: its settings, the options of every request, small requests as a whole, and what
 * an answer or its absence means. Refuses redirects that address.c refuses. Any thread, each with
 * its own call. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/fs.h"
#include "hub/hub_private.h"

enum {
    BACKOFF_FIRST_MS = 250,
    BACKOFF_MOST_MS = 8000,
    LEAST_TRIES = 5,
    SLICE_MS = 50,
    SLOWEST = 512 /* bytes a second */
};

/* ---- opening ---- */

static char *copy(const char *s, bool *ok)
{
    char *c = s && *s ? strdup(s) : NULL;
    if (s && *s && !c) *ok = false;
    return c;
}

static int take_endpoint(ash_hub *h, const char *endpoint, ash_err *err)
{
    bool ok = true;
    h->endpoint = copy(endpoint && *endpoint ? endpoint : "https://huggingface.co", &ok);
    if (!ok) return ash_err_nomem(err, "the hub's address");
    h->plain = !strncmp(h->endpoint, "http://", 7);
    bool http = h->plain || !strncmp(h->endpoint, "https://", 8);
    size_t n = strlen(h->endpoint);
    while (n && h->endpoint[n - 1] == '/') h->endpoint[--n] = 0;
    if (http && n > 8 && !strpbrk(h->endpoint, "?# \t\r\n")) return 0;
    return ash_err_set(err, ASH_EINVAL,
                       "the hub's endpoint must be an address of http:// or https://");
}

static int take_token(ash_hub *h, const char *token, ash_err *err)
{
    if (!token || !*token) return 0;
    for (const char *p = token; *p; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7F)
            return ash_err_set(err, ASH_EINVAL,
                               "the hub's token holds a character that no token has");
    size_t n = strlen(token) + sizeof "Authorization: Bearer ";
    h->authorization = malloc(n);
    if (!h->authorization) return ash_err_nomem(err, "the hub's token");
    snprintf(h->authorization, n, "Authorization: Bearer %s", token);
    return 0;
}

int ash_hub_open(const ash_hub_opts *o, ash_hub **out, ash_err *err)
{
    bool ok = true;
    *out = NULL;
    ash_hub *h = calloc(1, sizeof *h);
    if (!h) return ash_err_nomem(err, "the hub client");
    pthread_mutex_init(&h->lock, NULL);
    h->offline = o->offline;
    h->connections = o->connections > 0 ? o->connections : 8;
    if (h->connections > ASH_MAX_HUB_CONNECTIONS) h->connections = ASH_MAX_HUB_CONNECTIONS;
    h->connect_ms = o->connect_ms > 0 ? o->connect_ms : 10000;
    h->stall_ms = o->stall_ms > 0 ? o->stall_ms : 20000;
    h->patience_ms = o->patience_ms > 0 ? o->patience_ms : 3 * h->stall_ms;
    h->cache_dir = copy(o->cache_dir, &ok);
    h->proxy = copy(o->proxy, &ok);
    h->no_proxy = copy(o->no_proxy, &ok);
    int rc = !ok ? ash_err_nomem(err, "the hub client") : take_endpoint(h, o->endpoint, err);
    if (!rc && !h->cache_dir)
        rc = ash_err_set(err, ASH_EINVAL,
                         "there is no folder for the hub's cache: set HF_HUB_CACHE or HOME");
    if (!rc) rc = take_token(h, o->token, err);
    if (rc) {
        ash_hub_close(h);
        return rc;
    }
    *out = h;
    return 0;
}

void ash_hub_close(ash_hub *h)
{
    if (!h) return;
    if (h->authorization) explicit_bzero(h->authorization, strlen(h->authorization));
    free(h->authorization);
    free(h->cache_dir);
    free(h->endpoint);
    free(h->proxy);
    free(h->no_proxy);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

int ash_hub_read_token(const char *path, char **out, ash_err *err)
{
    ash_buf text;
    *out = NULL;
    int rc = ash_fs_read(path, ASH_MAX_HUB_TOKEN, &text, err);
    if (!rc) {
        const char *p = ash_buf_cstr(&text);
        p += strspn(p, " \t\r\n");
        size_t n = strcspn(p, " \t\r\n");
        if (n && !(*out = strndup(p, n))) rc = ash_err_nomem(err, "token");
        if (text.data) explicit_bzero(text.data, text.len);
    }
    ash_buf_release(&text);
    return rc == ASH_ENOENT ? 0 : rc;
}

int hub_ready(ash_hub *h, ash_err *err)
{
    pthread_mutex_lock(&h->lock);
    int rc = h->open ? 0 : ash_curl_open(&h->curl, err);
    if (!rc && !h->open) {
        if (h->curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
            rc = ash_err_set(err, ASH_ENOMEM, "libcurl does not start");
        else if ((rc = hub_origin_of(&h->curl, h->endpoint, &h->origin, err)))
            rc = ash_err_set(err, ASH_EINVAL,
                             "the hub's endpoint is no address of http or https, or has a user's name in it");
        h->open = !rc;
        if (!rc && hub_host_private(h->origin.host)) atomic_store(&h->private_ok, true);
    }
    pthread_mutex_unlock(&h->lock);
    return rc;
}

/* ---- every request ---- */

int hub_request_setup(ash_hub *h, CURL *e, const char *url, hub_connect *connect,
                      struct curl_slist **list, ash_err *err)
{
    const ash_curl *c = &h->curl;
    hub_origin origin;
    *list = NULL;
    int rc = hub_origin_of(c, url, &origin, err);
    if (rc) return rc;
    *connect = (hub_connect){.hub = h, .endpoint = hub_origin_eq(&origin, &h->origin)};
    if (connect->endpoint && h->authorization && !(*list = c->slist_append(NULL, h->authorization)))
        return ash_err_nomem(err, "a request");
    c->easy_setopt(e, CURLOPT_URL, url);
    c->easy_setopt(e, CURLOPT_HTTPHEADER, *list);
    c->easy_setopt(e, CURLOPT_USERAGENT, "ashley/" ASHLEY_VERSION);
    c->easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    c->easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    /* Ranges in flight are connections of their own; within HTTP/2 they would share one. */
    c->easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    c->easy_setopt(e, CURLOPT_PROXY, origin.tls && h->proxy ? h->proxy : "");
    c->easy_setopt(e, CURLOPT_NOPROXY, h->no_proxy ? h->no_proxy : "");
    c->easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
#if CURL_AT_LEAST_VERSION(7, 85, 0)
    c->easy_setopt(e, CURLOPT_PROTOCOLS_STR, h->plain ? "http,https" : "https");
#else
    c->easy_setopt(e, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTPS | (h->plain ? CURLPROTO_HTTP : 0)));
#endif
    c->easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)h->connect_ms);
    c->easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, (long)SLOWEST);
    c->easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)((h->stall_ms + 999) / 1000));
    c->easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, hub_open_socket);
    c->easy_setopt(e, CURLOPT_OPENSOCKETDATA, connect);
    return 0;
}

int64_t hub_backoff_ms(int failed, int retry_after_s)
{
    if (retry_after_s > HUB_BACKOFF_MOST_S) return -1;
    int64_t ms = failed < 1 ? 0 : BACKOFF_FIRST_MS;
    for (int i = 1; i < failed && ms < BACKOFF_MOST_MS; i++) ms *= 2;
    if (ms > BACKOFF_MOST_MS) ms = BACKOFF_MOST_MS;
    return retry_after_s > 0 && retry_after_s * 1000 > ms ? retry_after_s * 1000 : ms;
}

int64_t hub_trouble_add(const ash_hub *h, hub_trouble *t, int retry_after_s, bool patient)
{
    int64_t now = ash_clock_ms();
    if (!t->tries++) t->since = now;
    int64_t wait = hub_backoff_ms(t->tries, retry_after_s);
    bool enough = !patient || now + wait - t->since > h->patience_ms;
    return t->tries >= LEAST_TRIES && enough ? -1 : wait;
}

bool hub_sleep(int64_t ms, const atomic_bool *cancel)
{
    int64_t until = ash_clock_ms() + ms;
    for (int64_t left; (left = until - ash_clock_ms()) > 0;) {
        if (hub_cancelled(cancel)) return false;
        if (left > SLICE_MS) left = SLICE_MS;
        nanosleep(&(struct timespec){.tv_nsec = left * 1000000}, NULL);
    }
    return !hub_cancelled(cancel);
}

/* ---- what answers mean ---- */

bool hub_status_passes(long status)
{
    return status == 408 || status == 425 || status == 429 || (status >= 500 && status != 501);
}

static int denied(const ash_hub *h, long status, const hub_headers *headers, const char *repo,
                  ash_err *err)
{
    const char *token = h->authorization ? "the account of HF_TOKEN" : "your account";
    if (!strcmp(headers->error_code, "GatedRepo"))
        return ash_err_set(err, ASH_EAUTH, "'%s' is gated: accept its terms with %s at %.150s/%s%s",
                           repo, token, h->endpoint, repo,
                           h->authorization ? "" : ", and set HF_TOKEN to a token of that account");
    if (strstr(headers->error_text, "disabled"))
        return ash_err_set(err, ASH_EAUTH, "'%s' is disabled on the hub", repo);
    if (status == 401 && h->authorization)
        return ash_err_set(
            err, ASH_EAUTH,
            "the hub does not accept HF_TOKEN for '%s': the token is wrong or has expired, or the "
            "repository is private or does not exist",
            repo);
    if (status == 401)
        return ash_err_set(
            err, ASH_EAUTH,
            "'%s' is private, gated or does not exist: check the name, or set HF_TOKEN to a token "
            "that may read it",
            repo);
    return ash_err_set(err, ASH_EAUTH, "the hub refuses access to '%s'%s%s%s", repo,
                       *headers->error_text ? ": " : "", headers->error_text,
                       h->authorization ? "" : "; set HF_TOKEN if it is private");
}

int hub_status_error(const ash_hub *h, long status, const hub_headers *headers, const char *repo,
                     const char *revision, const char *path, ash_err *err)
{
    if (status == 401 || status == 403) return denied(h, status, headers, repo, err);
    if (status == 404 && !strcmp(headers->error_code, "RevisionNotFound"))
        return ash_err_set(err, ASH_ENOENT, "'%s' has no revision '%.100s'", repo, revision);
    if (status == 404 && path)
        return ash_err_set(err, ASH_ENOENT, "'%s' has no file '%.200s' at revision '%.100s'", repo,
                           path, revision);
    if (status == 404)
        return ash_err_set(err, ASH_ENOENT, "no repository '%s' on %.150s%s", repo, h->endpoint,
                           h->authorization ? "" : "; if it is private, set HF_TOKEN");
    if (status == 429 && headers->retry_after_s > 0)
        return ash_err_set(err, ASH_ENET,
                           "the hub answers 429, too many requests: try again in %d s",
                           headers->retry_after_s);
    return ash_err_set(err, ASH_ENET, "the hub answers %ld for '%s'%s%s%s%.150s", status, repo,
                       path ? ", file " : "", path ? path : "", *headers->error_text ? ": " : "",
                       headers->error_text);
}

/* Where the request went, for people: a host, never the address, which may be signed. */
static void place_of(const ash_hub *h, CURL *easy, char *out, size_t size)
{
    char *url = NULL;
    hub_origin to;
    *out = 0;
    h->curl.easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
    if (url && !hub_origin_of(&h->curl, url, &to, NULL))
        snprintf(out, size, "%s%s: ", to.host, to.tls && h->proxy ? ", HTTPS_PROXY is set" : "");
}

int hub_transfer_error(const ash_hub *h, CURL *easy, CURLcode code, const hub_connect *connect,
                       const char *what, ash_err *err)
{
    long tunnel = 0;
    char place[300];
    h->curl.easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &tunnel);
    place_of(h, easy, place, sizeof place);
    if (connect->refused)
        return ash_err_set(
            err, ASH_ENET,
            "%s: the address is in a private range: refused (only an endpoint that is in one "
            "itself may lead there)",
            what);
    if (code == CURLE_OPERATION_TIMEDOUT)
        return ash_err_set(err, ASH_ENET, "%s: %sno answer in time, or no bytes for %lld s", what, place,
                           (long long)(h->stall_ms + 999) / 1000);
    if (code == CURLE_OUT_OF_MEMORY) return ash_err_nomem(err, what);
    if (tunnel && tunnel / 100 != 2)
        return ash_err_set(err, ASH_ENET, "%s: the proxy of HTTPS_PROXY answers %ld", what, tunnel);
    return ash_err_set(err, ASH_ENET, "%s: %s%s", what, place, h->curl.easy_strerror(code));
}

/* ---- small requests ---- */

typedef struct exchange {
    ash_hub *hub;
    const hub_question *q;
    hub_answer *answer;
    CURL *easy;
    bool looked;   /* the answer's head was */
    uint64_t skip; /* bytes of its body to pass over */
    bool over;     /* a cap */
} exchange;

static size_t on_body(char *p, size_t size, size_t n, void *user)
{
    exchange *x = user;
    size_t bytes = size * n, have = x->answer->body.len;
    if (!x->looked) {
        long status = 0;
        x->hub->curl.easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
        x->looked = true;
        /* A host without ranges sends all: what is before the range is passed over, within the cap. */
        x->skip = x->q->length && status == 200 ? x->q->offset : 0;
        x->over = x->skip > x->q->max;
    }
    size_t cut = x->skip < bytes ? (size_t)x->skip : bytes, keep = bytes - cut;
    x->skip -= cut;
    if (x->q->length && keep > x->q->length - have) keep = x->q->length - have;
    if (x->over || ash_buf_add(&x->answer->body, p + cut, keep)) {
        x->over = true;
        return 0;
    }
    return cut + keep; /* less than came, when what was asked for is here: the rest is not wanted */
}

static size_t on_header(char *p, size_t size, size_t n, void *user)
{
    exchange *x = user;
    if (hub_headers_line(&x->answer->headers, p, size * n)) return size * n;
    x->over = true;
    return 0;
}

static int on_progress(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const exchange *x = user;
    return hub_cancelled(x->q->cancel);
}

static void reset(hub_answer *a, size_t max)
{
    a->status = 0;
    ash_buf_release(&a->body);
    ash_buf_init(&a->body, max);
    hub_headers_init(&a->headers);
}

/* One request to one URL. *next is where it redirects to, the caller's, or NULL. ASH_EAGAIN: it may
 * pass. */
static int exchange_once(exchange *x, CURL *e, const char *url, char **next, ash_err *err)
{
    ash_hub *h = x->hub;
    const ash_curl *c = &h->curl;
    struct curl_slist *list = NULL;
    hub_connect connect;
    char range[64];
    *next = NULL;
    x->easy = e;
    x->over = x->looked = false;
    reset(x->answer, x->q->max);
    int rc = hub_request_setup(h, e, url, &connect, &list, err);
    if (rc) return rc;
    c->easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    c->easy_setopt(e, CURLOPT_WRITEDATA, x);
    c->easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    c->easy_setopt(e, CURLOPT_HEADERDATA, x);
    c->easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
    c->easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress);
    c->easy_setopt(e, CURLOPT_XFERINFODATA, x);
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)x->q->offset,
             (unsigned long long)(x->q->offset + x->q->length - 1));
    c->easy_setopt(e, CURLOPT_RANGE, x->q->length ? range : NULL);
    CURLcode code = c->easy_perform(e);
    char *to = NULL;
    c->easy_getinfo(e, CURLINFO_RESPONSE_CODE, &x->answer->status);
    c->easy_getinfo(e, CURLINFO_REDIRECT_URL, &to);
    bool enough = code == CURLE_WRITE_ERROR && !x->over && x->q->length &&
                  x->answer->body.len == x->q->length;
    if (hub_cancelled(x->q->cancel))
        rc = ash_err_set(err, ASH_ECANCELED, "interrupted");
    else if (x->over)
        rc = ash_err_set(err, ASH_ELIMIT,
                         "%s: the answer is larger than %zu bytes, or its headers are", x->q->what,
                         x->q->max);
    else if (code != CURLE_OK && !enough)
        rc = hub_transfer_error(h, e, code, &connect, x->q->what, err);
    else if (x->answer->status / 100 == 3 && to && !(*next = strdup(to)))
        rc = ash_err_nomem(err, "an address");
    c->easy_setopt(e, CURLOPT_HTTPHEADER, NULL);
    c->slist_free_all(list);
    return rc == ASH_ENET && !connect.refused ? ASH_EAGAIN : rc;
}

/* The same with redirects followed. */
static int exchange_follow(exchange *x, CURL *e, ash_err *err)
{
    char *url = strdup(x->q->url), *next = NULL;
    int rc = url ? 0 : ash_err_nomem(err, "an address");
    for (int hops = 0; !rc; hops++) {
        hub_origin origin;
        rc = exchange_once(x, e, url, &next, err);
        free(url);
        url = next;
        if (rc || !next) break;
        if (hops == ASH_MAX_HUB_REDIRECTS)
            rc = ash_err_set(err, ASH_ENET, "%s: the hub redirects in circles", x->q->what);
        else if (!(rc = hub_address_check(x->hub, next, &origin, err)) && !x->q->anywhere &&
                 !hub_origin_eq(&origin, &x->hub->origin))
            rc = ash_err_set(err, ASH_ENET,
                             "%s: the hub redirects to %.200s: not followed; set HF_ENDPOINT to "
                             "that host if it is the right one",
                             x->q->what, origin.host);
    }
    free(url);
    return rc;
}

/* Waits for the next try; who may be told is told why. False if cancelled. */
static bool wait_told(const hub_question *q, const hub_trouble *t, const char *why, int64_t ms)
{
    int64_t until = ash_clock_ms() + ms, left = ms;
    while (left > 0) {
        ash_hub_progress p = {.eta_ms = -1, .trouble = why, .tries = t->tries, .retry_ms = left};
        if (q->told) q->told->progress(q->told->user, &p);
        if (!hub_sleep(left < 500 ? left : 500, q->cancel)) return false;
        left = until - ash_clock_ms();
    }
    return true;
}

int hub_ask(ash_hub *h, const hub_question *q, const char *repo, const char *revision,
            hub_answer *out, ash_err *err)
{
    ash_err own = ASH_ERR_INIT;
    exchange x = {.hub = h, .q = q, .answer = out};
    ash_buf_init(&out->body, q->max);
    if (!err) err = &own;
    int rc = hub_ready(h, err);
    if (rc) return rc;
    CURL *e = h->curl.easy_init();
    if (!e) return ash_err_nomem(err, "a request");
    for (hub_trouble t = {0};;) {
        rc = exchange_follow(&x, e, err);
        bool passes = rc == ASH_EAGAIN || (!rc && hub_status_passes(out->status));
        if (!passes) break;
        ash_err why = rc ? *err : ASH_ERR_INIT;
        if (!rc) hub_status_error(h, out->status, &out->headers, repo, revision, NULL, &why);
        int64_t wait = hub_trouble_add(h, &t, out->headers.retry_after_s, q->told != NULL);
        if (wait < 0) break;
        if (!wait_told(q, &t, why.msg, wait)) {
            rc = ash_err_set(err, ASH_ECANCELED, "interrupted");
            break;
        }
    }
    if (rc == ASH_EAGAIN) rc = err->code; /* set by the last try */
    if (!rc && out->status / 100 != 2)
        rc = hub_status_error(h, out->status, &out->headers, repo, revision, NULL, err);
    h->curl.easy_cleanup(e);
    return rc;
}

int hub_resolve_url(const ash_hub *h, const ash_hub_tree *t, const char *path, ash_buf *out,
                    ash_err *err)
{
    ash_buf_init(out, ASH_MAX_URL);
    ash_buf_printf(out, "%s/%s/resolve/%s/", h->endpoint, t->repo, t->commit);
    hub_escape(out, path, true);
    return ash_buf_check(out, "an address", err);
}
