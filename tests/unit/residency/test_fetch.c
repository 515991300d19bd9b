/* The manager's fetches over a pretended hub and pretended engines: what is shown meanwhile, who is served,
 * and what cancelling, failing and shutting down leave. The functions of engine/engine.h that the manager
 * calls are below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "waited.h"

struct ash_engine {
    ash_model_info info;
};

int ash_engine_plan_read(const ash_engine_opts *opts, ash_engine_plan *out, ash_err *err)
{
    *out = (ash_engine_plan){
        .weight_bytes = 1000, .weights_least = 1000, .kv_bytes = 100, .scratch_bytes = 10};
    return 0;
}

static atomic_int loads;

int ash_engine_open(const ash_engine_opts *opts, ash_engine **out, ash_err *err)
{
    atomic_fetch_add(&loads, 1);
    if (strncmp(opts->path, "here", 4) != 0) return ash_err_set(err, ASH_ENOENT, "%s", opts->path);
    opts->progress(opts->user, ASH_LOAD_VERIFY, 0, 1);
    *out = calloc(1, sizeof **out);
    return 0;
}

void ash_headers_close(ash_headers *h)
{
}

void ash_engine_close(ash_engine *e)
{
    free(e);
}

void ash_engine_get_stats(const ash_engine *e, ash_engine_stats *out)
{
    *out = (ash_engine_stats){0};
}

uint64_t ash_engine_untouched(const ash_engine *e)
{
    return 1;
}

const ash_model_info *ash_engine_info(const ash_engine *e)
{
    return &e->info;
}

/* ---- the pretended hub: a fetch gives `got` of 1000 bytes until it may end ---- */

typedef struct hub {
    uint64_t needs[4]; /* bytes of the models "a" to "d", of 1000 that are free, 100 of which stay so */
    uint64_t unit;     /* in place of a byte, or 0 */
    atomic_int weighed;
    char stuck; /* no answer about this one, until it is cancelled */
    atomic_int begun[4]; /* fetches of these */
    atomic_int fetches, at_once, most_at_once;
    atomic_int fail; /* the code that all fetches end with, or 0 */
    atomic_ullong got;
    atomic_bool go;
} hub;

#define GIGA 1000000000u /* a unit that makes 10 of it a large fetch */

static uint64_t unit(const hub *h)
{
    return h->unit ? h->unit : 1;
}

static int fetch(void *user, const char *id, const ash_hub_watch *watch, char **path, ash_err *err)
{
    hub *h = user;
    int n = atomic_fetch_add(&h->at_once, 1) + 1, rc = atomic_load(&h->fail);
    if (n > atomic_load(&h->most_at_once)) atomic_store(&h->most_at_once, n);
    atomic_fetch_add(&h->fetches, 1);
    if (id[0] <= 'd') atomic_fetch_add(&h->begun[id[0] - 'a'], 1);
    while (!rc && !atomic_load(&h->go)) {
        if (atomic_load(watch->cancel)) rc = ASH_ECANCELED;
        watch->progress(watch->user, &(ash_hub_progress){.stage = ASH_HUB_FETCHING,
                                                         .bytes_done = atomic_load(&h->got) * unit(h),
                                                         .bytes_total = 1000 * unit(h),
                                                         .bytes_per_second = 50});
        usleep(1000);
    }
    atomic_fetch_sub(&h->at_once, 1);
    if (rc) return ash_err_set(err, rc, "the pretended hub says %d", rc);
    *path = strdup("here");
    return 0;
}

static int weigh(void *user, const char *id, const atomic_bool *cancel, ash_fetch_need *out, ash_err *err)
{
    hub *h = user;
    *out = (ash_fetch_need){.bytes = h->needs[id[0] - 'a'] * unit(h),
                            .disk_free = 1000 * unit(h),
                            .disk_reserve = 100 * unit(h)};
    atomic_fetch_add(&h->weighed, 1);
    while (h->stuck == id[0] && !atomic_load(cancel)) usleep(1000);
    return 0;
}

