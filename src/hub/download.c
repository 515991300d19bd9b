/* Owns the connections of a fetch: which part of which file each brings, what it may write where,
 * and what the end of a transfer means. Refuses ranges that were not asked for, more bytes than
 * announced, another size or hash than announced, redirects in circles. The fetching thread only.
 *
 * A connection keeps its part when its transfer breaks, and goes on at the byte where it was. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "hub/job.h"

enum {
    BUFFER = 128 << 10,  /* of libcurl, each connection: 512 KiB cost as much CPU time */
    MOST_CHUNKS = 32,    /* of one part: 128 MiB, so that a round trip is little beside it */
    PROGRESS = 64 << 10, /* bytes that make a broken transfer no failure */
    ROOM_MS = 10,        /* most that connections wait for the hash: it may wait for the disk */
    PACE_MS = 1000,
    FIRST_MS = 200, /* of one connection alone: its bytes come in the order of the hash */
    IDLE = 4, /* a fourth of the time without bytes, else the network is not what more connections need */
    HOLD_MS = 30000, /* after the hub asked for patience */
};

/* ---- parts ---- */

static uint64_t chunk_start(uint32_t chunk)
{
    return (uint64_t)chunk * ASH_HUB_CHUNK;
}

static uint64_t chunk_bytes(const hub_item *it, uint32_t chunk)
{
    return hub_chunk_end(it->file->size, chunk) - chunk_start(chunk);
}

/* ---- what was gathered ---- */

/* What was gathered is in the file now; whole: with the rest of its chunk. What nothing is missing before is
 * the hash's: by the ring, in step with it, or it is read back. */
static void pass_on(hub_connection *c, bool whole)
{
    hub_job *j = c->job;
    hub_item *it = c->item;
    uint64_t from = c->pos - c->n_gathered;
    uint32_t chunk = (uint32_t)(from / ASH_HUB_CHUNK);
    pthread_mutex_lock(&j->lock);
    if (whole) {
        it->chunk[chunk] = HUB_CHUNK_WRITTEN;
        it->have += chunk_bytes(it, chunk);
    }
    if (from == it->reach) it->reach = c->pos;
    hub_item_reach(it); /* a chunk counts as a whole where it was begun before the front came to it */
    if (from == it->fed && !j->finishing) hub_ring_await(&j->ring, &j->lock, ROOM_MS);
    if (from == it->fed && hub_ring_put(&j->ring, it, &c->gathered, c->n_gathered, c->pos)) it->fed = c->pos;
    pthread_cond_signal(&j->work);
    pthread_mutex_unlock(&j->lock);
    c->n_gathered = 0;
}

/* Writes what was gathered; it ends at pos. */
static int write_gathered(hub_connection *c)
{
    uint64_t from = c->pos - c->n_gathered;
    uint32_t chunk = (uint32_t)(from / ASH_HUB_CHUNK);
    bool whole = c->pos == hub_chunk_end(c->item->file->size, chunk);
    for (size_t at = 0; at < c->n_gathered;) {
        ssize_t w = pwrite(c->item->fd, c->gathered + at, c->n_gathered - at, (off_t)(from + at));
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return hub_os_error(&c->err, "write", c->item->file->path);
        at += (size_t)w;
    }
    if (whole) {
        int rc = hub_journal_add(c->item->journal, chunk, ash_checksum_sum(&c->sum), &c->err);
        if (rc) return rc;
        ash_checksum_init(&c->sum);
    }
    pass_on(c, whole);
    return 0;
}

/* ---- which part ---- */

/* How long a part may be: all of a small rest is shared among the connections. */
static uint32_t part_chunks(const hub_job *j)
{
    uint64_t left = 0;
    for (size_t i = 0; i < j->n_items; i++)
        if (j->items[i].state != HUB_ITEM_DONE) left += j->items[i].file->size - j->items[i].have;
    uint64_t n = left / ASH_HUB_CHUNK / (2 * (uint64_t)j->wanted) + 1;
    return n < MOST_CHUNKS ? (uint32_t)n : MOST_CHUNKS;
}

