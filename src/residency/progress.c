/* Owns the progress object that every door of the program shows: /models, its SSE, the 503 body,
 * the page and the terminal. Refuses to go backwards. Called with the manager's lock held. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "residency/state.h"

const char *const ash_stage_names[ASH_N_STAGES] = {"fetch", "verify", "map",
                                                   "pack",  "warm",   "prefill"};

/* Share of a load's time each stage usually takes; fetch has no share when the file is there. */
static const double stage_share[ASH_N_STAGES] = {0.0, 0.02, 0.02, 0.76, 0.10, 0.10};

/* Of a load that begins with a fetch; the other stages share the rest. */
static const double FETCH_SHARE = 0.8;

enum { TOLD_TRIES = 3 }; /* that failed in a row: fewer pass unnoticed */

static const double STALL_SECONDS = 5.0; /* without bytes, then the speed is 0 */

static const char *const state_names[] = {"unloaded", "downloading", "downloaded", "loading",
                                          "loaded",   "sleeping",    "failed"};

const char *ash_model_state_name(ash_model_state s)
{
    return state_names[s];
}

static void begin(ash_entry *e, int stage)
{
    atomic_store(&e->progress.stage, stage);
    atomic_store(&e->progress.done, 0);
    atomic_store(&e->progress.total, 0);
    atomic_store(&e->progress.bytes_done, 0);
    atomic_store(&e->progress.bytes_total, 0);
    e->started_at = ash_clock_wall();
    e->load_begin_ns = e->last_bytes_ns = ash_clock_ns();
    e->last_bytes = 0;
    e->rate = e->stalled_since = 0.0;
    e->shown_progress = e->fetched ? FETCH_SHARE : 0.0;
    memset(e->stage_ms, 0, sizeof e->stage_ms);
}

void ash_entry_begin_load(ash_entry *e)
{
    begin(e, 1);
}

void ash_entry_begin_fetch(ash_entry *e)
{
    e->fetched = false;
    atomic_store(&e->progress.fetch_rate, 0);
    atomic_store(&e->progress.elsewhere, false);
    atomic_store(&e->progress.trouble, 0);
    begin(e, 0);
}

void ash_entry_fetch_progress(void *entry, const ash_hub_progress *p)
{
    ash_entry *e = entry;
    uint64_t before = atomic_load(&e->progress.bytes_done);
    atomic_store(&e->progress.bytes_total, p->bytes_total);
    if (p->bytes_done > before) atomic_store(&e->progress.bytes_done, p->bytes_done);
    atomic_store(&e->progress.fetch_rate, p->bytes_per_second);
    atomic_store(&e->progress.elsewhere, p->stage == ASH_HUB_WAITING);
    int tries = p->trouble ? p->tries : 0;
    if (tries >= TOLD_TRIES && atomic_load(&e->progress.trouble) < TOLD_TRIES)
        ash_warn("residency", "fetching %s: %s; it is tried again", e->spec.id, p->trouble);
    atomic_store(&e->progress.trouble, tries);
    if (p->stage == ASH_HUB_VERIFYING) atomic_store(&e->progress.stage, 1);
}

const char *ash_entry_fetch_waits(const ash_entry *e)
{
    if (e->state != ASH_MODEL_DOWNLOADING) return NULL;
    if (atomic_load(&e->progress.elsewhere)) return "for another process, which fetches it";
    return atomic_load(&e->progress.trouble) < TOLD_TRIES
               ? NULL
               : "for the network or the hub: the last tries failed, the log has why";
}

void ash_entry_progress(void *entry, ash_load_stage stage, uint64_t done, uint64_t total)
{
    ash_entry *e = entry;
    int index = (int)stage + 1, before = atomic_load(&e->progress.stage);
    if (index != before) { /* only the loading thread writes these */
        double at = (double)(ash_clock_ns() - e->load_begin_ns) * 1e-6;
        for (int i = 1; i < before; i++) at -= e->stage_ms[i];
        e->stage_ms[before] = at;
        atomic_store(&e->progress.stage, index);
    }
    atomic_store(&e->progress.done, done);
    atomic_store(&e->progress.total, total);
    if (stage == ASH_LOAD_PACK && total > 1) { /* of 1: a step, where a pack is mapped and nothing is read */
        atomic_store(&e->progress.bytes_done, done);
        atomic_store(&e->progress.bytes_total, total);
    }
}