static void advise(void *user, const char *id, uint64_t missing, char *text, size_t size)
{
    snprintf(text, size, "%s lacks %d", id, (int)(missing / unit(user)));
}

static ash_manager *open_manager(const ash_model_spec *specs, size_t n, hub *h)
{
    ash_manager *m;
    ash_err err = ASH_ERR_INIT;
    ash_manager_opts o = {.specs = specs, .n_specs = n, .fetch = fetch, .fetch_user = h,
                          .weigh = h->needs[0] ? weigh : NULL, .advise = advise,
                          .ready_policy = ASH_READY_REQUIRED};
    atomic_store(&loads, 0);
    assert_int_equal(ash_manager_open(&o, &m, &err), 0);
    assert_int_equal(ash_manager_start(m, &err), 0);
    return m;
}

#define ABSENT(name, pre)                                                                          \
    {                                                                                              \
        .id = name, .fetch = true, .preload = pre, .required = pre, .pin = pre, .keep_alive_ms = -1 \
    }

/* A member of the progress object; text and numbers. */
static bool shows(const ash_manager *m, const char *id, const char *key, const char *text)
{
    json_t *p = ash_manager_progress(m, id);
    const char *got = json_string_value(json_object_get(p, key));
    bool same = got && !strcmp(got, text);
    json_decref(p);
    return same;
}

static double number(const ash_manager *m, const char *id, const char *key)
{
    json_t *p = ash_manager_progress(m, id);
    double v = json_number_value(json_object_get(p, key));
    json_decref(p);
    return v;
}

static void until_bytes(const ash_manager *m, const char *id, double n)
{
    for (int i = 0; i < 10000 && number(m, id, "bytes_done") != n; i++) usleep(1000);
    assert_true(number(m, id, "bytes_done") == n);
}

static void until_count(const atomic_int *n, int least)
{
    for (int i = 0; i < 10000 && atomic_load(n) < least; i++) usleep(1000);
    assert_true(atomic_load(n) >= least);
}

static void assert_failed_with(const ash_manager *m, const char *id, const char *code)
{
    json_t *p = ash_manager_progress(m, id), *e = json_object_get(p, "error");
    assert_string_equal(json_string_value(json_object_get(e, "code")), code);
    assert_non_null(json_string_value(json_object_get(e, "hint")));
    json_decref(p);
}

/* ---- tests ---- */

static void test_a_preload_is_fetched_and_others_load_meanwhile(void **state)
{
    hub h = {0};
    ash_model_spec specs[] = {ABSENT("a", true), ABSENT("b", true), ABSENT("d", true),
                              {.id = "c", .path = "here", .preload = true, .required = true,
                               .keep_alive_ms = -1}};
    ash_manager *m = open_manager(specs, 4, &h);
    until_state(m, "c", ASH_MODEL_LOADED);
    until_count(&h.fetches, 2);
    assert_int_equal(ash_manager_state(m, "d"), ASH_MODEL_DOWNLOADING); /* its turn comes */
    assert_int_equal(atomic_load(&h.begun[3]), 0);
    assert_false(ash_manager_ready(m));
    atomic_store(&h.go, true);
    until_state(m, "a", ASH_MODEL_LOADED);
    until_state(m, "b", ASH_MODEL_LOADED);
    until_state(m, "d", ASH_MODEL_LOADED);
    assert_true(ash_manager_ready(m));
    assert_int_equal(atomic_load(&h.fetches), 3);
    assert_int_equal(atomic_load(&h.most_at_once), 2);
    ash_manager_close(m);
}

