/* Owns the loader thread: it takes queued loads in order, asks the policy for their room, closes
 * what has to go, and has the engine opened (opening.c). Refuses what does not fit the budget. Lock
 * rules: state.h. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "residency/fit.h"
#include "residency/state.h"

/* ---- one load ---- */

static ash_engine_opts options(const ash_manager *m, ash_entry *e)
{
    return (ash_engine_opts){.path = e->spec.path,
                             .template_text = e->spec.template_text,
                             .ctx = e->spec.ctx,
                             .kv_q8 = e->spec.kv_q8,
                             .threads = m->threads,
                             .state_dir = m->state_dir,
                             .disk_budget = m->disk_budget,
                             .cpu = m->cpu,
                             .prediction = m->prediction,
                             .draft_path = e->spec.draft_path,
                             .warm_prompt = e->spec.warm_prompt,
                             .progress = ash_entry_progress,
                             .user = e,
                             .awaited = &e->awaited,
                             .cancel = &e->cancel,
                             .headers = &e->headers};
}

static uint64_t bytes_of(const ash_engine_plan *p)
{
    return p->weight_bytes + p->kv_bytes + p->scratch_bytes + p->draft_bytes;
}

/* The same with what was measured beyond it. */
static uint64_t with(uint64_t bytes, int64_t beyond)
{
    return beyond < 0 && bytes < (uint64_t)-beyond ? 0 : bytes + (uint64_t)beyond;
}

/* What a load takes that has all it likes. */
static ash_fit likes_of(const ash_engine_plan *p, int64_t beyond)
{
    return (ash_fit){.weights = p->weight_bytes,
                     .weights_least = p->weights_least,
                     .kv = p->kv_bytes,
                     .kv_least = p->kv_least,
                     .draft = p->draft_bytes,
                     .others = with(p->scratch_bytes, beyond)};
}

ash_measure_of ash_entry_measured_as(const ash_manager *m, const ash_entry *e)
{
    return (ash_measure_of){.id = e->spec.id,
                            .path = e->spec.path,
                            .cpu = m->cpu,
                            .threads = m->threads,
                            .kv_q8 = e->spec.kv_q8,
                            .draft_path = m->prediction != ASH_PREDICTION_NEVER ? e->spec.draft_path : NULL};
}

/* Leaves the draft model out, with the reason, where it is not there or the memory has no room for it beside
 * the model with its usual KV pool, which serves more. */
static void refuse_draft(const ash_entry *e, const ash_fit *fit, ash_engine_opts *o, char *refused,
                         size_t size)
{
    if (!e->spec.draft) return;
    if (o->prediction == ASH_PREDICTION_NEVER)
        snprintf(refused, size, "prediction is off");
    else if (!o->draft_path)
        snprintf(refused, size, "%s",
                 e->spec.draft_absent ? e->spec.draft_absent : "not on this machine");
    else if (fit->draft < e->likes.draft)
        snprintf(refused, size,
                 "it needs %.2f GB of memory beside the model's %.2f, and %.2f GB are free",
                 (double)e->likes.draft * 1e-9,
                 (double)(ash_fit_bytes(&e->likes) - e->likes.draft) * 1e-9, (double)e->share * 1e-9);
    else
        return;
    if (o->prediction != ASH_PREDICTION_NEVER)
        ash_warn("residency", "%s: the draft model '%s' does not guess: %s", e->spec.id,
                 e->spec.draft, refused);
    o->draft_path = NULL;
}

static void close_headers(ash_entry *e)
{
    ash_headers_close(e->headers);
    e->headers = NULL;
}

/* Nothing can begin for now: files of loads that wait are not held open meanwhile. True if the lock was given
 * back for that. */
static bool close_all_headers(ash_manager *m)
{
    bool any = false;
    for (size_t i = 0; i < m->n; i++) any = any || m->entries[i].headers;
    if (!any) return false;
    size_t n = m->n; /* entries are added at the end, without headers */
    pthread_mutex_unlock(&m->mutex);
    for (size_t i = 0; i < n; i++) close_headers(&m->entries[i]);
    pthread_mutex_lock(&m->mutex);
    return true;
}

