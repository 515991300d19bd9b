/* The manager over engines that are only pretended, so that order, waiting, cancelling, failing and
 * unloading are tested without a model. The functions of engine/engine.h that it calls are below.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "residency/manager.h"
#include "waited.h"

/* ---- the pretended engine ---------------------------------------------------------------------
 */

struct ash_engine {
    ash_model_info info;
};

static atomic_int loads, closes, gate_open; /* "slow" loads wait until gate_open */
static _Atomic(const ash_engine *) lost;    /* this one's weights are gone */
static char load_order[64];
/* If set: the second plan of "wide" (the first is made before anything loads) waits for another load to
 * begin, opens the gate, and waits until that load has ended. */
static _Atomic(ash_manager *) ends_under_plan;
static atomic_int wide_plans;
static pthread_mutex_t order_mutex = PTHREAD_MUTEX_INITIALIZER;

int ash_engine_plan_read(const ash_engine_opts *opts, ash_engine_plan *out, ash_err *err)
{
    *out = (ash_engine_plan){.weight_bytes = 1000, .kv_bytes = 100, .scratch_bytes = 10};
    if (strstr(opts->path, "huge")) out->weight_bytes = (uint64_t)1 << 60;
    out->weights_least = out->weight_bytes;
    if (opts->draft_path && opts->prediction != ASH_PREDICTION_NEVER)
        out->draft_bytes = strstr(opts->draft_path, "huge") ? (uint64_t)1 << 60 : 7;
    ash_manager *m = atomic_load(&ends_under_plan);
    if (m && strstr(opts->path, "wide") && atomic_fetch_add(&wide_plans, 1) == 1) {
        for (int i = 0; i < 10000 && !atomic_load(&loads); i++) usleep(1000);
        atomic_store(&gate_open, 1);
        until_state(m, "first", ASH_MODEL_LOADED);
    }
    if (strstr(opts->path, "wide")) out->kv_bytes = opts->kv_bytes ? opts->kv_bytes : (uint64_t)1 << 60;
    return 0;
}

int ash_engine_open(const ash_engine_opts *opts, ash_engine **out, ash_err *err)
{
    pthread_mutex_lock(&order_mutex);
    size_t n = strlen(load_order);
    if (n < sizeof load_order - 1) load_order[n] = opts->path[0];
    pthread_mutex_unlock(&order_mutex);
    atomic_fetch_add(&loads, 1);
    opts->progress(opts->user, ASH_LOAD_VERIFY, 0, 1);
    opts->progress(opts->user, ASH_LOAD_PACK, 400, 1000);
    while (strstr(opts->path, "slow") && !atomic_load(&gate_open)) {
        if (atomic_load(opts->cancel)) return ash_err_set(err, ASH_ECANCELED, "cancelled");
        usleep(1000);
    }
    if (strstr(opts->path, "wide") && !opts->kv_bytes)
        return ash_err_set(err, ASH_ENOMEM, "the whole pool was asked for");
    if (!strstr(opts->path, "wide") && opts->kv_bytes)
        return ash_err_set(err, ASH_EINVAL, "a smaller pool was asked for");
    if (strstr(opts->path, "diskless"))
        return ash_err_set(err, ASH_EDISK, "its pack file does not fit");
    if (strstr(opts->path, "bad"))
        return ash_err_set(err, ASH_EFORMAT, "%s: tensor 'x' is cut", opts->path);
    opts->progress(opts->user, ASH_LOAD_PACK, 1000, 1000);
    opts->progress(opts->user, ASH_LOAD_WARM, 1, 1);
    ash_engine *e = calloc(1, sizeof *e);
    e->info = (ash_model_info){.n_ctx = 77, .weight_bytes = 1000, .kv_bytes = 100,
                               .warmed = !atomic_load(opts->awaited)};
    if (opts->draft_path && opts->prediction != ASH_PREDICTION_NEVER) {
        bool other = strstr(opts->draft_path, "other");
        e->info.draft = other ? NULL : opts->draft_path;
        e->info.draft_refused = other ? "another vocabulary" : NULL;
        e->info.draft_bytes = other ? 0 : 7;
    }
    *out = e;
    return 0;
}