static void test_small_ones_pass_a_large_one_that_waits(void **state)
{
    hub h = {.needs = {100, 100, 1}, .unit = GIGA};
    ash_model_spec specs[] = {ABSENT("a", false), ABSENT("b", false), ABSENT("c", false)};
    atomic_store(&h.got, 900); /* of 1000, so that 100 are still to come */
    ash_manager *m = open_manager(specs, 3, &h);
    assert_int_equal(ash_manager_load(m, "a", NULL), 0);
    until_count(&h.begun[0], 1);
    assert_int_equal(ash_manager_load(m, "b", NULL), 0);
    until_count(&h.weighed, 2);
    assert_int_equal(ash_manager_load(m, "c", NULL), 0);
    until_count(&h.begun[2], 1);
    assert_int_equal(atomic_load(&h.begun[1]), 0);
    atomic_store(&h.go, true);
    until_state(m, "c", ASH_MODEL_LOADED);
    until_state(m, "b", ASH_MODEL_LOADED);
    until_state(m, "a", ASH_MODEL_LOADED);
    assert_int_equal(atomic_load(&h.most_at_once), 2);
    ash_manager_close(m);
}

static void test_progress_of_a_fetch_never_goes_back(void **state)
{
    hub h = {0};
    ash_model_spec specs[] = {ABSENT("a", true)};
    atomic_store(&h.got, 500);
    ash_manager *m = open_manager(specs, 1, &h);
    until_bytes(m, "a", 500);
    assert_true(shows(m, "a", "state", "downloading"));
    assert_true(shows(m, "a", "stage", "fetch"));
    assert_true(number(m, "a", "bytes_total") == 1000);
    assert_true(number(m, "a", "bytes_per_second") == 50);
    assert_true(number(m, "a", "eta_seconds") == 10);
    double half = number(m, "a", "progress");
    assert_true(half > 0.3 && half < 0.5);
    atomic_store(&h.got, 300); /* something on disk was wrong */
    usleep(20000);
    assert_true(number(m, "a", "bytes_done") == 500);
    assert_true(number(m, "a", "progress") == half);
    atomic_store(&h.got, 1000);
    until_bytes(m, "a", 1000);
    double before = number(m, "a", "progress"), now = before;
    atomic_store(&h.go, true);
    for (int i = 0; i < 10000 && now < 1.0; i++) {
        now = number(m, "a", "progress");
        assert_true(now >= before && now <= 1.0);
        before = now;
    }
    assert_true(now == 1.0);
    ash_manager_close(m);
}

static void test_one_fetch_serves_all_and_outlives_who_leaves(void **state)
{
    hub h = {0};
    ash_model_spec specs[] = {ABSENT("a", false)};
    ash_manager *m = open_manager(specs, 1, &h);
    waited w[3] = {0};
    uint64_t t[3];
    assert_int_equal(ash_manager_state(m, "a"), ASH_MODEL_UNLOADED);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ash_manager_acquire(m, "a", 60000, on_lease, &w[i], &t[i], NULL), 0);
    until_state(m, "a", ASH_MODEL_DOWNLOADING);
    ash_manager_abandon(m, t[0]);
    until_called(&w[0]);
    assert_int_equal(w[0].err.code, ASH_ECANCELED);
    atomic_store(&h.go, true);
    for (int i = 1; i < 3; i++) {
        until_called(&w[i]);
        assert_non_null(w[i].engine);
        ash_manager_release(m, w[i].engine);
    }
    assert_int_equal(atomic_load(&h.fetches), 1);
    assert_int_equal(atomic_load(&loads), 1);
    ash_manager_close(m);
}