/* ---- whose turn it is, and whose room ---- */

/* Whether a load keeps to its share of the room: preloads do, also those that somebody waits for by now, and
 * all that nobody waits for. */
static bool shares(const ash_entry *e)
{
    return !e->demand || e->spec.preload;
}

/* Whether it is queued and its files are here. */
static bool is_here(const ash_entry *e)
{
    return e->queued && e->spec.path && !e->closing;
}

static bool may_load(ash_manager *m, ash_entry *e)
{
    return is_here(e) && ash_entry_draft_ready(m, e);
}

static bool has_share(ash_manager *m, ash_entry *e)
{
    return is_here(e) && shares(e) && e->planned;
}

/* The queued entry after `seq` in order, of those that match. */
static ash_entry *next_queued(ash_manager *m, uint64_t seq, bool (*match)(ash_manager *, ash_entry *))
{
    ash_entry *best = NULL;
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        if (e->queue_seq >= seq && (!best || e->queue_seq < best->queue_seq) && match(m, e)) best = e;
    }
    return best;
}

/* Whether the load begins as soon as there is room: it is the only one that is to be. */
static bool comes_next(ash_manager *m, const ash_entry *e)
{
    return next_queued(m, 0, may_load) == e && !next_queued(m, e->queue_seq + 1, may_load);
}

/* What the load would take if there were room for all. The lock is held, but not while headers are read. */
static int read_likes(ash_manager *m, ash_entry *e, ash_engine_opts *o, ash_err *err)
{
    ash_engine_plan plan;
    ash_measured known = {0};
    o->text_ahead = comes_next(m, e);
    e->reading = true;
    pthread_mutex_unlock(&m->mutex);
    close_headers(e); /* another load's, which was given up */
    int rc = ash_engine_plan_read(o, &plan, err);
    const ash_measure_of of = ash_entry_measured_as(m, e);
    if (!rc) ash_measure_find(m->ledger, &of, &plan, &known);
    pthread_mutex_lock(&m->mutex);
    e->reading = false;
    if (rc) return rc;
    e->planned = true;
    e->plan = plan;
    e->beyond = known.beyond;
    e->likes = likes_of(&plan, known.beyond);
    if (!(e->bring_back_s > 0.0)) e->bring_back_s = known.seconds;
    return 0;
}

/* Those whose files cannot be read are told so when it is their turn. The lock is left meanwhile. */
static void read_likes_of_all(ash_manager *m)
{
    for (size_t i = 0; i < m->n && !m->stopping; i++) {
        ash_entry *e = &m->entries[i];
        ash_err err = ASH_ERR_INIT;
        ash_engine_opts o = options(m, e);
        if (is_here(e) && shares(e) && !e->planned && read_likes(m, e, &o, &err)) close_headers(e);
    }
}

/* Of `room`, beside the others that share it. */
static uint64_t share_of(ash_manager *m, const ash_entry *e, uint64_t room)
{
    size_t n = 0, at = SIZE_MAX;
    if (!shares(e)) return room;
    for (ash_entry *o = next_queued(m, 0, has_share); o; o = next_queued(m, o->queue_seq + 1, has_share)) {
        if (o == e) at = n;
        m->fits[n++] = o->likes;
    }
    return at < n ? ash_fit_beside(m->fits, n, at, room) : room;
}

/* Sets what the load takes to `fit`. The lock is left where that is not what it was planned with. */
static int take_fit(ash_manager *m, ash_entry *e, const ash_fit *fit, ash_engine_opts *o, ash_err *err)
{
    const ash_fit *likes = &e->likes;
    ash_engine_plan plan = e->plan;
    if (fit->weights < likes->weights) o->weights_max = fit->weights;
    if (fit->kv < likes->kv) o->kv_bytes = fit->kv;
    if (plan.weight_bytes != fit->weights || plan.kv_bytes != fit->kv || plan.draft_bytes != fit->draft) {
        pthread_mutex_unlock(&m->mutex);
        int rc = ash_engine_plan_read(o, &plan, err);
        pthread_mutex_lock(&m->mutex);
        if (rc) return rc;
    }
    e->plan = plan;
    e->estimate = bytes_of(&plan);
    e->need = with(e->estimate, e->beyond);
    if (e->beyond) e->measured = e->need;
    return 0;
}