/* The first run of missing chunks, at most `most` long. Lock held. */
static bool take_run(hub_item *it, uint32_t most, uint32_t *first, uint32_t *n)
{
    uint32_t i = it->hashed;
    while (i < it->n_chunks && it->chunk[i] != HUB_CHUNK_MISSING) i++;
    *first = i;
    for (*n = 0; i < it->n_chunks && *n < most && it->chunk[i] == HUB_CHUNK_MISSING; i++, ++*n)
        it->chunk[i] = HUB_CHUNK_COMING;
    return *n > 0;
}

/* Gives a connection something to bring; false if there is nothing. */
static bool assign(hub_job *j, hub_connection *c, int64_t now)
{
    bool found = false;
    pthread_mutex_lock(&j->lock);
    uint32_t most = part_chunks(j), first = 0, n = 0;
    for (size_t i = 0; i < j->n_items && !found; i++) {
        hub_item *it = &j->items[i];
        if (it->state != HUB_ITEM_ACTIVE || it->wrong || now < it->not_before) continue;
        if (it->no_ranges && it->running) continue;
        if (!take_run(it, it->no_ranges ? it->n_chunks : most, &first, &n)) continue;
        c->item = it;
        found = true;
    }
    pthread_mutex_unlock(&j->lock);
    if (!found) return false;
    c->item->running++;
    c->pos = chunk_start(first);
    c->end = hub_chunk_end(c->item->file->size, first + n - 1);
    c->n_gathered = 0;
    ash_checksum_init(&c->sum);
    if (c->item->begun.at && c->item->begun.at / ASH_HUB_CHUNK == first) {
        c->pos = c->item->begun.at;
        c->sum = c->item->begun.sum;
        c->item->begun.at = 0;
    }
    return true;
}

/* The part goes back. What its unfinished chunk has is lost, unless the hash has begun with it: then
 * the chunk goes on where it was, since what was hashed must stay what is in the file. */
static void give_back(hub_job *j, hub_connection *c)
{
    hub_item *it = c->item;
    if (!it) return;
    uint64_t start = c->pos - c->pos % ASH_HUB_CHUNK;
    if (c->pos < c->end && c->n_gathered && write_gathered(c)) hub_job_fail(j, &c->err);
    pthread_mutex_lock(&j->lock);
    if (c->pos < c->end && it->fed > start) {
        it->begun.at = c->pos;
        it->begun.sum = c->sum;
    } else if (c->pos < c->end && it->reach > start) {
        it->reach = start;
    }
    if (it->state == HUB_ITEM_ACTIVE)
        for (uint64_t at = c->pos; at < c->end;
             at = hub_chunk_end(it->file->size, (uint32_t)(at / ASH_HUB_CHUNK)))
            if (it->chunk[at / ASH_HUB_CHUNK] == HUB_CHUNK_COMING)
                it->chunk[at / ASH_HUB_CHUNK] = HUB_CHUNK_MISSING;
    pthread_mutex_unlock(&j->lock);
    it->running--;
    c->item = NULL;
}

static void stop_transfer(hub_job *j, hub_connection *c)
{
    const ash_curl *curl = &j->hub->curl;
    if (c->running) curl->multi_remove_handle(j->multi, c->easy);
    if (c->running && c->asking && c->item) c->item->resolving = false;
    c->running = false;
    if (c->list) {
        curl->easy_setopt(c->easy, CURLOPT_HTTPHEADER, NULL);
        curl->slist_free_all(c->list);
        c->list = NULL;
    }
}

void hub_download_drop(hub_job *j, hub_item *it)
{
    for (int i = 0; i < ASH_MAX_HUB_CONNECTIONS; i++) {
        hub_connection *c = &j->connections[i];
        if (c->item != it) continue;
        stop_transfer(j, c);
        give_back(j, c);
    }
}

/* ---- bytes ---- */

static size_t refuse(hub_connection *c, int code, const char *what)
{
    c->rc = ash_err_set(&c->err, code, "'%.200s' of '%s': %s", c->item->file->path,
                        c->job->plan->tree->repo, what);
    return 0;
}