static void test_cancel_and_shutdown_end_a_fetch(void **state)
{
    hub h = {.needs = {100, 100}, .unit = GIGA};
    ash_model_spec specs[] = {ABSENT("a", false), ABSENT("b", false)};
    atomic_store(&h.got, 900); /* of 1000, so that both fit the disk */
    ash_manager *m = open_manager(specs, 2, &h);
    waited w = {0}, x = {0};
    uint64_t t;
    assert_int_equal(ash_manager_acquire(m, "a", 0, on_lease, &w, &t, NULL), 0);
    for (int i = 0; i < 10000 && !atomic_load(&h.fetches); i++) usleep(1000);
    assert_int_equal(ash_manager_unload(m, "a", NULL), ASH_EINVAL);
    assert_int_equal(ash_manager_load(m, "b", NULL), 0);
    assert_int_equal(ash_manager_cancel(m, "b", NULL), 0); /* which waits for its turn */
    assert_int_equal(ash_manager_state(m, "b"), ASH_MODEL_UNLOADED);
    assert_int_equal(ash_manager_cancel(m, "a", NULL), 0);
    until_called(&w);
    assert_int_equal(w.err.code, ASH_ECANCELED);
    until_state(m, "a", ASH_MODEL_UNLOADED);
    assert_int_equal(ash_manager_acquire(m, "a", 0, on_lease, &x, &t, NULL), 0);
    for (int i = 0; i < 10000 && atomic_load(&h.fetches) < 2; i++) usleep(1000);
    ash_manager_close(m);
    until_called(&x);
    assert_int_equal(x.err.code, ASH_ECANCELED);
    assert_int_equal(atomic_load(&h.fetches), 2);
    assert_int_equal(atomic_load(&h.at_once), 0);
    assert_int_equal(atomic_load(&loads), 0);
}

static void test_a_failed_fetch_says_why_and_may_be_retried(void **state)
{
    static const struct {
        int code;
        const char *name;
    } all[] = {{ASH_EAUTH, "gated"},
               {ASH_ENET, "network"},
               {ASH_ETIMEDOUT, "network"},
               {ASH_ENOSPC, "does_not_fit_disk"},
               {ASH_ENOENT, "not_downloaded"},
               {ASH_EFORMAT, "corrupt_download"},
               {ASH_EIO, "fetch_failed"}};
    ash_model_spec specs[] = {ABSENT("a", false)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        hub h = {0};
        waited w = {0};
        uint64_t t;
        ash_err err = ASH_ERR_INIT;
        atomic_store(&h.fail, all[i].code);
        atomic_store(&h.go, true);
        ash_manager *m = open_manager(specs, 1, &h);
        assert_int_equal(ash_manager_acquire(m, "a", 60000, on_lease, &w, &t, NULL), 0);
        until_called(&w);
        assert_null(w.engine);
        assert_int_not_equal(w.err.code, ASH_ETIMEDOUT); /* which would say that it goes on */
        assert_int_equal(ash_manager_state(m, "a"), ASH_MODEL_FAILED);
        assert_failed_with(m, "a", all[i].name);
        /* a request does not try again before the pause is over, an explicit load does */
        assert_int_not_equal(ash_manager_acquire(m, "a", 0, on_lease, &w, &t, &err), 0);
        assert_int_equal(atomic_load(&h.fetches), 1);
        atomic_store(&h.fail, 0);
        assert_int_equal(ash_manager_load(m, "a", NULL), 0);
        until_state(m, "a", ASH_MODEL_LOADED);
        ash_manager_close(m);
    }
}

static void test_a_preload_whose_fetch_failed_is_fetched_again_by_itself(void **state)
{
    hub h = {0};
    ash_model_spec specs[] = {ABSENT("a", true)};
    atomic_store(&h.fail, ASH_ENET);
    atomic_store(&h.go, true);
    ash_manager *m = open_manager(specs, 1, &h);
    until_state(m, "a", ASH_MODEL_FAILED);
    atomic_store(&h.fail, 0);
    for (int i = 0; i < 60000 && ash_manager_state(m, "a") != ASH_MODEL_LOADED; i++) usleep(1000);
    assert_int_equal(ash_manager_state(m, "a"), ASH_MODEL_LOADED); /* after a pause of 10 s */
    assert_int_equal(atomic_load(&h.fetches), 2);
    ash_manager_close(m);
}