/* What the load would take in the room that there can be, without waiting for anybody. The lock is held, but
 * not while headers are read. */
static int size_load(ash_manager *m, ash_entry *e, ash_engine_opts *o, char *refused, size_t size,
                     ash_err *err)
{
    int rc = e->planned ? 0 : read_likes(m, e, o, err);
    if (rc) return rc;
    e->reading = true;
    if (shares(e)) read_likes_of_all(m);
    e->budget = ash_admission_budget(m);
    e->share = share_of(m, e, ash_admission_room(m, e, e->budget));
    ash_fit fit = e->likes;
    ash_fit_room(&fit, e->share);
    refuse_draft(e, &fit, o, refused, size);
    rc = take_fit(m, e, &fit, o, err);
    e->reading = false;
    return rc;
}

/* It has not what it likes. */
static void tell_less(const ash_entry *e)
{
    const ash_engine_plan *has = &e->plan;
    if (has->weight_bytes < e->likes.weights)
        ash_info("residency", "%s: %.2f of %.2f GB of weights are in memory at once, experts come and go",
                 e->spec.id, (double)has->weight_bytes * 1e-9, (double)e->likes.weights * 1e-9);
    if (has->kv_bytes < e->likes.kv)
        ash_info("residency", "%s: a KV pool of %.2f GB instead of %.2f, which the memory has room for",
                 e->spec.id, (double)has->kv_bytes * 1e-9, (double)e->likes.kv * 1e-9);
}

/* Whether what it would take is left to loads before it, for which there is room. */
static bool gives_way(ash_manager *m, const ash_entry *e)
{
    return shares(e) && e->need > e->share && next_queued(m, 0, has_share) != e;
}

/* The first n of the loader's list lend no more, all others do. */
static void set_draining(ash_manager *m, size_t n)
{
    for (size_t i = 0; i < m->n; i++) m->entries[i].draining = false;
    for (size_t i = 0; i < n; i++) m->entries[m->list[i]].draining = true;
}

static void refuse(ash_manager *m, ash_entry *e, const ash_err *why)
{
    ash_waiter *done = NULL;
    e->waits = NULL;
    if (why->code != ASH_ENOENT || !ash_entry_lost(m, e, &done)) {
        e->queued = false;
        ash_entry_finish(m, e, why, &done);
    }
    pthread_mutex_unlock(&m->mutex);
    ash_waiters_answer(done);
    pthread_mutex_lock(&m->mutex);
}

/* Closes what the policy listed, as long as it stays true. */
static void evict(ash_manager *m, size_t n, const ash_entry *wanted)
{
    for (size_t i = 0; i < n && !m->stopping; i++) {
        ash_entry *e = &m->entries[m->list[i]];
        if (e->state != ASH_MODEL_LOADED || e->leases) return;
        ash_info("residency", "evicting %s (%.1f MB) for %s", e->spec.id, (double)e->charge * 1e-6,
                 wanted->spec.id);
        e->comes_back = ash_entry_returns(e);
        ash_engine *engine = ash_entry_take(m, e);
        pthread_mutex_unlock(&m->mutex);
        ash_experts_note_last(m, e, engine);
        ash_engine_close(engine);
        pthread_mutex_lock(&m->mutex);
        ash_entry_closed(m, e);
    }
}

/* Bytes that a preload which nobody uses has beyond its least. */
static uint64_t has_beyond(const ash_entry *r)
{
    uint64_t least = ash_fit_least(&r->likes);
    bool idle = r->state == ASH_MODEL_LOADED && !r->leases && !r->unload_pending;
    return idle && r->spec.preload && r->charge > least ? r->charge - least : 0;
}

/* Lists those that have most beyond their least, as many as it takes for `e` to have its own beside them;
 * none if all are not enough. What is pinned is listed as well: it comes back at once. */