/* Judges an answer's head before its first byte. */
static bool look(hub_connection *c)
{
    const hub_item *it = c->item;
    const ash_curl *curl = &c->job->hub->curl;
    const hub_headers *h = &c->headers;
    long status = 0;
    curl_off_t length = -1;
    curl->easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    curl->easy_getinfo(c->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    c->looked = true;
    if (status == 206) {
        if (!h->has_range || h->first != c->pos || h->last >= c->end) {
            c->rc =
                ash_err_set(&c->err, ASH_ENET, "the host sends another range than was asked for");
            return false;
        }
        if (h->has_total && h->total != it->file->size)
            return refuse(c, ASH_EFORMAT,
                          "its size is not the one that the hub announced; it was changed");
        c->at = c->pos;
        c->content = true;
        c->job->tries = 0;
        return true;
    }
    if (status != 200) return true; /* an error's page, passed over */
    if (length >= 0 && (uint64_t)length != it->file->size)
        return refuse(c, ASH_EFORMAT,
                      "its size is not the one that the hub announced; it was changed");
    c->whole = c->content = true;
    c->job->tries = 0;
    c->at = 0;
    if (c->pos == 0 && c->end == it->file->size) return true;
    c->item->no_ranges = true;
    if (it->running > 1) { /* others bring the rest; one stream is enough */
        c->rc = ASH_EAGAIN;
        return false;
    }
    pthread_mutex_lock(&c->job->lock);
    for (uint32_t i = (uint32_t)(c->end / ASH_HUB_CHUNK); i < it->n_chunks; i++)
        if (it->chunk[i] == HUB_CHUNK_MISSING) it->chunk[i] = HUB_CHUNK_COMING;
    pthread_mutex_unlock(&c->job->lock);
    c->end = it->file->size;
    return true;
}

/* In a stream of the whole file: behind the chunks that are here already. */
static void skip_written(hub_connection *c)
{
    const hub_item *it = c->item;
    pthread_mutex_lock(&c->job->lock);
    while (c->whole && c->pos < c->end && c->pos % ASH_HUB_CHUNK == 0 &&
           it->chunk[c->pos / ASH_HUB_CHUNK] >= HUB_CHUNK_WRITTEN)
        c->pos = hub_chunk_end(it->file->size, (uint32_t)(c->pos / ASH_HUB_CHUNK));
    pthread_mutex_unlock(&c->job->lock);
}

/* Takes what belongs to one chunk: how many bytes were used up, 0 with c->rc set. */
static size_t store(hub_connection *c, const char *p, size_t n)
{
    uint32_t chunk = (uint32_t)(c->pos / ASH_HUB_CHUNK);
    uint64_t end = hub_chunk_end(c->item->file->size, chunk);
    if (n > end - c->pos) n = (size_t)(end - c->pos);
    if (n > HUB_PIECE - c->n_gathered) n = HUB_PIECE - c->n_gathered;
    ash_checksum_add(&c->sum, p, n);
    memcpy(c->gathered + c->n_gathered, p, n); /* from the first cache, where the sum had it */
    c->n_gathered += n;
    c->pos += n;
    c->at += n;
    if (c->n_gathered == HUB_PIECE || c->pos == end) c->rc = write_gathered(c);
    return c->rc ? 0 : n;
}

static size_t on_body(char *p, size_t size, size_t count, void *user)
{
    hub_connection *c = user;
    size_t n = size * count, used = 0;
    if (c->asking) return n;
    if (!c->looked && !look(c)) return 0;
    if (c->rc) return 0;
    if (!c->content) return n;
    c->job->received += n;
    while (used < n) {
        skip_written(c);
        if (c->at < c->pos) { /* of a whole file: what is here already */
            size_t some = n - used < c->pos - c->at ? n - used : (size_t)(c->pos - c->at);
            c->at += some;
            used += some;
            continue;
        }
        if (c->pos >= c->end)
            return refuse(c, ASH_EFORMAT, "more bytes come than the hub announced");
        size_t some = store(c, p + used, n - used);
        if (!some) return 0;
        used += some;
    }
    return n;
}

static size_t on_header(char *p, size_t size, size_t n, void *user)
{
    hub_connection *c = user;
    if (hub_headers_line(&c->headers, p, size * n)) return size * n;
    return refuse(c, ASH_ELIMIT, "the answer has too many headers");
}

/* ---- beginning ---- */

static int begin(hub_job *j, hub_connection *c, ash_err *err)
{
    const ash_curl *curl = &j->hub->curl;
    hub_item *it = c->item;
    ash_buf resolve;
    char range[64];
    CURL *e = c->easy;
    c->asking = it->file->sha256 && !it->address;
    c->hubs_own = !it->address;
    c->looked = c->content = c->whole = false;
    c->rc = 0;
    c->began = c->pos;
    hub_headers_init(&c->headers);
    int rc = hub_resolve_url(j->hub, j->plan->tree, it->file->path, &resolve, err);
    const char *url = it->address ? it->address : it->hop ? it->hop : ash_buf_cstr(&resolve);
    if (!rc) rc = hub_request_setup(j->hub, e, url, &c->connect, &c->list, err);
    ash_buf_release(&resolve);
    if (rc) return rc;
    if (c->asking)
        curl->easy_setopt(e, CURLOPT_NOBODY, 1L);
    else
        curl->easy_setopt(e, CURLOPT_HTTPGET, 1L);
    bool whole = it->no_ranges || (c->pos == 0 && c->end == it->file->size);
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)c->pos,
             (unsigned long long)c->end - 1);
    curl->easy_setopt(e, CURLOPT_RANGE, c->asking || whole ? NULL : range);
    curl->easy_setopt(e, CURLOPT_BUFFERSIZE, (long)BUFFER);
    curl->easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl->easy_setopt(e, CURLOPT_WRITEDATA, c);
    curl->easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl->easy_setopt(e, CURLOPT_HEADERDATA, c);
    curl->easy_setopt(e, CURLOPT_PRIVATE, c);
    if (curl->multi_add_handle(j->multi, e) != CURLM_OK) return ash_err_nomem(err, "a connection");
    c->running = true;
    if (c->asking) it->resolving = true;
    return 0;
}