void ash_headers_close(ash_headers *h)
{
}

void ash_engine_close(ash_engine *e)
{
    if (e) atomic_fetch_add(&closes, 1);
    free(e);
}

void ash_engine_get_stats(const ash_engine *e, ash_engine_stats *out)
{
    *out = (ash_engine_stats){.lost = e && e == atomic_load(&lost)};
}

uint64_t ash_engine_untouched(const ash_engine *e)
{
    return 1;
}

const ash_model_info *ash_engine_info(const ash_engine *e)
{
    return &e->info;
}

/* ---- helpers ----------------------------------------------------------------------------------
 */

static ash_manager *open_manager(const ash_model_spec *specs, size_t n, ash_ready policy)
{
    ash_manager *m;
    ash_err err = ASH_ERR_INIT;
    ash_manager_opts o = {.specs = specs, .n_specs = n, .ready_policy = policy};
    atomic_store(&loads, 0);
    atomic_store(&closes, 0);
    atomic_store(&gate_open, 0);
    memset(load_order, 0, sizeof load_order);
    assert_int_equal(ash_manager_open(&o, &m, &err), 0);
    assert_int_equal(ash_manager_start(m, &err), 0);
    return m;
}

#define SPEC(name, file, pre)                                                                      \
    {                                                                                              \
        .id = name, .path = file, .preload = pre, .required = pre, .pin = pre, .keep_alive_ms = -1 \
    }

/* ---- tests ------------------------------------------------------------------------------------
 */

static void test_preload_then_acquire_waits_for_nothing(void **state)
{
    ash_model_spec specs[] = {SPEC("a", "a", true), SPEC("b", "b", true), SPEC("c", "c", false)};
    ash_manager *m = open_manager(specs, 3, ASH_READY_REQUIRED);
    until_state(m, "b", ASH_MODEL_LOADED);
    assert_true(ash_manager_ready(m));
    assert_string_equal(load_order, "ab");
    assert_int_equal(ash_manager_state(m, "c"), ASH_MODEL_UNLOADED);
    waited w = {0};
    uint64_t ticket;
    assert_int_equal(ash_manager_acquire(m, "a", 1, on_lease, &w, &ticket, NULL), 0);
    assert_int_equal(atomic_load(&w.calls), 1); /* before acquire returned */
    assert_non_null(w.engine);
    ash_manager_release(m, w.engine);
    ash_manager_close(m);
    assert_int_equal(atomic_load(&closes), 2);
}

static void test_one_load_serves_all_who_wait(void **state)
{
    ash_model_spec specs[] = {SPEC("s", "slow", false)};
    ash_manager *m = open_manager(specs, 1, ASH_READY_REQUIRED);
    waited w[5] = {0};
    uint64_t t[5];
    for (int i = 0; i < 5; i++)
        assert_int_equal(ash_manager_acquire(m, "s", 60000, on_lease, &w[i], &t[i], NULL), 0);
    ash_manager_abandon(m, t[2]); /* one leaves; the load goes on */
    assert_int_equal(atomic_load(&w[2].calls), 1);
    assert_int_equal(w[2].err.code, ASH_ECANCELED);
    until_state(m, "s", ASH_MODEL_LOADING);
    atomic_store(&gate_open, 1);
    for (int i = 0; i < 5; i++) {
        until_called(&w[i]);
        if (i == 2) continue;
        assert_non_null(w[i].engine);
        assert_ptr_equal(w[i].engine, w[0].engine);
        ash_manager_release(m, w[i].engine);
    }
    assert_int_equal(atomic_load(&loads), 1);
    ash_manager_close(m);
}

static bool is_warmed(ash_manager *m, const char *id)
{
    json_t *o = ash_manager_progress(m, id);
    const json_t *warmed = json_object_get(o, "warmed");
    assert_true(json_is_boolean(warmed));
    bool yes = json_is_true(warmed);
    json_decref(o);
    return yes;
}