static size_t list_larger(ash_manager *m, const ash_entry *e)
{
    uint64_t left = ash_admission_room(m, e, e->budget), least = ash_fit_least(&e->likes);
    size_t n = 0, enough = 0;
    for (size_t i = 0; i < m->n; i++) {
        const ash_entry *r = &m->entries[i];
        if (!has_beyond(r) || (e->demand && !r->spec.pin)) continue; /* a request has all of those already */
        size_t at = n++;
        for (; at && has_beyond(r) > has_beyond(&m->entries[m->list[at - 1]]); at--)
            m->list[at] = m->list[at - 1];
        m->list[at] = i;
    }
    for (; enough < n && left < least; enough++) left += has_beyond(&m->entries[m->list[enough]]);
    return left < least ? 0 : enough;
}

/* A preload came after others had taken what there was: it had to be fetched, or its load had failed. They
 * are loaded again, each with its share, before it: they have been there before. Once for each load of `e`,
 * so that no wrong figure makes it endless. */
static bool share_again(ash_manager *m, ash_entry *e)
{
    size_t n = e->spec.preload && !e->made_room ? list_larger(m, e) : 0;
    if (!n) return false;
    e->made_room = true;
    ash_info("residency", "for %s others are loaded again, each with its share of the memory", e->spec.id);
    evict(m, n, e);
    for (size_t i = 0; i < n; i++) {
        ash_entry *r = &m->entries[m->list[i]];
        if (r->state == ASH_MODEL_UNLOADED && r->comes_back) ash_entry_queue(m, r, false);
    }
    if (e->queued && !e->demand) e->queue_seq = UNWAITED_SEQ + m->next_seq++;
    return true;
}

/* A load that nobody waits for has no room: a preload at the start fails, with the reason; one that
 * was evicted stays away. Both come back when there is room (keeper.c). */
static void put_off(ash_manager *m, ash_entry *e, const ash_policy_decision *d)
{
    ash_err err = ASH_ERR_INIT;
    e->comes_back = ash_entry_returns(e);
    if (e->boot_state == 1) {
        e->queued = false;
        e->waits = NULL;
        ash_entry_changed(m, e);
        return;
    }
    ash_admission_explain(m, e, d, &err);
    refuse(m, e, &err);
}

static const char *wait_text(ash_policy_reason r)
{
    return r == ASH_POLICY_IN_USE ? "for memory: models in use have to end"
                                  : "for memory: a model that was loaded just now has its time";
}

static void tell_waits(ash_manager *m, ash_entry *e, const char *text)
{
    if (!e->waits || strcmp(e->waits, text) != 0) ash_entry_changed(m, e);
    e->waits = text;
}

/* Once through the queue. */
typedef struct turn {
    bool head;        /* it is the first one's */
    bool passed_over; /* one before it had to wait for the load that ran */
    int64_t until_ms; /* when to look again, if nothing else happens */
} turn;

/* Decides over one queued load. True if something was done, so that the queue has to be looked at
 * anew. */