/* Adds a connection while that makes the whole faster and this thread has time for more bytes; few
 * again after the hub asked for patience. */
static void pace(hub_job *j, int64_t now, bool all_busy)
{
    if (now - j->pace.at < (j->wanted > 1 ? PACE_MS : FIRST_MS)) return;
    double rate = (double)(j->received - j->pace.received) * 1000 / (double)(now - j->pace.at);
    j->pace.rate = j->pace.rate > 0 ? 0.7 * j->pace.rate + 0.3 * rate : rate;
    bool idle = j->pace.idle_ns > (now - j->pace.at) * 1000000 / IDLE;
    j->pace.at = now;
    j->pace.received = j->received;
    j->pace.idle_ns = 0;
    if (!idle) return;
    if (now < j->pace.hold_until || !all_busy || j->wanted >= j->hub->connections) return;
    if (rate < 1.1 * j->pace.best) return;
    j->pace.best = rate;
    j->wanted++;
}

void hub_download_start(hub_job *j)
{
    int64_t now = ash_clock_ms();
    int busy = 0;
    ash_err err = ASH_ERR_INIT;
    for (int i = 0; i < j->hub->connections; i++) busy += j->connections[i].running;
    pace(j, now, busy >= j->wanted);
    for (int i = 0; i < j->hub->connections && busy < j->wanted; i++) {
        hub_connection *c = &j->connections[i];
        if (c->running || (!c->item && !assign(j, c, now))) continue;
        bool elsewhere = c->item->file->sha256 && !c->item->address && c->item->resolving;
        if (now < c->item->not_before || elsewhere) continue; /* another asks for the address */
        if (begin(j, c, &err)) {
            hub_job_fail(j, &err);
            return;
        }
        busy++;
    }
}

/* ---- ends ---- */

static void fail(hub_connection *c, int code, const char *what)
{
    if (!c->rc) refuse(c, code, what);
    hub_job_fail(c->job, &c->err);
}