static void test_who_waits_takes_the_place_of_the_warming(void **state)
{
    ash_model_spec specs[] = {SPEC("s", "slow", false), SPEC("t", "slow too", false)};
    ash_manager *m = open_manager(specs, 2, ASH_READY_REQUIRED);
    waited early = {0}, late = {0}, left = {0};
    uint64_t t;
    assert_int_equal(ash_manager_load(m, "s", NULL), 0);
    for (int i = 0; i < 10000 && !atomic_load(&loads); i++) usleep(1000); /* begun, not only queued */
    json_t *o = ash_manager_progress(m, "s");
    assert_true(json_is_null(json_object_get(o, "warmed")));
    json_decref(o);
    assert_int_equal(ash_manager_acquire(m, "t", 60000, on_lease, &left, &t, NULL), 0);
    ash_manager_abandon(m, t); /* "t" goes on, in the queue, and nobody waits for it */
    assert_int_equal(ash_manager_acquire(m, "s", 60000, on_lease, &early, &t, NULL), 0);
    atomic_store(&gate_open, 1);
    until_called(&early);
    assert_false(is_warmed(m, "s"));
    until_state(m, "t", ASH_MODEL_LOADED);
    assert_true(is_warmed(m, "t"));
    assert_int_equal(ash_manager_acquire(m, "t", 60000, on_lease, &late, &t, NULL), 0);
    assert_true(is_warmed(m, "t"));
    ash_manager_release(m, early.engine);
    ash_manager_release(m, late.engine);
    ash_manager_close(m);
}

static void test_load_budget_ends_the_wait_not_the_load(void **state)
{
    ash_model_spec specs[] = {SPEC("s", "slow", false)};
    ash_manager *m = open_manager(specs, 1, ASH_READY_REQUIRED);
    waited w = {0};
    uint64_t ticket;
    assert_int_equal(ash_manager_acquire(m, "s", 20, on_lease, &w, &ticket, NULL), 0);
    until_called(&w);
    assert_null(w.engine);
    assert_int_equal(w.err.code, ASH_ETIMEDOUT);
    assert_int_equal(ash_manager_state(m, "s"), ASH_MODEL_LOADING);
    atomic_store(&gate_open, 1);
    until_state(m, "s", ASH_MODEL_LOADED);
    ash_manager_close(m);
}

/* Who comes after it was noticed gets an engine that was opened anew, also of a pinned model, and without
 * anybody the preload comes back by itself. */
static void test_an_engine_that_lost_its_weights_is_opened_anew(void **state)
{
    ash_model_spec specs[] = {SPEC("a", "a", true)};
    ash_manager *m = open_manager(specs, 1, ASH_READY_REQUIRED);
    waited w[3] = {0};
    uint64_t t;
    until_state(m, "a", ASH_MODEL_LOADED);
    for (int i = 0; i < 2; i++)
        assert_int_equal(ash_manager_acquire(m, "a", 60000, on_lease, &w[i], &t, NULL), 0);
    atomic_store(&lost, w[0].engine);
    ash_manager_release(m, w[0].engine);
    assert_int_equal(ash_manager_acquire(m, "a", 60000, on_lease, &w[2], &t, NULL), 0);
    assert_int_equal(atomic_load(&w[2].calls), 0);
    assert_int_equal(atomic_load(&loads), 1); /* the other answer has not ended yet */
    ash_manager_release(m, w[1].engine);
    until_called(&w[2]);
    assert_non_null(w[2].engine);
    assert_int_equal(atomic_load(&loads), 2);
    assert_int_equal(atomic_load(&closes), 1);
    atomic_store(&lost, w[2].engine);
    ash_manager_release(m, w[2].engine);
    for (int i = 0; i < 10000 && atomic_load(&loads) < 3; i++) usleep(1000);
    until_state(m, "a", ASH_MODEL_LOADED);
    assert_int_equal(atomic_load(&loads), 3);
    ash_manager_close(m);
    atomic_store(&lost, NULL);
}

/* A file that the load has to make, as the pack file of a mixture: that is the disk's matter, not memory's,
 * and is not tried again at each request, which may read all of the model. */