static void test_what_may_not_be_fetched_stays_failed(void **state)
{
    hub h = {0};
    ash_model_spec specs[] = {{.id = "warned", .absent_reason = "hundreds of GB",
                               .absent_code = "consent_needed", .absent_hint = "confirm it",
                               .preload = true, .required = true},
                              ABSENT("b", true)};
    waited w = {0};
    uint64_t t;
    ash_err err = ASH_ERR_INIT;
    atomic_store(&h.go, true);
    ash_manager *m = open_manager(specs, 2, &h);
    until_state(m, "b", ASH_MODEL_LOADED);
    assert_failed_with(m, "warned", "consent_needed");
    assert_int_not_equal(ash_manager_acquire(m, "warned", 0, on_lease, &w, &t, &err), 0);
    assert_int_not_equal(ash_manager_load(m, "warned", &err), 0);
    assert_int_equal(atomic_load(&h.fetches), 1);
    ash_manager_close(m);
}

static void test_a_download_loads_only_for_who_asks(void **state)
{
    hub h = {0};
    ash_model_spec specs[] = {ABSENT("a", false), ABSENT("b", false)};
    ash_manager *m = open_manager(specs, 2, &h);
    waited w = {0};
    uint64_t t;
    assert_int_equal(ash_manager_download(m, "a", false, NULL), 0);
    assert_int_equal(ash_manager_download(m, "a", false, NULL), 0);
    assert_int_equal(ash_manager_download(m, "b", false, NULL), 0);
    assert_int_equal(ash_manager_acquire(m, "b", 0, on_lease, &w, &t, NULL), 0);
    atomic_store(&h.go, true);
    until_state(m, "a", ASH_MODEL_DOWNLOADED);
    until_called(&w);
    assert_non_null(w.engine);
    ash_manager_release(m, w.engine);
    assert_int_equal(atomic_load(&h.fetches), 2);
    assert_int_equal(atomic_load(&loads), 1);
    assert_int_equal(ash_manager_download(m, "a", false, NULL), 0);
    assert_int_equal(ash_manager_load(m, "a", NULL), 0);
    until_state(m, "a", ASH_MODEL_LOADED);
    ash_manager_close(m);
}

static void test_a_pause_ends_when_somebody_goes_on(void **state)
{
    hub h = {.needs = {100, 100}, .unit = GIGA};
    ash_model_spec specs[] = {ABSENT("a", true), ABSENT("b", true)};
    atomic_store(&h.got, 900); /* of 1000, so that both fit the disk */
    ash_manager *m = open_manager(specs, 2, &h);
    waited w = {0};
    uint64_t t;
    for (int i = 0; i < 10000 && !atomic_load(&h.fetches); i++) usleep(1000);
    assert_int_equal(ash_manager_acquire(m, "b", 0, on_lease, &w, &t, NULL), 0);
    assert_int_equal(ash_manager_pause(m, "b", NULL), 0); /* which waits for its turn */
    until_called(&w);
    assert_int_equal(w.err.code, ASH_ECANCELED);
    assert_failed_with(m, "b", "download_paused");
    assert_int_equal(ash_manager_pause(m, "a", NULL), 0);
    until_state(m, "a", ASH_MODEL_FAILED);
    assert_failed_with(m, "a", "download_paused");
    assert_int_not_equal(ash_manager_acquire(m, "a", 0, on_lease, &w, &t, NULL), 0);
    assert_int_equal(ash_manager_cancel(m, "b", NULL), 0);
    assert_int_equal(ash_manager_state(m, "b"), ASH_MODEL_UNLOADED);
    assert_int_equal(ash_manager_pause(m, "b", NULL), ASH_EINVAL);
    atomic_store(&h.go, true);
    assert_int_equal(ash_manager_load(m, "a", NULL), 0);
    until_state(m, "a", ASH_MODEL_LOADED);
    ash_manager_close(m);
}

static void test_who_goes_on_before_the_pause_is_there_is_served(void **state)
{
    hub h = {0};
    ash_model_spec specs[] = {ABSENT("a", false)};
    ash_manager *m = open_manager(specs, 1, &h);
    assert_int_equal(ash_manager_load(m, "a", NULL), 0);
    for (int i = 0; i < 10000 && !atomic_load(&h.fetches); i++) usleep(1000);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(i % 2 ? ash_manager_cancel(m, "a", NULL) : ash_manager_pause(m, "a", NULL), 0);
        assert_int_equal(ash_manager_load(m, "a", NULL), 0);
        until_state(m, "a", ASH_MODEL_DOWNLOADING);
    }
    atomic_store(&h.go, true);
    until_state(m, "a", ASH_MODEL_LOADED);
    ash_manager_close(m);
}