/* It may pass: later again, unless it did not pass too often. c->err says what it was. */
static void later(hub_connection *c, int retry_after_s)
{
    hub_item *it = c->item;
    hub_job *j = c->job;
    if (c->pos - c->began >= PROGRESS) it->trouble.tries = 0;
    /* another connection's failure a moment ago: the same one, which counts once */
    if (it->trouble.tries && retry_after_s <= 0 && ash_clock_ms() < it->not_before) return;
    int64_t wait = hub_trouble_add(j->hub, &it->trouble, retry_after_s, j->watch && j->watch->progress);
    if (wait < 0) {
        ash_err_prefix(&c->err, "'%.150s' of '%s' (%d tries)", it->file->path, j->plan->tree->repo,
                       it->trouble.tries);
        hub_job_fail(j, &c->err);
        return;
    }
    j->tries = it->trouble.tries;
    snprintf(j->trouble, sizeof j->trouble, "%s", c->err.msg);
    it->not_before = ash_clock_ms() + wait;
}

static void forget_address(hub_item *it)
{
    free(it->address);
    free(it->hop);
    it->address = it->hop = NULL;
}

/* What the hub says of a large file against what its listing said: both are of one commit. */
static int check_announced(const hub_connection *c, ash_err *err)
{
    const hub_headers *h = &c->headers;
    const ash_hub_file *f = c->item->file;
    bool size = h->has_linked_size && h->linked_size != f->size;
    bool hash = h->linked_etag && hub_hex(h->etag, 64) && strcmp(h->etag, f->sha256);
    bool commit = *h->commit && strcmp(h->commit, c->job->plan->tree->commit);
    if (!size && !hash && !commit) return 0;
    return ash_err_set(err, ASH_EFORMAT,
                       "'%.200s' of '%s': the hub's list and its answer differ in the %s; it was "
                       "changed meanwhile, "
                       "ask again",
                       f->path, c->job->plan->tree->repo,
                       size   ? "size"
                       : hash ? "SHA-256"
                              : "commit");
}

/* A redirect. Within the hub (a renamed repository) the question is asked again there; to elsewhere
 * it is the address of the bytes. */
static void redirected(hub_connection *c, const char *to)
{
    hub_item *it = c->item;
    hub_job *j = c->job;
    hub_origin origin;
    if (!to || ++it->hops > ASH_MAX_HUB_REDIRECTS) {
        fail(c, ASH_ENET, to ? "the hub redirects in circles" : "the hub redirects to nowhere");
        return;
    }
    c->rc = hub_address_check(j->hub, to, &origin, &c->err);
    if (!c->rc && c->asking) c->rc = check_announced(c, &c->err);
    char *copy = c->rc ? NULL : strdup(to);
    if (!c->rc && !copy) c->rc = ash_err_nomem(&c->err, "an address");
    if (c->rc) {
        hub_job_fail(j, &c->err);
        return;
    }
    bool inside = hub_origin_eq(&origin, &j->hub->origin) && c->hubs_own;
    free(inside ? it->hop : it->address);
    if (inside)
        it->hop = copy;
    else
        it->address = copy;
}

/* The hub's answer to where the bytes are. */
static void answered(hub_connection *c)
{
    hub_item *it = c->item;
    ash_buf url;
    c->rc = check_announced(c, &c->err);
    if (!c->rc)
        c->rc = hub_resolve_url(c->job->hub, c->job->plan->tree, it->file->path, &url, &c->err);
    if (c->rc) {
        hub_job_fail(c->job, &c->err);
        return;
    }
    free(it->address);
    it->address = it->hop ? it->hop : ash_buf_take(&url);
    it->hop = NULL;
    ash_buf_release(&url);
}

/* A status that is neither success nor redirect. */
static void refused(hub_connection *c, long status)
{
    hub_job *j = c->job;
    const ash_hub_tree *t = j->plan->tree;
    hub_status_error(j->hub, status, &c->headers, t->repo, t->revision, c->item->file->path,
                     &c->err);
    if (status == 429 || status == 503) {
        j->wanted = j->wanted > 1 ? j->wanted / 2 : 1;
        j->pace.hold_until = ash_clock_ms() + HOLD_MS;
        j->pace.best = 0;
    }
    bool expired = !c->hubs_own && status / 100 == 4 && status != 416;
    if (expired) {
        ash_err_set(&c->err, ASH_ENET, "the host of the files answers %ld", status);
        forget_address(c->item);
    }
    if (status == 416)
        fail(c, ASH_EFORMAT,
             "the host has no such bytes: its size is not the one that the hub announced");
    else if (expired || hub_status_passes(status))
        later(c, c->headers.retry_after_s);
    else
        hub_job_fail(j, &c->err);
}