static void test_a_load_without_disk_says_so(void **state)
{
    ash_model_spec specs[] = {SPEC("diskless", "diskless", true)};
    ash_manager *m = open_manager(specs, 1, ASH_READY_ANY);
    waited w = {0};
    uint64_t ticket;
    ash_err err = ASH_ERR_INIT;
    until_state(m, "diskless", ASH_MODEL_FAILED);
    json_t *p = ash_manager_progress(m, "diskless"), *e = json_object_get(p, "error");
    assert_string_equal(json_string_value(json_object_get(e, "code")), "does_not_fit_disk");
    assert_non_null(strstr(json_string_value(json_object_get(e, "hint")), "ASHLEY_DISK_BUDGET"));
    json_decref(p);
    int before = atomic_load(&loads);
    assert_int_equal(ash_manager_acquire(m, "diskless", 10, on_lease, &w, &ticket, &err), ASH_EDISK);
    assert_int_equal(atomic_load(&loads), before);
    ash_manager_close(m);
}

static void test_one_bad_entry_never_stops_the_rest(void **state)
{
    ash_model_spec specs[] = {SPEC("bad", "bad.gguf", true),
                              SPEC("huge", "huge", true),
                              {.id = "gone",
                               .absent_reason = "not downloaded",
                               .absent_code = "not_downloaded",
                               .absent_hint = "fetch it",
                               .preload = true,
                               .required = true,
                               .keep_alive_ms = -1},
                              SPEC("good", "good", true), SPEC("wide", "wide", true)};
    ash_manager *m = open_manager(specs, 5, ASH_READY_ANY);
    until_state(m, "good", ASH_MODEL_LOADED);
    until_state(m, "wide", ASH_MODEL_LOADED); /* with a KV pool that fits */
    assert_int_equal(ash_manager_state(m, "bad"), ASH_MODEL_FAILED);
    assert_int_equal(ash_manager_state(m, "gone"), ASH_MODEL_FAILED);
    assert_true(ash_manager_ready(m));
    json_t *p = ash_manager_progress(m, "bad"), *g = ash_manager_progress(m, "gone"),
           *h = ash_manager_progress(m, "huge");
    json_t *pe = json_object_get(p, "error"), *ge = json_object_get(g, "error"),
           *he = json_object_get(h, "error");
    assert_string_equal(json_string_value(json_object_get(pe, "code")), "corrupt_file");
    assert_non_null(strstr(json_string_value(json_object_get(pe, "message")), "tensor 'x' is cut"));
    assert_string_equal(json_string_value(json_object_get(ge, "code")), "not_downloaded");
    assert_string_equal(json_string_value(json_object_get(ge, "hint")), "fetch it");
    assert_string_equal(json_string_value(json_object_get(he, "code")), "does_not_fit");
    json_decref(p);
    json_decref(g);
    json_decref(h);
    waited w = {0};
    uint64_t ticket;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_manager_acquire(m, "bad", 10, on_lease, &w, &ticket, &err), ASH_EFORMAT);
    assert_int_equal(ash_manager_acquire(m, "gone", 10, on_lease, &w, &ticket, &err), ASH_ENOENT);
    assert_int_equal(ash_manager_acquire(m, "nobody", 10, on_lease, &w, &ticket, &err), ASH_ENOENT);
    assert_int_equal(atomic_load(&w.calls), 0);
    json_t *report = ash_manager_report(m);
    assert_true(json_is_true(json_object_get(report, "done")));
    assert_int_equal(json_array_size(json_object_get(report, "models")), 5);
    json_decref(report);
    ash_manager_close(m);
    m = open_manager(specs, 4, ASH_READY_REQUIRED);
    until_state(m, "good", ASH_MODEL_LOADED);
    assert_false(ash_manager_ready(m));
    ash_manager_close(m);
}