static double overall(ash_entry *e)
{
    if (e->state == ASH_MODEL_DOWNLOADING) {
        double all = (double)atomic_load(&e->progress.bytes_total);
        double got = (double)atomic_load(&e->progress.bytes_done);
        return all > 0.0 ? FETCH_SHARE * fmin(got / all, 1.0) : 0.0;
    }
    int stage = atomic_load(&e->progress.stage);
    double total = (double)atomic_load(&e->progress.total), sum = 0.0;
    double part = total > 0.0 ? (double)atomic_load(&e->progress.done) / total : 0.0;
    for (int i = 0; i < stage; i++) sum += stage_share[i];
    sum += stage_share[stage] * fmin(part, 1.0);
    if (e->fetched) sum = FETCH_SHARE + (1.0 - FETCH_SHARE) * sum;
    return fmin(sum, 0.999);
}

bool ash_entry_sample(ash_entry *e, int64_t now_ns)
{
    uint64_t bytes = atomic_load(&e->progress.bytes_done);
    double before = e->shown_progress, elapsed = (double)(now_ns - e->last_bytes_ns) * 1e-9;
    bool stalled = e->stalled_since > 0.0;
    if (bytes > e->last_bytes && elapsed > 0.05) {
        double now_rate = (double)(bytes - e->last_bytes) / elapsed;
        e->rate = e->rate > 0.0 ? 0.7 * e->rate + 0.3 * now_rate : now_rate;
        e->last_bytes = bytes;
        e->last_bytes_ns = now_ns;
        e->stalled_since = 0.0;
    } else if (elapsed > STALL_SECONDS && bytes < atomic_load(&e->progress.bytes_total)) {
        e->rate = 0.0;
        if (!stalled) e->stalled_since = ash_clock_wall() - elapsed;
    }
    if (e->state == ASH_MODEL_DOWNLOADING && !(e->stalled_since > 0.0))
        e->rate = (double)atomic_load(&e->progress.fetch_rate);
    e->shown_progress = fmax(e->shown_progress, overall(e));
    return e->shown_progress != before || stalled != (e->stalled_since > 0.0);
}

static json_t *stages_json(bool fetched)
{
    json_t *a = json_array();
    for (int i = fetched ? 0 : 1; i < ASH_N_STAGES; i++)
        json_array_append_new(a, json_string(ash_stage_names[i]));
    return a;
}

/* Whether its files may be removed: nothing is under way, and there is something. */
static bool removable(const ash_manager *m, const ash_entry *e)
{
    bool idle = e->state == ASH_MODEL_UNLOADED || e->state == ASH_MODEL_DOWNLOADED ||
                e->state == ASH_MODEL_FAILED;
    return m->remove && e->spec.repo && idle && !e->queued && !e->removing &&
           (e->spec.path || e->paused || atomic_load(&e->progress.bytes_done));
}

static json_t *can_json(const ash_manager *m, const ash_entry *e)
{
    json_t *a = json_array();
    bool fetching = e->state == ASH_MODEL_DOWNLOADING || (e->queued && !e->spec.path);
    if (fetching) json_array_append_new(a, json_string("pause"));
    if (e->queued || fetching || e->state == ASH_MODEL_LOADING)
        json_array_append_new(a, json_string("cancel"));
    else if (e->state == ASH_MODEL_LOADED)
        json_array_append_new(a, json_string("unload"));
    else if ((ash_entry_can_load(m, e) && !e->removing) ||
             (ash_entry_may_appear(m, e) && !strcmp(e->error_code, "not_downloaded")))
        json_array_append_new(a, json_string(e->state == ASH_MODEL_FAILED ? "retry" : "load"));
    if (e->paused) json_array_append_new(a, json_string("cancel"));
    if (removable(m, e)) json_array_append_new(a, json_string("delete"));
    return a;
}

static json_t *error_json(const ash_entry *e)
{
    if (e->state != ASH_MODEL_FAILED) return json_null();
    return json_pack("{s:s, s:s, s:s?}", "code", e->error_code ? e->error_code : "load_failed",
                     "message", e->error.msg, "hint", e->error_hint);
}