static void broken(hub_connection *c, CURLcode code)
{
    int rc = hub_transfer_error(c->job->hub, c->easy, code, &c->connect, "the connection broke",
                                &c->err);
    if (rc != ASH_ENET || c->connect.refused) {
        hub_job_fail(c->job, &c->err);
        return;
    }
    later(c, -1);
}

static void ended(hub_job *j, hub_connection *c, CURLcode code)
{
    const ash_curl *curl = &j->hub->curl;
    long status = 0;
    char *to = NULL, *next = NULL;
    curl->easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    curl->easy_getinfo(c->easy, CURLINFO_REDIRECT_URL, &to);
    if (to && !(next = strdup(to))) status = 0; /* no memory: as if it had broken */
    stop_transfer(j, c);
    if (c->pos > c->began) c->item->hops = 0;
    if (c->rc == ASH_EAGAIN) {
        give_back(j, c);
    } else if (c->rc == ASH_ENET) {
        later(c, -1);
    } else if (c->rc) {
        hub_job_fail(j, &c->err);
    } else if (status / 100 == 3) {
        redirected(c, next);
    } else if (status >= 400) {
        refused(c, status);
    } else if (c->asking && code == CURLE_OK) {
        answered(c);
    } else if (!c->asking && c->pos == c->end) {
        c->item->trouble.tries = j->tries = 0;
        give_back(j, c);
    } else if (code == CURLE_OK || code == CURLE_PARTIAL_FILE) {
        ash_err_set(&c->err, ASH_ENET, "the connection ended %llu bytes early",
                    (unsigned long long)(c->end - c->pos));
        later(c, -1);
    } else {
        broken(c, code);
    }
    free(next);
}

void hub_download_step(hub_job *j, int wait_ms)
{
    const ash_curl *curl = &j->hub->curl;
    int running = 0, left = 0, n = 0;
    curl->multi_perform(j->multi, &running);
    for (CURLMsg *m; (m = curl->multi_info_read(j->multi, &left));) {
        hub_connection *c = NULL;
        CURLcode code = m->data.result;
        curl->easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
        if (m->msg == CURLMSG_DONE && c && c->running) {
            ended(j, c, code);
            wait_ms = 0;
        }
    }
    if (!wait_ms) return;
    int64_t before = ash_clock_ns();
    curl->multi_poll(j->multi, NULL, 0, wait_ms, &n);
    j->pace.idle_ns += ash_clock_ns() - before;
}

int hub_download_open(hub_job *j, ash_err *err)
{
    const ash_curl *curl = &j->hub->curl;
    j->multi = curl->multi_init();
    if (!j->multi) return ash_err_nomem(err, "connections");
    for (int i = 0; i < j->hub->connections; i++) {
        j->connections[i] =
            (hub_connection){.job = j, .easy = curl->easy_init(), .err = ASH_ERR_INIT};
        j->connections[i].gathered = malloc(HUB_PIECE);
        if (!j->connections[i].easy || !j->connections[i].gathered)
            return ash_err_nomem(err, "connections");
    }
    j->wanted = 1;
    j->pace.at = ash_clock_ms();
    return 0;
}

void hub_download_close(hub_job *j)
{
    const ash_curl *curl = &j->hub->curl;
    if (!j->multi) return;
    for (int i = 0; i < ASH_MAX_HUB_CONNECTIONS; i++) {
        hub_connection *c = &j->connections[i];
        stop_transfer(j, c);
        if (c->easy) curl->easy_cleanup(c->easy);
        free(c->gathered);
        c->gathered = NULL;
        c->easy = NULL;
        c->item = NULL;
    }
    curl->multi_cleanup(j->multi);
    j->multi = NULL;
}