/* "wide" takes all memory: its turn is after that of those before it in the list, whenever a load ends. */
static void test_a_load_that_ends_while_headers_are_read_changes_no_order(void **state)
{
    ash_model_spec specs[] = {SPEC("first", "f slow", true), SPEC("good", "g", true),
                              SPEC("wide", "wide", true)};
    ash_manager *m;
    ash_manager_opts o = {.specs = specs, .n_specs = 3};
    atomic_store(&loads, 0);
    atomic_store(&gate_open, 0);
    memset(load_order, 0, sizeof load_order);
    assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
    atomic_store(&wide_plans, 0);
    atomic_store(&ends_under_plan, m);
    assert_int_equal(ash_manager_start(m, NULL), 0);
    until_state(m, "wide", ASH_MODEL_LOADED);
    assert_string_equal(load_order, "fgw");
    assert_int_equal(ash_manager_state(m, "good"), ASH_MODEL_LOADED);
    atomic_store(&ends_under_plan, NULL);
    ash_manager_close(m);
}

/* What a loaded model says of its draft model: NULL if that guesses. */
static void expect_draft(ash_manager *m, const char *id, const char *draft, const char *why, int bytes)
{
    until_state(m, id, ASH_MODEL_LOADED);
    json_t *p = ash_manager_progress(m, id);
    const char *refused = json_string_value(json_object_get(p, "draft_refused"));
    const char *named = json_string_value(json_object_get(p, "draft"));
    assert_true(draft ? named && !strcmp(named, draft) : !named);
    if (!why != !refused || (why && !strstr(refused, why)))
        fail_msg("%s: '%s', not '%s'", id, refused ? refused : "", why ? why : "");
    assert_int_equal(json_integer_value(json_object_get(p, "resident_bytes")), bytes);
    json_decref(p);
}

static void test_a_draft_that_cannot_be_is_left_out(void **state)
{
    ash_model_spec specs[] = {SPEC("none", "a", true), SPEC("good", "a", true), SPEC("gone", "a", true),
                              SPEC("other", "a", true), SPEC("huge", "a", true)};
    const char *paths[] = {NULL, "draft", NULL, "other", "huge"};
    for (int i = 1; i < 5; i++) {
        specs[i].draft = "small";
        specs[i].draft_path = paths[i];
        specs[i].draft_absent = "not downloaded";
    }
    ash_manager *m = open_manager(specs, 5, ASH_READY_ALL);
    expect_draft(m, "none", NULL, NULL, 1100);
    expect_draft(m, "good", "small", NULL, 1107);
    expect_draft(m, "gone", "small", "not downloaded", 1100);
    expect_draft(m, "other", "small", "another vocabulary", 1100);
    expect_draft(m, "huge", "small", "GB are free", 1100);
    assert_true(ash_manager_ready(m));
    ash_manager_close(m);
    ash_manager_opts o = {.specs = specs, .n_specs = 2, .prediction = ASH_PREDICTION_NEVER};
    assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
    assert_int_equal(ash_manager_start(m, NULL), 0);
    expect_draft(m, "good", "small", "prediction is off", 1100);
    ash_manager_close(m);
}

static void test_nearest_name(void **state)
{
    ash_model_spec specs[] = {SPEC("smollm2-135m-instruct", "a", false),
                              SPEC("deepseek-r1", "b", false)};
    ash_manager *m = open_manager(specs, 2, ASH_READY_REQUIRED);
    const char *near;
    assert_true(ash_manager_knows(m, "deepseek-r1", &near));
    assert_false(ash_manager_knows(m, "smolm2-135m-instruct", &near));
    assert_string_equal(near, "smollm2-135m-instruct");
    assert_false(ash_manager_knows(m, "gpt-4o", &near));
    assert_null(near);
    ash_manager_close(m);
    ash_model_spec nobody = SPEC("smolm2", NULL, true); /* as a preload that no catalogue has */
    nobody.absent_code = "model_not_found";
    ash_model_spec more[] = {nobody, SPEC("smollm2", "a", false)};
    m = open_manager(more, 2, ASH_READY_REQUIRED);
    assert_false(ash_manager_knows(m, "smolm2", &near));
    assert_string_equal(near, "smollm2");
    ash_manager_close(m);
}

