/* Owns the transfer thread of the upstream provider: one libcurl multi handle on one epoll, any
 * number of requests. Refuses redirects and URLs that are not http(s). start, resume and
 * close_request only leave notes in an inbox; curl handles live and die on the transfer thread,
 * which gives all events. */
#include "provider/openai.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "provider/openai_private.h"

enum {
    CONNECT_MS = 10000,
    LINGER_MS = 2000,
    WHOLE_MS = 600000, /* for a whole answer, as OpenAI's own clients wait */
    EVENTS = 128,
    MAX_IDLE_CONNECTIONS = 256,
};

struct openai {
    ash_provider provider; /* first: what callers hold */
    char *name, *chat_url, *completion_url, *authorization, *proxy, *no_proxy;
    pthread_t thread;
    int epoll, wake; /* wake: eventfd */
    pthread_mutex_t lock;
    ash_answering *inbox; /* lock: newest first */
    bool stop;            /* lock */
    /* the transfer thread's */
    ash_curl curl;        /* once multi is set */
    CURLM *multi;         /* NULL: no request yet, or no transfer is possible */
    ash_err failure;      /* why */
    ash_answering *all;
    int64_t curl_due;      /* monotonic ms when curl wants to be called, -1: not */
    int64_t next_deadline; /* no request is late before; 0: none */
};

const char *openai_name(const openai *p)
{
    return p->name;
}

void openai_deadline(ash_answering *a, int64_t ms, const char *code)
{
    openai *p = a->owner;
    a->deadline = ms > 0 ? ash_clock_ms() + ms : 0;
    a->late = code;
    if (a->deadline && (!p->next_deadline || a->deadline < p->next_deadline))
        p->next_deadline = a->deadline;
}

/* ---- requests ---- */

static void free_request(ash_answering *a)
{
    if (!a) return;
    if (a->easy) a->curl->easy_cleanup(a->easy);
    if (a->headers) a->curl->slist_free_all(a->headers);
    free(a->body);
    free(a->id);
    free(a->model);
    ash_sse_release(&a->sse);
    ash_buf_release(&a->whole);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* The client's object with our model's name; unknown fields stay, but not those that are Ashley's own
 * words (known, and not OpenAI's): it refuses a request over a name that it does not know. */
static int make_body(ash_answering *a, const ash_request *req)
{
    static const char *const ours[] = {"return_progress", "truncate", "cache_prompt", "keep_alive",
                                       "ttl"};
    json_t *body = json_copy((json_t *)req->body);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) json_object_del(body, ours[i]);
    ash_buf text;
    ash_buf_init(&text, ASH_MAX_JSON_BODY * 2u);
    int rc = ASH_ENOMEM;
    if (body && !json_object_set_new(body, "model", json_string(req->model)) &&
        !json_object_set_new(body, "stream", json_boolean(req->stream)))
        rc = ash_json_dump(body, &text);
    json_decref(body);
    a->body_len = text.len;
    a->body = ash_buf_take(&text);
    return rc;
}

static ash_answering *make_request(openai *p, const ash_request *req, ash_answer_fn fn, void *user)
{
    ash_answering *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    pthread_mutex_init(&a->lock, NULL);
    ash_sse_init(&a->sse, ASH_MAX_SSE_LINE);
    ash_buf_init(&a->whole, ASH_MAX_UPSTREAM_BODY);
    a->owner = p;
    a->fn = fn;
    a->user = user;
    a->chat = req->kind == ASH_REQUEST_CHAT;
    a->stream = req->stream;
    a->budgets = req->budgets;
    a->id = strdup(req->id ? req->id : "");
    a->model = strdup(req->model);
    if (!a->id || !a->model || make_body(a, req)) {
        free_request(a);
        return NULL;
    }
    return a;
}

/* ---- curl callbacks, all on the transfer thread ---- */

static size_t on_body(char *bytes, size_t size, size_t n, void *user)
{
    ash_answering *a = user;
    if (a->paused) return CURL_WRITEFUNC_PAUSE;
    return openai_reply_bytes(a, bytes, n * size) ? n * size : CURL_WRITEFUNC_ERROR;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known)
{
    openai *p = user;
    struct epoll_event ev = {.data.fd = fd};
    ev.events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(p->epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    if (epoll_ctl(p->epoll, EPOLL_CTL_MOD, fd, &ev) && errno == ENOENT)
        epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &ev);
    return 0;
}

static int on_timer(CURLM *multi, long ms, void *user)
{
    openai *p = user;
    p->curl_due = ms < 0 ? -1 : ash_clock_ms() + ms;
    return 0;
}

/* ---- transfers ---- */

static bool add_header(ash_answering *a, const char *line)
{
    struct curl_slist *more = a->curl->slist_append(a->headers, line);
    if (more) a->headers = more;
    return more != NULL;
}

static bool printable(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || (unsigned char)*s > 0x7E) return false;
    return true;
}