static void test_downloads_fit_the_disk_together(void **state)
{
    hub h = {.needs = {500, 300, 200, 100}, .unit = GIGA};
    ash_model_spec specs[] = {ABSENT("a", false), ABSENT("b", false), ABSENT("c", false), ABSENT("d", false)};
    atomic_store(&h.got, 500); /* of 1000, so that 500 are still to come */
    ash_manager *m = open_manager(specs, 4, &h);
    waited w = {0};
    uint64_t t;
    assert_int_equal(ash_manager_download(m, "a", false, NULL), 0);
    for (int i = 0; i < 10000 && !atomic_load(&h.fetches); i++) usleep(1000);
    assert_int_equal(ash_manager_download(m, "b", false, NULL), 0);
    for (int i = 0; i < 10000 && atomic_load(&h.weighed) < 2; i++) usleep(1000);
    assert_int_equal(ash_manager_acquire(m, "c", 0, on_lease, &w, &t, NULL), 0);
    until_called(&w); /* 500 run, 300 wait */
    assert_int_equal(w.err.code, ASH_ENOSPC);
    assert_non_null(strstr(w.err.msg, "c lacks 100"));
    assert_failed_with(m, "c", "does_not_fit_disk");
    assert_int_equal(ash_manager_download(m, "d", false, NULL), 0);
    for (int i = 0; i < 10000 && atomic_load(&h.weighed) < 4; i++) usleep(1000);
    assert_int_equal(ash_manager_state(m, "d"), ASH_MODEL_DOWNLOADING);
    assert_int_equal(ash_manager_cancel(m, "b", NULL), 0); /* which makes room */
    assert_int_equal(ash_manager_load(m, "c", NULL), 0);
    atomic_store(&h.go, true);
    until_state(m, "a", ASH_MODEL_DOWNLOADED);
    until_state(m, "d", ASH_MODEL_DOWNLOADED);
    until_state(m, "c", ASH_MODEL_LOADED);
    assert_int_equal(atomic_load(&h.fetches), 3);
    ash_manager_close(m);
}

static void test_a_hub_that_does_not_answer_about_one(void **state)
{
    hub h = {.needs = {10, 10}, .stuck = 'a', .go = true};
    ash_model_spec specs[] = {ABSENT("a", false), ABSENT("b", false)};
    ash_manager *m = open_manager(specs, 2, &h);
    assert_int_equal(ash_manager_download(m, "a", false, NULL), 0);
    until_count(&h.weighed, 1);
    json_t *p = ash_manager_progress(m, "a");
    assert_string_equal(json_string_value(json_object_get(p, "waits")),
                        "for the hub, which is asked how much it is");
    json_decref(p);
    assert_int_equal(ash_manager_download(m, "b", false, NULL), 0);
    until_state(m, "b", ASH_MODEL_DOWNLOADED);
    assert_int_equal(ash_manager_state(m, "a"), ASH_MODEL_DOWNLOADING);
    assert_int_equal(ash_manager_cancel(m, "a", NULL), 0);
    until_state(m, "a", ASH_MODEL_UNLOADED);
    ash_manager_close(m);
}

#define WITH_DRAFT(name)                                                                           \
    {                                                                                              \
        .id = name, .path = "here", .draft = "d", .draft_absent = "not here", .keep_alive_ms = -1    \
    }