static void test_unload_waits_for_the_last_lease(void **state)
{
    ash_model_spec specs[] = {SPEC("a", "a", true)};
    ash_manager *m = open_manager(specs, 1, ASH_READY_REQUIRED);
    until_state(m, "a", ASH_MODEL_LOADED);
    waited w = {0};
    uint64_t ticket;
    assert_int_equal(ash_manager_acquire(m, "a", 0, on_lease, &w, &ticket, NULL), 0);
    assert_int_equal(ash_manager_unload(m, "a", NULL), 0);
    usleep(20000);
    assert_int_equal(ash_manager_state(m, "a"), ASH_MODEL_LOADED);
    ash_manager_release(m, w.engine);
    until_state(m, "a", ASH_MODEL_UNLOADED);
    assert_int_equal(ash_manager_load(m, "a", NULL), 0);
    until_state(m, "a", ASH_MODEL_LOADED);
    assert_int_equal(atomic_load(&loads), 2);
    ash_manager_close(m);
}

static void test_idle_model_goes_after_its_keep_alive(void **state)
{
    ash_model_spec specs[] = {{.id = "a", .path = "a", .keep_alive_ms = 30}};
    ash_manager *m = open_manager(specs, 1, ASH_READY_REQUIRED);
    waited w = {0};
    uint64_t ticket;
    assert_int_equal(ash_manager_acquire(m, "a", 0, on_lease, &w, &ticket, NULL), 0);
    until_called(&w);
    usleep(100000);
    assert_int_equal(ash_manager_state(m, "a"), ASH_MODEL_LOADED); /* in use */
    ash_manager_release(m, w.engine);
    until_state(m, "a", ASH_MODEL_UNLOADED);
    for (int i = 0; i < 1000 && !atomic_load(&closes); i++) usleep(1000);
    assert_int_equal(atomic_load(&closes), 1);
    ash_manager_close(m);
}

static bool has_end(ash_manager *m, const char *id)
{
    json_t *p = ash_manager_progress(m, id);
    bool has = json_is_number(json_object_get(p, "expires_at"));
    json_decref(p);
    return has;
}

/* A lease, given back at once. */
static void use(ash_manager *m, const char *id)
{
    waited w = {0};
    assert_int_equal(ash_manager_acquire(m, id, 0, on_lease, &w, &w.ticket, NULL), 0);
    until_called(&w);
    assert_non_null(w.engine);
    ash_manager_release(m, w.engine);
}

static void test_a_keep_alive_that_is_asked_for(void **state)
{
    ash_model_spec specs[] = {{.id = "a", .path = "a", .keep_alive_ms = 3600000}, SPEC("p", "p", true)};
    ash_manager *m = open_manager(specs, 2, ASH_READY_REQUIRED);
    until_state(m, "p", ASH_MODEL_LOADED);
    waited w = {0};
    assert_int_equal(ash_manager_acquire(m, "a", 0, on_lease, &w, &w.ticket, NULL), 0);
    until_called(&w);
    assert_int_equal(ash_manager_keep(m, "a", 0, NULL), 0);
    assert_int_equal(ash_manager_keep(m, "p", 0, NULL), 0); /* pinned */
    assert_int_equal(ash_manager_keep(m, "x", 0, NULL), ASH_ENOENT);
    usleep(50000);
    assert_int_equal(ash_manager_state(m, "a"), ASH_MODEL_LOADED); /* in use */
    ash_manager_release(m, w.engine);
    until_state(m, "a", ASH_MODEL_UNLOADED);
    use(m, "a"); /* the spec's own again */
    assert_true(has_end(m, "a"));
    assert_int_equal(ash_manager_keep(m, "a", -1, NULL), 0);
    assert_false(has_end(m, "a"));
    assert_int_equal(ash_manager_keep(m, "a", INT64_MAX, NULL), 0);
    assert_false(has_end(m, "a"));
    assert_int_equal(ash_manager_unload(m, "a", NULL), 0);
    until_state(m, "a", ASH_MODEL_UNLOADED);
    assert_int_equal(ash_manager_keep(m, "a", 30, NULL), 0); /* of the load to come */
    use(m, "a");
    until_state(m, "a", ASH_MODEL_UNLOADED);
    assert_int_equal(ash_manager_state(m, "p"), ASH_MODEL_LOADED);
    ash_manager_close(m);
}