static bool add_headers(ash_answering *a)
{
    char id[300];
    openai *p = a->owner;
    bool ok = add_header(a, "Content-Type: application/json") && add_header(a, "Expect:") &&
              add_header(a, a->stream ? "Accept: text/event-stream" : "Accept: application/json");
    if (ok && p->authorization) ok = add_header(a, p->authorization);
    if (ok && *a->id && printable(a->id) &&
        snprintf(id, sizeof id, "X-Request-Id: %s", a->id) < (int)sizeof id)
        ok = add_header(a, id);
    return ok;
}

static void set_options(ash_answering *a)
{
    openai *p = a->owner;
    CURL *e = a->easy;
    const ash_curl *c = a->curl;
    const char *url = a->chat ? p->chat_url : p->completion_url;
    bool tls = !strncasecmp(url, "https", 5);
    c->easy_setopt(e, CURLOPT_URL, url);
    c->easy_setopt(e, CURLOPT_PRIVATE, a);
    c->easy_setopt(e, CURLOPT_ERRORBUFFER, a->curl_error);
    c->easy_setopt(e, CURLOPT_POST, 1L);
    c->easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)a->body_len);
    c->easy_setopt(e, CURLOPT_POSTFIELDS, a->body);
    c->easy_setopt(e, CURLOPT_HTTPHEADER, a->headers);
    c->easy_setopt(e, CURLOPT_USERAGENT, "ashley/" ASHLEY_VERSION);
    c->easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    c->easy_setopt(e, CURLOPT_WRITEDATA, a);
    c->easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    c->easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    c->easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    c->easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    /* only what the configuration says: curl must not look into the environment by itself */
    c->easy_setopt(e, CURLOPT_PROXY, tls && p->proxy ? p->proxy : "");
    c->easy_setopt(e, CURLOPT_NOPROXY, p->no_proxy ? p->no_proxy : "");
#if LIBCURL_VERSION_NUM >= 0x075500
    c->easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    c->easy_setopt(e, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
}

static void begin(openai *p, ash_answering *a)
{
    a->curl = &p->curl;
    a->next = p->all;
    if (p->all) p->all->prev = a;
    p->all = a;
    a->easy = p->multi ? p->curl.easy_init() : NULL;
    bool ok = a->easy && add_headers(a);
    if (ok) {
        set_options(a);
        ok = p->curl.multi_add_handle(p->multi, a->easy) == CURLM_OK;
    }
    if (!ok) {
        a->transferred = true;
        openai_reply_fail(a, "cannot be asked: %s.",
                          *p->failure.msg ? p->failure.msg : "no memory for the transfer");
        return;
    }
    /* The first token of a whole answer comes with its last one: only who set a budget means that. */
    bool patient = !a->stream && a->budgets.first_token_renewed && a->budgets.first_token_ms > 0;
    if (patient && a->budgets.first_token_ms < WHOLE_MS) a->budgets.first_token_ms = WHOLE_MS;
    openai_deadline(a, a->budgets.first_token_ms, "first_token_timeout");
}