static json_t *queue_position(const ash_manager *m, const ash_entry *e)
{
    if (!e->queued) return json_null();
    int before = 1;
    for (size_t i = 0; i < m->n; i++)
        before += m->entries[i].queued && m->entries[i].queue_seq < e->queue_seq;
    return json_integer(before);
}

/* Seconds left of a fetch or a load that runs; negative: nobody knows. */
static double left_of(const ash_entry *e, const char **basis)
{
    double done = (double)atomic_load(&e->progress.bytes_done);
    double total = (double)atomic_load(&e->progress.bytes_total);
    double since = (double)(ash_clock_ns() - e->load_begin_ns) * 1e-9;
    bool loading = e->state == ASH_MODEL_LOADING;
    if (e->rate > 0.0 && total > 0.0) {
        double left = fmax(total - done, 0.0) / e->rate;
        if (loading && e->shown_progress > 0.05) /* what follows the reading, at its usual share */
            left += (1.0 - fmax(e->shown_progress, 0.8)) * since / e->shown_progress;
        *basis = "measured rate";
        return left;
    }
    *basis = "earlier loads";
    return loading && e->bring_back_s > 0.0 ? fmax(e->bring_back_s - since, 0.0) : -1.0;
}

/* Seconds that an entry which is not there needs with all that goes before it; negative: nobody knows. */
static double turn_and_load(const ash_manager *m, const ash_entry *e, const char **basis)
{
    const char *others;
    double sum = ash_admission_seconds(e);
    if (!e->spec.path || !(sum > 0.0)) return -1.0;
    *basis = e->bring_back_s > 0.0 ? "earlier loads" : "size of its files";
    for (size_t i = 0; i < m->n; i++) {
        const ash_entry *x = &m->entries[i];
        bool runs = x->state == ASH_MODEL_LOADING && (x->demand || !e->demand);
        bool before = x->queued && x->spec.path && e->queued && x->queue_seq < e->queue_seq;
        if (x == e) continue;
        if (runs) sum += fmax(left_of(x, &others), 0.0);
        if (before) sum += ash_admission_seconds(x);
    }
    return sum;
}

/* Seconds until a model that lends no more does so again: others have its room first, and their time. */
static double turns(const ash_manager *m, const ash_entry *e)
{
    double sum = ash_admission_seconds(e);
    for (size_t i = 0; i < m->n; i++)
        if (m->entries[i].queued && m->entries[i].demand)
            sum += ash_admission_seconds(&m->entries[i]) + ASH_POLICY_LEAST_RESIDENCE_MS * 1e-3;
    return sum;
}

double ash_entry_eta(const ash_manager *m, const ash_entry *e, const char **basis)
{
    *basis = NULL;
    switch (e->state) {
    case ASH_MODEL_LOADED:
        return e->draining ? turns(m, e) : 0.0;
    case ASH_MODEL_LOADING:
    case ASH_MODEL_DOWNLOADING:
        return left_of(e, basis);
    default:
        return turn_and_load(m, e, basis);
    }
}

/* Of what is on its way. */
static void add_eta(json_t *o, const ash_manager *m, const ash_entry *e)
{
    const char *basis;
    double left = ash_entry_eta(m, e, &basis);
    bool shown = left >= 0.0 && basis && (e->queued || e->state != ASH_MODEL_UNLOADED) &&
                 e->state != ASH_MODEL_FAILED;
    json_object_set_new(o, "eta_seconds", shown ? json_real(ceil(left * 10.0) / 10.0) : json_null());
    json_object_set_new(o, "eta_basis", shown ? json_string(basis) : json_null());
}

static void set_number(json_t *o, const char *key, bool known, double v)
{
    json_object_set_new(o, key, known ? json_real(v) : json_null());
}

static void set_text(json_t *o, const char *key, const char *text)
{
    json_object_set_new(o, key, text ? json_string(text) : json_null());
}

static json_t *bytes_or_null(uint64_t bytes)
{
    return bytes ? json_integer((json_int_t)bytes) : json_null();
}

/* What it is charged, and the two figures that this may come from. */
static json_t *memory_json(const ash_entry *e)
{
    return json_pack("{s:I, s:o, s:o}", "charged", (json_int_t)e->charge, "estimated",
                     bytes_or_null(e->estimate), "measured", bytes_or_null(e->measured));
}