static void test_cancel_and_shutdown_end_a_load(void **state)
{
    ash_model_spec specs[] = {SPEC("s", "slow", false), SPEC("t", "t", false)};
    ash_manager *m = open_manager(specs, 2, ASH_READY_REQUIRED);
    waited w = {0}, x = {0};
    uint64_t ticket;
    assert_int_equal(ash_manager_acquire(m, "s", 0, on_lease, &w, &ticket, NULL), 0);
    until_state(m, "s", ASH_MODEL_LOADING);
    assert_int_equal(ash_manager_cancel(m, "s", NULL), 0);
    until_called(&w);
    assert_int_equal(w.err.code, ASH_ECANCELED);
    until_state(m, "s", ASH_MODEL_UNLOADED);
    assert_int_equal(ash_manager_acquire(m, "s", 0, on_lease, &x, &ticket, NULL), 0);
    until_state(m, "s", ASH_MODEL_LOADING);
    ash_manager_close(m);
    until_called(&x);
    assert_int_equal(x.err.code, ASH_ECANCELED);
}

static void test_progress_never_goes_back(void **state)
{
    ash_model_spec specs[] = {SPEC("s", "slow", true)};
    ash_manager *m = open_manager(specs, 1, ASH_READY_REQUIRED);
    double before = 0.0, first = -1.0;
    for (int i = 0; i < 50; i++) {
        json_t *p = ash_manager_progress(m, "s");
        double now = json_number_value(json_object_get(p, "progress"));
        assert_true(now >= before && now <= 1.0);
        first = now > 0.0 && first < 0.0 ? now : first;
        before = now;
        json_decref(p);
        usleep(1000);
        if (i == 25) atomic_store(&gate_open, 1);
    }
    assert_true(first > 0.0 && first < 1.0);
    until_state(m, "s", ASH_MODEL_LOADED);
    json_t *p = ash_manager_progress(m, "s");
    assert_true(json_number_value(json_object_get(p, "progress")) == 1.0);
    assert_int_equal(json_integer_value(json_object_get(p, "n_ctx")), 77);
    json_decref(p);
    ash_manager_close(m);
}

typedef struct heard {
    atomic_int calls;
} heard;

static void on_change(void *user, const char *id)
{
    atomic_fetch_add(&((heard *)user)->calls, 1);
}

static void test_listener_hears_every_change(void **state)
{
    ash_manager *m;
    heard h = {0};
    ash_model_spec specs[] = {SPEC("a", "a", true)};
    ash_manager_opts o = {.specs = specs, .n_specs = 1};
    assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
    ash_manager_listen(m, on_change, &h);
    uint64_t version = ash_manager_version(m);
    assert_int_equal(ash_manager_start(m, NULL), 0);
    until_state(m, "a", ASH_MODEL_LOADED);
    for (int i = 0; i < 1000 && !atomic_load(&h.calls); i++) usleep(1000);
    assert_true(atomic_load(&h.calls) >= 1);
    assert_true(ash_manager_version(m) > version);
    ash_manager_close(m);
}

int main(void)
{
    ash_log_set_level(ASH_LOG_NONE);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preload_then_acquire_waits_for_nothing),
        cmocka_unit_test(test_one_load_serves_all_who_wait),
        cmocka_unit_test(test_who_waits_takes_the_place_of_the_warming),
        cmocka_unit_test(test_load_budget_ends_the_wait_not_the_load),
        cmocka_unit_test(test_an_engine_that_lost_its_weights_is_opened_anew),
        cmocka_unit_test(test_a_load_without_disk_says_so),
        cmocka_unit_test(test_one_bad_entry_never_stops_the_rest),
        cmocka_unit_test(test_a_load_that_ends_while_headers_are_read_changes_no_order),
        cmocka_unit_test(test_a_draft_that_cannot_be_is_left_out),
        cmocka_unit_test(test_nearest_name),
        cmocka_unit_test(test_unload_waits_for_the_last_lease),
        cmocka_unit_test(test_idle_model_goes_after_its_keep_alive),
        cmocka_unit_test(test_a_keep_alive_that_is_asked_for),
        cmocka_unit_test(test_cancel_and_shutdown_end_a_load),
        cmocka_unit_test(test_progress_never_goes_back),
        cmocka_unit_test(test_listener_hears_every_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