static void detach(ash_answering *a)
{
    if (a->easy && !a->transferred) a->curl->multi_remove_handle(a->owner->multi, a->easy);
    a->transferred = true;
}

static void forget(openai *p, ash_answering *a)
{
    if (p->all == a) p->all = a->next;
    if (a->prev) a->prev->next = a->next;
    if (a->next) a->next->prev = a->prev;
    detach(a);
    free_request(a);
}

/* The caller closed it: freed now, or once the tail of a complete stream is read, so that the
 * connection can be used again. */
static void end_request(openai *p, ash_answering *a)
{
    a->close_seen = true;
    if (a->done && !a->transferred)
        openai_deadline(a, LINGER_MS, NULL);
    else
        forget(p, a);
}

static void continue_request(ash_answering *a)
{
    if (!a->paused) return;
    openai_reply_resume(a);
    if (a->paused) return;
    if (a->transferred)
        openai_reply_finish(a);
    else
        a->curl->easy_pause(a->easy, CURLPAUSE_CONT);
}

/* ---- the thread ---- */

static void take_finished(openai *p)
{
    CURLMsg *msg;
    int left;
    while ((msg = p->curl.multi_info_read(p->multi, &left))) {
        if (msg->msg != CURLMSG_DONE) continue;
        ash_answering *a = NULL;
        CURL *easy = msg->easy_handle;
        CURLcode result = msg->data.result;
        p->curl.easy_getinfo(easy, CURLINFO_PRIVATE, &a);
        p->curl.multi_remove_handle(p->multi, easy);
        a->transferred = true;
        a->result = result;
        if (a->close_seen)
            forget(p, a);
        else
            openai_reply_finish(a);
    }
}

/* Hands out the time-outs that are due, and finds the next one. */
static void check_deadlines(openai *p)
{
    int64_t now = ash_clock_ms();
    if (!p->next_deadline || now < p->next_deadline) return;
    p->next_deadline = 0;
    for (ash_answering *a = p->all, *next; a; a = next) {
        next = a->next;
        if (a->deadline && now >= a->deadline) {
            a->deadline = 0;
            if (a->close_seen) {
                forget(p, a);
                continue;
            }
            openai_reply_late(a);
            detach(a);
        } else if (a->deadline && (!p->next_deadline || a->deadline < p->next_deadline)) {
            p->next_deadline = a->deadline;
        }
    }
}