static void test_an_absent_draft_model_is_fetched_first(void **state)
{
    hub h = {0};
    ash_model_spec specs[] = {WITH_DRAFT("a"), WITH_DRAFT("b"), ABSENT("d", false)};
    ash_manager *m = open_manager(specs, 3, &h);
    assert_int_equal(ash_manager_load(m, "a", NULL), 0);
    assert_int_equal(ash_manager_load(m, "b", NULL), 0);
    for (int i = 0; i < 10000 && !atomic_load(&h.fetches); i++) usleep(1000);
    until_state(m, "d", ASH_MODEL_DOWNLOADING);
    assert_int_equal(atomic_load(&loads), 0);
    atomic_store(&h.go, true);
    until_state(m, "a", ASH_MODEL_LOADED);
    until_state(m, "b", ASH_MODEL_LOADED);
    assert_true(shows(m, "a", "draft", "d"));
    assert_false(shows(m, "a", "draft_refused", "not here"));
    assert_int_equal(ash_manager_state(m, "d"), ASH_MODEL_DOWNLOADED);
    assert_int_equal(atomic_load(&h.fetches), 1);
    ash_manager_close(m);
}

static void test_without_its_draft_model_it_loads_all_the_same(void **state)
{
    for (int how = 0; how < 3; how++) {
        hub h = {0};
        ash_model_spec specs[] = {WITH_DRAFT("a"), ABSENT("d", false)};
        ash_manager *m = open_manager(specs, 2, &h);
        if (!how) atomic_store(&h.fail, ASH_ENET);
        assert_int_equal(ash_manager_load(m, "a", NULL), 0);
        for (int i = 0; i < 10000 && !atomic_load(&h.fetches); i++) usleep(1000);
        if (how == 1) assert_int_equal(ash_manager_cancel(m, "d", NULL), 0);
        if (how == 2) assert_int_equal(ash_manager_pause(m, "d", NULL), 0);
        until_state(m, "a", ASH_MODEL_LOADED);
        assert_true(shows(m, "a", "draft_refused", how == 0   ? "the pretended hub says -11"
                                                   : how == 1 ? "not here"
                                                              : "its download is paused"));
        assert_int_equal(atomic_load(&h.fetches), 1);
        ash_manager_close(m);
    }
}

static void test_models_may_be_added(void **state)
{
    hub h = {0};
    char id[16];
    ash_manager *m = open_manager(NULL, 0, &h);
    atomic_store(&h.go, true);
    for (int i = 0; i <= ASH_MANAGER_ADDED; i++) {
        ash_model_spec s = ABSENT(id, false);
        snprintf(id, sizeof id, "m%d", i);
        assert_int_equal(ash_manager_add(m, &s, NULL), i < ASH_MANAGER_ADDED ? 0 : ASH_ELIMIT);
        if (!i) assert_int_equal(ash_manager_load(m, id, NULL), 0);
    }
    until_state(m, "m0", ASH_MODEL_LOADED);
    assert_true(ash_manager_knows(m, "m255", NULL));
    ash_manager_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_preload_is_fetched_and_others_load_meanwhile),
        cmocka_unit_test(test_small_ones_pass_a_large_one_that_waits),
        cmocka_unit_test(test_progress_of_a_fetch_never_goes_back),
        cmocka_unit_test(test_one_fetch_serves_all_and_outlives_who_leaves),
        cmocka_unit_test(test_cancel_and_shutdown_end_a_fetch),
        cmocka_unit_test(test_a_failed_fetch_says_why_and_may_be_retried),
        cmocka_unit_test(test_a_preload_whose_fetch_failed_is_fetched_again_by_itself),
        cmocka_unit_test(test_what_may_not_be_fetched_stays_failed),
        cmocka_unit_test(test_a_download_loads_only_for_who_asks),
        cmocka_unit_test(test_a_pause_ends_when_somebody_goes_on),
        cmocka_unit_test(test_who_goes_on_before_the_pause_is_there_is_served),
        cmocka_unit_test(test_downloads_fit_the_disk_together),
        cmocka_unit_test(test_a_hub_that_does_not_answer_about_one),
        cmocka_unit_test(test_an_absent_draft_model_is_fetched_first),
        cmocka_unit_test(test_without_its_draft_model_it_loads_all_the_same),
        cmocka_unit_test(test_models_may_be_added),
    };
    ash_log_set_level(ASH_LOG_NONE);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