static json_t *expires_json(const ash_entry *e)
{
    int64_t at = ash_entry_expires(e);
    return at == INT64_MAX
               ? json_null()
               : json_real(floor((ash_clock_wall() + (double)(at - ash_clock_ns()) * 1e-9) * 1e3) * 1e-3);
}

/* What is known of a model in memory only, by llama-server's names where it has them. */
static void add_shape(json_t *o, const ash_model_info *i)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"n_params", i->n_params},
        {"n_ctx_train", i->n_ctx_train},
        {"n_embd", i->n_embd},
        {"n_vocab", i->n_vocab},
    };
    set_text(o, "architecture", i->architecture);
    set_text(o, "quantization", i->quantization);
    for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
        json_object_set_new(o, numbers[k].name, json_integer((json_int_t)numbers[k].value));
}

json_t *ash_entry_json(const ash_manager *m, ash_entry *e)
{
    bool fetching = e->state == ASH_MODEL_DOWNLOADING, loaded = e->state == ASH_MODEL_LOADED;
    bool loading = e->state == ASH_MODEL_LOADING || fetching;
    bool to_fetch = fetching || e->fetched || !e->spec.path;
    uint64_t done = atomic_load(&e->progress.bytes_done);
    uint64_t total = atomic_load(&e->progress.bytes_total);
    json_t *o = json_object();
    if (!o) return NULL;
    if (loading) ash_entry_sample(e, ash_clock_ns());
    set_text(o, "model", e->spec.id);
    set_text(o, "state",
             !e->queued || loading ? ash_model_state_name(e->state)
             : e->spec.path        ? "loading"
                                   : "downloading");
    set_text(o, "stage", loading ? ash_stage_names[atomic_load(&e->progress.stage)] : NULL);
    json_object_set_new(o, "stages", stages_json(to_fetch));
    set_number(o, "progress", true, loaded ? 1.0 : loading || e->fetched ? e->shown_progress : 0.0);
    json_object_set_new(o, "bytes_done", json_integer((json_int_t)done));
    json_object_set_new(o, "bytes_total", json_integer((json_int_t)total));
    json_object_set_new(o, "file_bytes", json_integer((json_int_t)e->plan.file_bytes)); /* 0: not looked at */
    set_number(o, "bytes_per_second", true, loading ? floor(e->rate) : 0.0);
    set_number(o, "stalled_since", loading && e->stalled_since > 0.0, e->stalled_since);
    add_eta(o, m, e);
    json_object_set_new(o, "queue_position", queue_position(m, e));
    set_number(o, "started_at", e->started_at > 0.0, e->started_at);
    json_object_set_new(o, "error", error_json(e));
    json_object_set_new(o, "can", can_json(m, e));
    json_object_set_new(o, "required", json_boolean(e->spec.preload && e->spec.required));
    json_object_set_new(o, "preload", json_boolean(e->spec.preload));
    json_object_set_new(o, "pin", json_boolean(e->spec.pin));
    set_text(o, "repo", e->spec.repo);
    set_text(o, "format", e->spec.format);
    set_text(o, "size", e->spec.size);
    set_text(o, "description", e->spec.description);
    set_text(o, "warning", e->spec.warning);
    json_object_set_new(o, "n_ctx",
                        loaded        ? json_integer(ash_engine_info(e->engine)->n_ctx)
                        : e->spec.ctx ? json_integer(e->spec.ctx)
                                      : json_null());
    json_object_set_new(o, "resident_bytes",
                        json_integer(loaded ? (json_int_t)e->resident_bytes : 0));
    if (loaded) add_shape(o, ash_engine_info(e->engine));
    const char *waits = e->waits;
    if (!waits) waits = ash_entry_fetch_waits(e);
    if (!waits && e->queued && e->weigh_began_ns) waits = "for the hub, which is asked how much it is";
    set_text(o, "waits", waits);
    json_object_set_new(o, "memory", memory_json(e));
    json_object_set_new(o, "expires_at", expires_json(e));
    set_number(o, "load_ms", loaded, e->load_ms);
    json_object_set_new(o, "warmed", loaded ? json_boolean(ash_engine_info(e->engine)->warmed) : json_null());
    set_text(o, "draft", e->spec.draft);
    set_text(o, "draft_refused", loaded && e->draft_refused[0] ? e->draft_refused : NULL);
    return o;
}