/* What callers left; false when the provider is being closed. */
static bool read_inbox(openai *p)
{
    pthread_mutex_lock(&p->lock);
    ash_answering *list = p->inbox, *fifo = NULL;
    bool stop = p->stop;
    p->inbox = NULL;
    while (list) { /* oldest first */
        ash_answering *a = list;
        list = a->inbox_next;
        a->inbox_next = fifo;
        fifo = a;
    }
    while (fifo) {
        ash_answering *a = fifo;
        fifo = a->inbox_next;
        bool start = a->want_start, resume = a->want_resume, close = a->want_close;
        a->in_inbox = a->want_start = a->want_resume = false;
        pthread_mutex_unlock(&p->lock);
        if (start && close)
            free_request(a); /* never began */
        else if (start)
            begin(p, a);
        else if (close)
            end_request(p, a);
        else if (resume)
            continue_request(a);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return !stop;
}

static int wait_ms(const openai *p)
{
    int64_t now = ash_clock_ms(), due = -1;
    if (p->curl_due >= 0) due = p->curl_due;
    if (p->next_deadline && (due < 0 || p->next_deadline < due)) due = p->next_deadline;
    if (due < 0) return -1;
    return due <= now ? 0 : due - now > 60000 ? 60000 : (int)(due - now);
}

static void turn(openai *p)
{
    struct epoll_event ev[EVENTS];
    int running, n = epoll_wait(p->epoll, ev, EVENTS, wait_ms(p));
    for (int i = 0; i < n; i++) {
        if (ev[i].data.fd == p->wake) {
            uint64_t count;
            ssize_t ignored = read(p->wake, &count, sizeof count);
            (void)ignored;
            continue;
        }
        int flags = (ev[i].events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
                    (ev[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                    (ev[i].events & EPOLLERR ? CURL_CSELECT_ERR : 0);
        p->curl.multi_socket_action(p->multi, ev[i].data.fd, flags, &running);
    }
    if (p->curl_due >= 0 && ash_clock_ms() >= p->curl_due) {
        p->curl_due = -1;
        p->curl.multi_socket_action(p->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
}

static void open_multi(openai *p)
{
    if (ash_curl_open(&p->curl, &p->failure)) return;
    p->curl.global_init(CURL_GLOBAL_DEFAULT);
    p->multi = p->curl.multi_init();
    if (!p->multi) return;
    p->curl.multi_setopt(p->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    p->curl.multi_setopt(p->multi, CURLMOPT_SOCKETDATA, p);
    p->curl.multi_setopt(p->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    p->curl.multi_setopt(p->multi, CURLMOPT_TIMERDATA, p);
    p->curl.multi_setopt(p->multi, CURLMOPT_MAXCONNECTS, (long)MAX_IDLE_CONNECTIONS);
}

static bool stopping(openai *p)
{
    pthread_mutex_lock(&p->lock);
    bool stop = p->stop;
    pthread_mutex_unlock(&p->lock);
    return stop;
}

/* libcurl is opened and set up here at the first request, which costs milliseconds that a start has
 * not. */
static void *transfer_thread(void *arg)
{
    openai *p = arg;
    struct epoll_event ev;
    while (epoll_wait(p->epoll, &ev, 1, -1) != 1) {
    }
    if (!stopping(p)) {
        open_multi(p);
    }
    while (read_inbox(p)) {
        if (p->multi) take_finished(p);
        check_deadlines(p);
        turn(p);
        if (p->multi) take_finished(p);
    }
    while (p->all) forget(p, p->all);
    if (p->multi) p->curl.multi_cleanup(p->multi);
    return NULL;
}

/* ---- the provider ---- */

static void put_in_inbox(openai *p, ash_answering *a)
{
    if (!a->in_inbox) {
        a->in_inbox = true;
        a->inbox_next = p->inbox;
        p->inbox = a;
    }
}

static void wake(openai *p)
{
    uint64_t one = 1;
    ssize_t ignored = write(p->wake, &one, sizeof one);
    (void)ignored;
}

static int openai_start(ash_provider *provider, const ash_request *req, ash_answer_fn fn,
                        void *user, ash_answering **out, ash_err *err)
{
    openai *p = (openai *)provider;
    ash_answering *a = make_request(p, req, fn, user);
    *out = a;
    if (!a) return ash_err_nomem(err, "upstream request");
    pthread_mutex_lock(&p->lock);
    a->want_start = true;
    put_in_inbox(p, a);
    pthread_mutex_unlock(&p->lock);
    wake(p);
    return 0;
}

static void openai_resume(ash_provider *provider, ash_answering *a)
{
    openai *p = (openai *)provider;
    pthread_mutex_lock(&p->lock);
    a->want_resume = true;
    put_in_inbox(p, a);
    pthread_mutex_unlock(&p->lock);
    wake(p);
}

static void openai_close_request(ash_provider *provider, ash_answering *a)
{
    openai *p = (openai *)provider;
    pthread_mutex_lock(&a->lock); /* waits for an event that is being given */
    a->closed = true;
    pthread_mutex_unlock(&a->lock);
    pthread_mutex_lock(&p->lock);
    a->want_close = true;
    put_in_inbox(p, a);
    pthread_mutex_unlock(&p->lock);
    wake(p);
}

static void release(openai *p)
{
    if (p->epoll >= 0) close(p->epoll);
    if (p->wake >= 0) close(p->wake);
    free(p->name);
    free(p->chat_url);
    free(p->completion_url);
    free(p->authorization);
    free(p->proxy);
    free(p->no_proxy);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void openai_close(ash_provider *provider)
{
    openai *p = (openai *)provider;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_mutex_unlock(&p->lock);
    wake(p);
    pthread_join(p->thread, NULL);
    release(p);
}

/* base + path, the base's slashes at the end dropped, before its query. */
static char *join_url(const char *base, const char *path)
{
    size_t n = strcspn(base, "?#"), query = n + strcspn(base + n, "#");
    const char *tail = base + n;
    size_t tail_len = query - n;
    while (n && base[n - 1] == '/') n--;
    ash_buf b;
    ash_buf_init(&b, ASH_MAX_URL + 64);
    ash_buf_add(&b, base, n);
    ash_buf_adds(&b, path);
    ash_buf_add(&b, tail, tail_len);
    if (b.failed) ash_buf_release(&b);
    return ash_buf_take(&b);
}

static int check_opts(const ash_openai_opts *o, ash_err *err)
{
    const char *url = o->base_url ? o->base_url : "";
    size_t scheme = !strncasecmp(url, "http://", 7) ? 7 : !strncasecmp(url, "https://", 8) ? 8 : 0;
    if (!scheme || !url[scheme] || strchr("/?#", url[scheme]) || strlen(url) > ASH_MAX_URL ||
        !printable(url) || strchr(url, ' '))
        return ash_err_set(err, ASH_EINVAL,
                           "the upstream's address must be a URL that begins with http:// or "
                           "https://");
    if (o->api_key && !printable(o->api_key))
        return ash_err_set(err, ASH_EINVAL,
                           "the upstream's key has characters that no header can hold");
    return 0;
}

static int copy_opts(openai *p, const ash_openai_opts *o, ash_err *err)
{
    p->name = strdup(o->name ? o->name : "openai");
    p->chat_url = join_url(o->base_url, "/chat/completions");
    p->completion_url = join_url(o->base_url, "/completions");
    bool ok = p->name && p->chat_url && p->completion_url;
    if (o->proxy && *o->proxy) ok &= (p->proxy = strdup(o->proxy)) != NULL;
    if (o->no_proxy) ok &= (p->no_proxy = strdup(o->no_proxy)) != NULL;
    if (o->api_key && *o->api_key) {
        ash_log_hide(o->api_key);
        size_t n = strlen(o->api_key) + 32;
        p->authorization = malloc(n);
        if (p->authorization) snprintf(p->authorization, n, "Authorization: Bearer %s", o->api_key);
        ok &= p->authorization != NULL;
    }
    return ok ? 0 : ash_err_nomem(err, "upstream");
}

static int start_thread(openai *p, ash_err *err)
{
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = p->wake};
    if (p->epoll < 0 || p->wake < 0 || epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->wake, &ev))
        return ash_err_set(err, ASH_EIO, "cannot set up the upstream's transfers: %s",
                           strerror(errno));
    sigset_t all, before;
    sigfillset(&all); /* signals are for others; a broken pipe must not be one */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&p->thread, NULL, transfer_thread, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc ? ash_err_set(err, ASH_EIO, "cannot start the upstream's thread: %s", strerror(rc))
              : 0;
}

int ash_openai_open(const ash_openai_opts *opts, ash_provider **out, ash_err *err)
{
    *out = NULL;
    int rc = check_opts(opts, err);
    if (rc) return rc;
    openai *p = calloc(1, sizeof *p);
    if (!p) return ash_err_nomem(err, "upstream");
    pthread_mutex_init(&p->lock, NULL);
    p->epoll = p->wake = -1;
    p->curl_due = -1;
    rc = copy_opts(p, opts, err);
    if (!rc) rc = start_thread(p, err);
    if (rc) {
        release(p);
        return rc;
    }
    p->provider = (ash_provider){
        .name = p->name,
        .start = openai_start,
        .resume = openai_resume,
        .close_request = openai_close_request,
        .close = openai_close,
    };
    *out = &p->provider;
    return 0;
}