static bool decide(ash_manager *m, ash_entry *e, turn *t)
{
    ash_err err = ASH_ERR_INIT;
    char refused[sizeof e->draft_refused] = "";
    ash_engine_opts o = options(m, e);
    uint64_t seq = e->queue_seq;
    int rc = size_load(m, e, &o, refused, sizeof refused, &err);
    if (!e->queued || e->queue_seq != seq || m->stopping) return true; /* cancelled meanwhile */
    if (rc) {
        if (!err.code) ash_err_set(&err, rc, "%s", ash_err_name(rc));
        refuse(m, e, &err);
        return true;
    }
    if (!ash_opening_may(m, e, &t->until_ms)) {
        t->passed_over = true;
        return false;
    }
    if (t->passed_over && !ash_opening_any(m)) return true; /* it ended while headers were read: in order */
    if (gives_way(m, e)) {
        tell_waits(m, e, "for those before it");
        return false;
    }
    ash_policy_decision d = ash_admission_ask(m, e, e->budget, e->demand, m->list);
    bool no_room = d.verdict == ASH_POLICY_REFUSE || (d.verdict == ASH_POLICY_WAIT && !e->demand);
    if (no_room && share_again(m, e)) return true;
    if (d.verdict == ASH_POLICY_REFUSE) {
        ash_admission_explain(m, e, &d, &err);
        refuse(m, e, &err);
        return true;
    }
    if (d.verdict == ASH_POLICY_ADMIT && (t->head || !d.n)) {
        if (d.n) {
            evict(m, d.n, e);
            return true;
        }
        set_draining(m, 0);
        tell_less(e);
        ash_opening_begin(m, e, &o, refused);
        return true;
    }
    if (d.verdict == ASH_POLICY_WAIT && !e->demand) {
        put_off(m, e, &d);
        return true;
    }
    tell_waits(m, e, d.verdict == ASH_POLICY_WAIT ? wait_text(d.reason) : "for those before it");
    if (!t->head || d.verdict != ASH_POLICY_WAIT) return false;
    t->until_ms = d.until_ms;
    set_draining(m, d.n);
    return false;
}

static bool goes_first(const ash_entry *a, const ash_entry *b)
{
    if (a->spec.required != b->spec.required) return a->spec.required;
    return ash_admission_seconds(a) < ash_admission_seconds(b);
}

/* Goes through the queue once. True if it has to be looked at anew. */
static bool look(ash_manager *m, int64_t *until_ms)
{
    turn t = {.head = true, .until_ms = INT64_MAX};
    bool again = false;
    ash_entry *e = next_queued(m, 0, may_load);
    if (!e) set_draining(m, 0);
    for (; e && !again; e = next_queued(m, e->queue_seq + 1, may_load), t.head = false)
        again = decide(m, e, &t);
    *until_ms = t.until_ms;
    return again;
}

/* Those that nobody waits for yet, the quickest first among those that are equally wanted, if all of them
 * fit: each is there as soon as it can be, and the last of them no later. If not all fit they stay in the
 * order of the list, which says who comes first. Once, at the start. */
static void arrange(ash_manager *m)
{
    uint64_t sum = 0, room = 0;
    size_t n = 0;
    read_likes_of_all(m);
    for (ash_entry *e = next_queued(m, 0, has_share); e; e = next_queued(m, e->queue_seq + 1, has_share)) {
        if (e->demand) return; /* requests have come: enough of it */
        uint64_t least = ash_fit_least(&e->likes);
        sum = sum > UINT64_MAX - least ? UINT64_MAX : sum + least;
        room = ash_admission_room(m, e, ash_admission_budget(m));
        size_t at = n++;
        for (; at && goes_first(e, &m->entries[m->list[at - 1]]); at--) m->list[at] = m->list[at - 1];
        m->list[at] = (size_t)(e - m->entries);
    }
    if (sum > room) return;
    for (size_t i = 0; i < n; i++) m->entries[m->list[i]].queue_seq = UNWAITED_SEQ + m->next_seq++;
}

void *ash_loader_main(void *arg)
{
    ash_manager *m = arg;
    pthread_mutex_lock(&m->mutex);
    arrange(m);
    while (!m->stopping) {
        int64_t until_ms;
        uint64_t wakes = m->wakes;
        ash_openings_join(m, false);
        if (look(m, &until_ms) || close_all_headers(m)) continue;
        ash_waiter *done = NULL;
        ash_waiters_lend(m, &done);
        if (done) {
            pthread_mutex_unlock(&m->mutex);
            ash_waiters_answer(done);
            pthread_mutex_lock(&m->mutex);
            continue;
        }
        if (m->wakes != wakes || m->stopping) continue; /* woken while headers were read */
        if (until_ms == INT64_MAX) {
            pthread_cond_wait(&m->load_cond, &m->mutex);
            continue;
        }
        struct timespec ts = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
        pthread_cond_timedwait(&m->load_cond, &m->mutex, &ts);
    }
    ash_openings_join(m, true);
    close_all_headers(m);
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}
