/* The manager within its budget, over engines that are only pretended: a path "60:name" is a model
 * of 60 bytes; of "60/20:name" 20 of them are the usual KV pool, else 2; of "90+:name" experts may come and
 * go, ten bytes of weights are in memory at least. The functions of engine/engine.h that it calls are below.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "fake_machine.h"
#include "residency/manager.h"
#include "residency/measure.h"
#include "residency/plan.h"
#include "waited.h"

/* ---- the pretended engine ---- */

enum { EXPERT_LEAST = 10 };

struct ash_engine {
    ash_model_info info;
};

struct ash_model {
    unsigned long long bytes;
};

static atomic_int headers_open, handed_over, text_ahead;
static fake_machine machine;
static atomic_ullong open_bytes, most_bytes;  /* of all engines: now, and at most */
static atomic_ullong opening, most_at_once; /* loads */
static atomic_int loads, gate_open, broken;
static atomic_ullong chosen, found; /* experts, of any engine */
static char order[64];
static pthread_mutex_t order_mutex = PTHREAD_MUTEX_INITIALIZER;

static ash_engine_plan sizes_of(const char *path)
{
    char *end;
    uint64_t bytes = strtoull(path, &end, 10), kv = *end == '/' ? strtoull(end + 1, NULL, 10) : 2;
    return (ash_engine_plan){.file_bytes = bytes,
                             .weight_bytes = bytes - kv,
                             .weights_least = strchr(path, '+') ? EXPERT_LEAST : bytes - kv,
                             .kv_bytes = kv,
                             .kv_least = 1};
}

int ash_engine_plan_read(const ash_engine_opts *opts, ash_engine_plan *out, ash_err *err)
{
    *out = sizes_of(opts->path);
    uint64_t bytes = out->file_bytes;
    if (opts->weights_max && opts->weights_max < out->weight_bytes) {
        if (opts->weights_max < out->weights_least) return ash_err_set(err, ASH_ENOSPC, "not even the least");
        out->weight_bytes = opts->weights_max;
    }
    if (opts->kv_bytes && opts->kv_bytes < out->kv_bytes) out->kv_bytes = opts->kv_bytes;
    if (!opts->headers) return 0;
    ash_headers *h = *opts->headers;
    if (!h) {
        atomic_fetch_add(&text_ahead, opts->text_ahead);
        h = calloc(1, sizeof *h);
        atomic_fetch_add(&headers_open, 1);
    } else if (h->bytes != bytes) {
        return ash_err_set(err, ASH_EFORMAT, "headers of another model");
    }
    h->bytes = bytes;
    *opts->headers = h;
    return 0;
}

int ash_engine_open(const ash_engine_opts *opts, ash_engine **out, ash_err *err)
{
    pthread_mutex_lock(&order_mutex);
    size_t n = strlen(order);
    if (n < sizeof order - 1) order[n] = strchr(opts->path, ':')[1];
    pthread_mutex_unlock(&order_mutex);
    atomic_fetch_add(&loads, 1);
    unsigned long long read = 0, at_once = atomic_fetch_add(&opening, 1) + 1;
    if (at_once > atomic_load(&most_at_once)) atomic_store(&most_at_once, at_once);
    while (strstr(opts->path, "slow") && !atomic_load(&gate_open) && !atomic_load(opts->cancel)) {
        opts->progress(opts->user, ASH_LOAD_PACK, ++read * 1000, 1u << 30);
        usleep(1000);
    }
    atomic_fetch_sub(&opening, 1);
    if (atomic_load(opts->cancel)) return ash_err_set(err, ASH_ECANCELED, "cancelled");
    if (atomic_load(&broken)) return ash_err_set(err, ASH_EIO, "the disk is gone");
    if (strstr(opts->path, "grows")) fake_memory(&machine, 1 << 20, 1000 + 100, 0.0);
    ash_engine_plan plan;
    atomic_fetch_add(&handed_over, *opts->headers != NULL);
    if (ash_engine_plan_read(opts, &plan, err)) return err->code;
    ash_headers_close(*opts->headers);
    *opts->headers = NULL;
    ash_engine *e = calloc(1, sizeof *e);
    e->info = (ash_model_info){.weight_bytes = plan.weight_bytes, .kv_bytes = plan.kv_bytes};
    if (plan.weight_bytes < plan.file_bytes - 2)
        e->info.expert_room = (double)plan.weight_bytes / (double)plan.file_bytes;
    unsigned long long now = atomic_fetch_add(&open_bytes, plan.weight_bytes + plan.kv_bytes) +
                             plan.weight_bytes + plan.kv_bytes;
    unsigned long long most = atomic_load(&most_bytes);
    while (now > most && !atomic_compare_exchange_weak(&most_bytes, &most, now)) {}
    *out = e;
    return 0;
}

void ash_headers_close(ash_headers *h)
{
    if (h) atomic_fetch_sub(&headers_open, 1);
    free(h);
}

void ash_engine_close(ash_engine *e)
{
    if (e) atomic_fetch_sub(&open_bytes, e->info.weight_bytes + e->info.kv_bytes);
    free(e);
}

void ash_engine_get_stats(const ash_engine *e, ash_engine_stats *out)
{
    *out = (ash_engine_stats){.token_experts_chosen = atomic_load(&chosen),
                              .token_experts_found = atomic_load(&found)};
}

uint64_t ash_engine_untouched(const ash_engine *e)
{
    return 1;
}

const ash_model_info *ash_engine_info(const ash_engine *e)
{
    return &e->info;
}

/* ---- helpers ---- */

static int setup(void **state)
{
    fake_open(&machine);
    fake_memory(&machine, 1 << 20, 0, 0.0);
    atomic_store(&loads, 0);
    atomic_store(&handed_over, 0);
    atomic_store(&text_ahead, 0);
    atomic_store(&gate_open, 0);
    atomic_store(&broken, 0);
    atomic_store(&open_bytes, 0);
    atomic_store(&most_bytes, 0);
    atomic_store(&most_at_once, 0);
    atomic_store(&chosen, 0);
    atomic_store(&found, 0);
    memset(order, 0, sizeof order);
    return 0;
}

static int teardown(void **state)
{
    fake_close(&machine);
    return atomic_load(&headers_open); /* whatever became of the loads */
}

static ash_manager *open_manager(const ash_model_spec *specs, size_t n, uint64_t budget)
{
    ash_manager *m;
    ash_manager_opts o = {
        .specs = specs, .n_specs = n, .memory_budget = budget, .memory_root = machine.root};
    assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
    assert_int_equal(ash_manager_start(m, NULL), 0);
    return m;
}

static void ask(ash_manager *m, const char *id, waited *w)
{
    *w = (waited){0};
    assert_int_equal(ash_manager_acquire(m, id, 20000, on_lease, w, &w->ticket, NULL), 0);
}

/* Asks, waits, and gives back at once. */
static void use(ash_manager *m, const char *id)
{
    waited w;
    ask(m, id, &w);
    until_called(&w);
    assert_non_null(w.engine);
    ash_manager_release(m, w.engine);
}

static char *text_of(ash_manager *m, const char *id, const char *member, const char *sub)
{
    json_t *p = ash_manager_progress(m, id), *v = json_object_get(p, member);
    const char *s = json_string_value(sub ? json_object_get(v, sub) : v);
    char *copy = s ? strdup(s) : NULL;
    json_decref(p);
    return copy;
}

static void expect_text(ash_manager *m, const char *id, const char *member, const char *sub,
                        const char *part)
{
    char *s = text_of(m, id, member, sub);
    if (!s || !strstr(s, part))
        fail_msg("%s of %s is '%s', without '%s'", member, id, s ? s : "", part);
    free(s);
}

#define DEMAND(name, file)                                                                         \
    {                                                                                              \
        .id = name, .path = file, .keep_alive_ms = -1                                              \
    }
#define PRELOAD(name, file)                                                                        \
    {                                                                                              \
        .id = name, .path = file, .keep_alive_ms = -1, .preload = true, .required = true           \
    }

/* ---- tests ---- */

static void test_makes_room_and_stays_within_the_budget(void **state)
{
    ash_model_spec specs[] = {DEMAND("a", "60:a"), DEMAND("b", "40:b"), DEMAND("c", "50:c")};
    ash_manager *m = open_manager(specs, 3, 100);
    use(m, "a");
    use(m, "b");
    assert_int_equal(atomic_load(&handed_over), 2);
    assert_int_equal(atomic_load(&text_ahead), 2); /* nothing else was to be loaded */
    usleep(20000);
    use(m, "a"); /* b is idle for longer, but small: 60 * idle of a is less than 40 * idle of b */
    use(m, "c");
    assert_true(atomic_load(&most_bytes) <= 100);
    assert_int_equal(ash_manager_state(m, "c"), ASH_MODEL_LOADED);
    assert_true((ash_manager_state(m, "a") == ASH_MODEL_LOADED) +
                    (ash_manager_state(m, "b") == ASH_MODEL_LOADED) ==
                1);
    json_t *report = ash_manager_report(m), *memory = json_object_get(report, "memory");
    assert_int_equal(json_integer_value(json_object_get(memory, "budget")), 100);
    assert_int_equal(json_integer_value(json_object_get(memory, "charged")),
                     atomic_load(&open_bytes));
    json_decref(report);
    ash_manager_close(m);
}

static void test_what_can_never_fit_is_refused(void **state)
{
    ash_model_spec specs[] = {PRELOAD("pinned", "60:p"), DEMAND("mid", "50:m"),
                              DEMAND("huge", "102:h"), DEMAND("fits", "40:f")};
    specs[0].pin = true;
    ash_manager *m = open_manager(specs, 4, 100);
    until_state(m, "pinned", ASH_MODEL_LOADED);
    waited w;
    ask(m, "huge", &w);
    until_called(&w);
    assert_null(w.engine);
    assert_int_equal(w.err.code, ASH_ENOSPC);
    assert_non_null(strstr(w.err.msg, "the budget for all models"));
    ask(m, "mid", &w);
    until_called(&w);
    assert_int_equal(w.err.code, ASH_ENOSPC);
    assert_non_null(strstr(w.err.msg, "pinned models have"));
    expect_text(m, "mid", "error", "code", "does_not_fit");
    expect_text(m, "mid", "error", "hint", "ASHLEY_MEMORY_BUDGET");
    use(m, "fits");
    assert_int_equal(ash_manager_state(m, "pinned"), ASH_MODEL_LOADED);
    ash_manager_close(m);
}

static void test_waits_for_use_and_takes_turns(void **state)
{
    ash_model_spec specs[] = {DEMAND("a", "60:a"), DEMAND("b", "60:b")};
    ash_manager *m = open_manager(specs, 2, 100);
    waited a, b, late[3];
    ask(m, "a", &a);
    until_called(&a);
    ask(m, "b", &b);
    usleep(2200000); /* the minimum residence of a */
    assert_int_equal(atomic_load(&b.calls), 0);
    expect_text(m, "b", "waits", NULL, "in use");
    assert_true(ash_manager_eta(m, "a") > 2.0); /* b's turn, and its load */
    for (int i = 0; i < 3; i++) ask(m, "a", &late[i]); /* wait now, and are answered together */
    assert_int_equal(atomic_load(&late[0].calls), 0);
    ash_manager_release(m, a.engine);
    until_called(&b);
    assert_non_null(b.engine);
    assert_int_equal(ash_manager_state(m, "a"), ASH_MODEL_LOADING); /* waits for its turn */
    ash_manager_release(m, b.engine);
    for (int i = 0; i < 3; i++) {
        until_called(&late[i]);
        assert_non_null(late[i].engine);
    }
    for (int i = 0; i < 3; i++) ash_manager_release(m, late[i].engine);
    assert_string_equal(order, "aba");
    assert_true(atomic_load(&most_bytes) <= 100);
    ash_manager_close(m);
}

static void test_a_small_one_need_not_wait_behind_a_large_one(void **state)
{
    ash_model_spec specs[] = {DEMAND("a", "60:a"), DEMAND("b", "60:b"), DEMAND("s", "10:s")};
    ash_manager *m = open_manager(specs, 3, 100);
    waited a, b;
    ask(m, "a", &a);
    until_called(&a);
    ask(m, "b", &b);
    use(m, "s");
    assert_int_equal(atomic_load(&b.calls), 0);
    ash_manager_abandon(m, b.ticket);
    ash_manager_release(m, a.engine);
    ash_manager_close(m);
}

static void test_an_evicted_preload_comes_back(void **state)
{
    ash_model_spec specs[] = {PRELOAD("default", "60:d"), DEMAND("b", "60:b")};
    specs[1].keep_alive_ms = 50;
    ash_manager *m = open_manager(specs, 2, 100);
    until_state(m, "default", ASH_MODEL_LOADED);
    use(m, "b");
    assert_int_equal(ash_manager_state(m, "default"), ASH_MODEL_UNLOADED);
    until_state(m, "default", ASH_MODEL_LOADED);
    assert_string_equal(order, "dbd");
    ash_manager_close(m);
}

/* The default model that nobody preloads: it comes back from an eviction, and not from its keep-alive. */
static void test_the_usual_model_comes_back(void **state)
{
    ash_model_spec specs[] = {DEMAND("usual", "60:u"), DEMAND("b", "60:b"), DEMAND("c", "60:c")};
    specs[0].usual = true;
    specs[1].keep_alive_ms = specs[2].keep_alive_ms = 50;
    ash_manager *m = open_manager(specs, 3, 100);
    use(m, "usual");
    use(m, "b");
    assert_int_equal(ash_manager_state(m, "usual"), ASH_MODEL_UNLOADED);
    until_state(m, "usual", ASH_MODEL_LOADED);
    assert_int_equal(ash_manager_keep(m, "usual", 1, NULL), 0);
    until_state(m, "usual", ASH_MODEL_UNLOADED);
    use(m, "c");
    until_state(m, "c", ASH_MODEL_UNLOADED);
    usleep(1200000); /* the keeper looks each second */
    assert_int_equal(ash_manager_state(m, "usual"), ASH_MODEL_UNLOADED);
    assert_string_equal(order, "ubuc");
    ash_manager_close(m);
}

static void test_a_preload_evicts_no_preload(void **state)
{
    ash_model_spec specs[] = {PRELOAD("late", "60:l"), PRELOAD("first", "60:f")};
    specs[0].required = false; /* required ones are loaded first */
    ash_manager *m = open_manager(specs, 2, 100);
    until_state(m, "first", ASH_MODEL_LOADED);
    until_state(m, "late", ASH_MODEL_FAILED);
    expect_text(m, "late", "error", "code", "does_not_fit");
    assert_string_equal(order, "f");
    json_t *report = ash_manager_report(m);
    assert_true(json_is_true(json_object_get(report, "done")));
    json_decref(report);
    use(m, "late"); /* but a request may have it */
    ash_manager_close(m);
}

static void expect_charge(ash_manager *m, const char *id, uint64_t bytes)
{
    json_t *p = ash_manager_progress(m, id);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(p, "memory"), "charged")), bytes);
    json_decref(p);
}

/* What `ashley plan` says of a list, and what becomes of it. */
static void test_the_plan_says_what_becomes_of_a_list(void **state)
{
    static const char *const lists[][3] = {
        {"50:a", "40:b", "10:c"},   {"60:a", "41:b", "10:c"},    {"60:a", "42:b", "30:c"},
        {"101:a", "50:b", "51:c"},  {"102:a", "60:b", "60:c"},   {"90:a", "300+:b", "60:c"},
        {"60:a", "300+:b", "10:c"}, {"300+:a", "300+:b", "2:c"}, {"50:a", "30:b", "90+:c"},
        {"90/60:a", "50/30:b", "30/2:c"}, {"200/170:a", "100/80:b", "60/40:c"},
        {"200/170:a", "80:b", "60/40:c"}, {"300+:a", "20/5:b", "100/90:c"}, {"99/1:a", "300+:b", "2:c"}};
    size_t refused = 0;
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++) {
        ash_model_spec specs[3];
        ash_plan_facts facts[3];
        ash_plan_entry said[3];
        ash_plan_total total;
        for (size_t i = 0; i < 3; i++) {
            static const char *const ids[] = {"a", "b", "c"};
            specs[i] = (ash_model_spec)PRELOAD(ids[i], lists[k][i]);
            specs[i].required = k % 2 || i; /* these are loaded first */
            ash_engine_plan sizes = sizes_of(lists[k][i]);
            facts[i] = (ash_plan_facts){.required = specs[i].required,
                                        .fixed_bytes = sizes.weight_bytes,
                                        .kv_bytes = sizes.kv_bytes,
                                        .kv_least = 1};
            if (strchr(lists[k][i], '+')) facts[i].expert_bytes = facts[i].fixed_bytes;
            facts[i].expert_least = EXPERT_LEAST;
        }
        ash_plan_machine room = {.memory = 100};
        ash_plan_make(&room, facts, 3, said, &total);
        ash_manager *m = open_manager(specs, 3, 100);
        for (size_t i = 0; i < 3; i++) {
            bool fits = said[i].verdict == ASH_PLAN_READY;
            until_state(m, specs[i].id, fits ? ASH_MODEL_LOADED : ASH_MODEL_FAILED);
            if (!fits) expect_text(m, specs[i].id, "error", "code", "does_not_fit");
            if (fits) expect_charge(m, specs[i].id, said[i].resident_bytes);
            refused += !fits;
        }
        ash_manager_close(m);
    }
    assert_int_equal(refused, 9);
}

/* Gives user, a path, once the gate is open. */
static int fetch_late(void *user, const char *id, const ash_hub_watch *watch, char **path, ash_err *err)
{
    while (!atomic_load(&gate_open) && !atomic_load(watch->cancel)) usleep(1000);
    *path = strdup(user);
    return *path ? 0 : ASH_ENOMEM;
}

/* A request for one of them at the start changes nothing; one for another model does: it has all it likes. */
static void test_preloads_leave_room_for_each_other(void **state)
{
    ash_model_spec specs[] = {PRELOAD("a", "90/60:a"), PRELOAD("b", "50:b"), DEMAND("c", "120/80:c")};
    for (int asked = 0; asked < 3; asked++) {
        ash_manager *m;
        waited w = {0};
        ash_manager_opts o = {
            .specs = specs, .n_specs = 3, .memory_budget = 100, .memory_root = machine.root};
        assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
        if (asked) ask(m, asked == 1 ? "a" : "c", &w);
        assert_int_equal(ash_manager_start(m, NULL), 0);
        if (asked) {
            until_called(&w);
            assert_non_null(w.engine);
        }
        if (asked == 2) {
            expect_charge(m, "c", 100);
            until_state(m, "b", ASH_MODEL_FAILED);
        } else {
            until_state(m, "a", ASH_MODEL_LOADED);
            until_state(m, "b", ASH_MODEL_LOADED);
            expect_charge(m, "a", 50);
            expect_charge(m, "b", 50);
        }
        if (asked) ash_manager_release(m, w.engine);
        ash_manager_close(m);
    }
}

/* "a" and "s" had taken all when "b" was fetched: "a", which has most beyond its least, is loaded again,
 * pinned or not, unless that would not be enough. */
static void test_a_late_preload_has_its_share(void **state)
{
    ash_model_spec specs[] = {PRELOAD("a", "70/50:a"), PRELOAD("s", "30/5:s"), PRELOAD("b", NULL)};
    specs[2].fetch = true;
    for (int round = 0; round < 4; round++) {
        bool fits = round < 3, busy = round == 2;
        ash_manager *m;
        waited w, b;
        ash_manager_opts o = {.specs = specs, .n_specs = 3, .memory_budget = 100, .fetch = fetch_late,
                              .fetch_user = fits ? "40:b" : "60:b"};
        for (int i = 0; i < 3; i++) specs[i].pin = round;
        fake_close(&machine);
        setup(NULL);
        o.memory_root = machine.root;
        assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
        assert_int_equal(ash_manager_start(m, NULL), 0);
        until_state(m, "a", ASH_MODEL_LOADED);
        until_state(m, "s", ASH_MODEL_LOADED);
        if (busy) ask(m, "a", &w);
        atomic_store(&gate_open, 1);
        if (busy) {
            until_state(m, "b", ASH_MODEL_FAILED);
            ash_manager_release(m, w.engine);
            ask(m, "b", &b);
            until_called(&b);
            assert_non_null(b.engine);
            ash_manager_release(m, b.engine);
        }
        until_state(m, "b", fits ? ASH_MODEL_LOADED : ASH_MODEL_FAILED);
        until_state(m, "a", ASH_MODEL_LOADED);
        expect_charge(m, "a", fits ? 30 : 70);
        expect_charge(m, "s", 30);
        expect_charge(m, "b", fits ? 40 : 0);
        assert_int_equal(atomic_load(&loads), fits ? 4 : 2);
        assert_true(atomic_load(&most_bytes) <= 100);
        ash_manager_close(m);
    }
}

/* "a" waits for its draft model to be fetched; "b", which fits only without "a", waits for its turn. */
static void test_the_room_of_one_that_cannot_begin_is_nobodys(void **state)
{
    ash_model_spec specs[] = {PRELOAD("a", "90/60:a"), PRELOAD("b", "80:b"), DEMAND("d", NULL)};
    specs[0].draft = "d";
    specs[2].fetch = true;
    ash_manager *m;
    ash_manager_opts o = {.specs = specs, .n_specs = 3, .memory_budget = 100, .memory_root = machine.root,
                          .fetch = fetch_late, .fetch_user = "7:d"};
    assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
    assert_int_equal(ash_manager_start(m, NULL), 0);
    for (int i = 0; i < 10000; i++) {
        char *waits = text_of(m, "b", "waits", NULL);
        bool told = waits && strstr(waits, "those before it");
        free(waits);
        if (told) break;
        usleep(1000);
    }
    expect_text(m, "b", "waits", NULL, "those before it");
    assert_int_equal(atomic_load(&loads), 0);
    atomic_store(&gate_open, 1);
    until_state(m, "a", ASH_MODEL_LOADED);
    until_state(m, "b", ASH_MODEL_FAILED);
    assert_string_equal(order, "a");
    expect_charge(m, "a", 90);
    ash_manager_close(m);
}

static void test_pressure_evicts_what_is_idle(void **state)
{
    ash_model_spec specs[] = {DEMAND("a", "60:a"), DEMAND("b", "30:b"), DEMAND("c", "10:c")};
    ash_manager *m = open_manager(specs, 3, 100);
    waited c;
    use(m, "a");
    use(m, "b");
    ask(m, "c", &c);
    until_called(&c);
    fake_memory(&machine, 1 << 20, 0, 40.0);
    fake_write(&machine, "proc/meminfo", "MemAvailable: 1048576 kB\nMapped: 1040000 kB\n");
    until_state(m, "a", ASH_MODEL_UNLOADED);
    until_state(m, "b", ASH_MODEL_UNLOADED);
    assert_int_equal(ash_manager_state(m, "c"), ASH_MODEL_LOADED);
    json_t *report = ash_manager_report(m);
    const json_t *memory = json_object_get(report, "memory");
    assert_true(json_is_true(json_object_get(memory, "lowered")));
    assert_int_equal(json_integer_value(json_object_get(memory, "configured")), 100);
    json_decref(report);
    ash_manager_release(m, c.engine);
    ash_manager_close(m);
}

static void test_a_failed_load_is_not_tried_at_every_request(void **state)
{
    ash_model_spec specs[] = {DEMAND("a", "60:a")};
    ash_manager *m = open_manager(specs, 1, 100);
    waited w;
    atomic_store(&broken, 1);
    ask(m, "a", &w);
    until_called(&w);
    assert_int_equal(w.err.code, ASH_EIO);
    w = (waited){0};
    assert_int_equal(ash_manager_acquire(m, "a", 0, on_lease, &w, &w.ticket, NULL), ASH_EIO);
    assert_int_equal(atomic_load(&loads), 1);
    atomic_store(&broken, 0);
    assert_int_equal(ash_manager_load(m, "a", NULL), 0); /* asked for: at once */
    until_state(m, "a", ASH_MODEL_LOADED);
    ash_manager_close(m);
}

/* Requests for it are answered elsewhere: it is loaded as for them all the same. */
static void test_a_model_that_is_wanted_is_tried_again(void **state)
{
    ash_model_spec specs[] = {DEMAND("a", "60:a"), DEMAND("b", "60:b")};
    ash_manager *m = open_manager(specs, 2, 100);
    waited w;
    atomic_store(&broken, 1);
    ash_manager_want(m, "a");
    until_state(m, "a", ASH_MODEL_FAILED);
    ash_manager_want(m, "a");
    assert_int_equal(ash_manager_state(m, "a"), ASH_MODEL_FAILED);
    assert_int_equal(atomic_load(&loads), 1);
    atomic_store(&broken, 0);
    fake_memory(&machine, 0, 0, 0.0);
    ask(m, "b", &w);
    until_called(&w);
    assert_int_equal(w.err.code, ASH_ENOSPC);
    fake_memory(&machine, 1 << 20, 0, 0.0);
    ash_manager_want(m, "b"); /* whether there is room can have changed */
    until_state(m, "b", ASH_MODEL_LOADED);
    ash_manager_want(m, "nobody");
    ash_manager_close(m);
}

static void test_the_pool_shrinks_before_a_request_waits(void **state)
{
    ash_model_spec specs[] = {DEMAND("a", "60:a"), DEMAND("b", "41:b")};
    ash_manager *m = open_manager(specs, 2, 100);
    waited a;
    ask(m, "a", &a);
    until_called(&a);
    use(m, "b"); /* 41 with the usual pool, 40 with the least */
    assert_int_equal(atomic_load(&most_bytes), 100);
    ash_manager_release(m, a.engine);
    ash_manager_close(m);
}

/* The process grows while the engine opens: by 100 kB, half of the KV pool's 2 bytes among them, where the
 * headers say 80. */
static void test_what_was_measured_is_charged_the_next_time(void **state)
{
    ash_model_spec specs[] = {DEMAND("a", "80000:grows"), DEMAND("b", "25000:b")};
    ash_manager *m;
    ash_manager_opts o = {.specs = specs,
                          .n_specs = 2,
                          .memory_budget = 106000,
                          .memory_root = machine.root,
                          .state_dir = machine.root};
    for (int start = 0; start < 2; start++) {
        fake_memory(&machine, 1 << 20, 1000, 0.0);
        assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
        assert_int_equal(ash_manager_start(m, NULL), 0);
        use(m, "a");
        json_t *p = ash_manager_progress(m, "a"), *memory = json_object_get(p, "memory");
        assert_int_equal(json_integer_value(json_object_get(memory, "estimated")), 80000);
        assert_int_equal(json_integer_value(json_object_get(memory, "measured")), 102400 - 1 + 2);
        assert_int_equal(json_integer_value(json_object_get(memory, "charged")), 102400 - 1 + 2);
        json_decref(p);
        ash_manager_close(m);
    }
    assert_int_equal(atomic_load(&loads), 2);
    fake_memory(&machine, 1 << 20, 1000, 0.0);
    o.memory_budget = 90000; /* would do by the headers */
    assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
    assert_int_equal(ash_manager_start(m, NULL), 0);
    waited w;
    ask(m, "a", &w);
    until_called(&w);
    assert_int_equal(w.err.code, ASH_ENOSPC);
    assert_int_equal(atomic_load(&loads), 2);
    ash_manager_close(m);
}

static void until_loads(int n)
{
    for (int i = 0; i < 10000 && atomic_load(&loads) < n; i++) usleep(1000);
    assert_int_equal(atomic_load(&loads), n);
}

static void test_a_request_does_not_wait_for_a_preload(void **state)
{
    ash_model_spec specs[] = {PRELOAD("first", "30:f slow"), PRELOAD("second", "20:s slow"),
                              DEMAND("a", "10:a"), DEMAND("b", "10:b")};
    ash_manager *m = open_manager(specs, 4, 100);
    until_loads(1);
    use(m, "a");
    use(m, "b"); /* its place is free again */
    assert_string_equal(order, "sab"); /* the other preload waits for the first of them, the quickest */
    assert_int_equal(atomic_load(&most_at_once), 2);
    waited first, second;
    ask(m, "second", &second); /* wanted now, as much as the other, which waits */
    ask(m, "first", &first);
    usleep(50000);
    assert_int_equal(atomic_load(&loads), 3);
    assert_int_equal(ash_manager_cancel(m, "second", NULL), 0);
    until_loads(4);
    atomic_store(&gate_open, 1);
    until_called(&first);
    until_called(&second);
    assert_int_equal(second.err.code, ASH_ECANCELED);
    ash_manager_release(m, first.engine);
    ash_manager_close(m);
}

/* Processor seconds of this process, in hundredths. */
static void fake_stat(unsigned used)
{
    char text[256];
    snprintf(text, sizeof text, "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 %u 0 0 0 20 0\n", used);
    fake_write(&machine, "proc/self/stat", text);
}

/* "c" took 20 bytes in some milliseconds; "d" gets megabytes a second, and the processors are idle. */
static void test_a_second_load_computes_while_the_first_waits_for_the_disk(void **state)
{
    ash_model_spec specs[] = {DEMAND("d", "30:d slow"), DEMAND("c", "20:c"), DEMAND("new", "10:n")};
    fake_stat(1000);
    ash_manager *m = open_manager(specs, 3, 100);
    use(m, "c");
    assert_int_equal(ash_manager_unload(m, "c", NULL), 0);
    until_state(m, "c", ASH_MODEL_UNLOADED);
    waited d, c, n;
    ask(m, "d", &d);
    until_loads(2);
    ask(m, "new", &n); /* nobody knows whether it would compute */
    ask(m, "c", &c);
    until_called(&c);
    assert_string_equal(order, "cdc");
    assert_int_equal(atomic_load(&n.calls), 0);
    assert_int_equal(atomic_load(&d.calls), 0);
    expect_text(m, "d", "eta_basis", NULL, "measured rate");
    expect_text(m, "new", "eta_basis", NULL, "size of its files");
    double d_left = ash_manager_eta(m, "d");
    assert_true(d_left > 1.0 && ash_manager_eta(m, "new") > 0.5 * d_left); /* it waits for d */
    assert_true(ash_manager_eta(m, "c") == 0.0 && ash_manager_eta(m, "x") < 0.0);
    ash_manager_release(m, c.engine);
    atomic_store(&gate_open, 1);
    until_called(&d);
    until_called(&n);
    ash_manager_release(m, d.engine);
    ash_manager_release(m, n.engine);
    ash_manager_close(m);
}

static void test_no_second_load_while_the_first_computes(void **state)
{
    ash_model_spec specs[] = {DEMAND("d", "30:d slow"), DEMAND("c", "20:c")};
    fake_stat(1000);
    ash_manager *m = open_manager(specs, 2, 100);
    use(m, "c");
    assert_int_equal(ash_manager_unload(m, "c", NULL), 0);
    until_state(m, "c", ASH_MODEL_UNLOADED);
    waited d, c;
    ask(m, "d", &d);
    until_loads(2);
    ask(m, "c", &c);
    for (unsigned i = 0; i < 30; i++) { /* 1.5 s: two looks; many more seconds than there are */
        fake_stat(1000 + 100000 * i);
        usleep(50000);
    }
    assert_string_equal(order, "cd");
    atomic_store(&gate_open, 1);
    until_called(&d);
    until_called(&c);
    ash_manager_release(m, d.engine);
    ash_manager_release(m, c.engine);
    ash_manager_close(m);
}

static void test_preloads_that_all_fit_load_the_quickest_first(void **state)
{
    ash_model_spec specs[] = {PRELOAD("x", "5:x"), PRELOAD("a", "40:a"), PRELOAD("b", "10:b"),
                              PRELOAD("c", "30:c")};
    specs[0].required = false;
    ash_manager *m = open_manager(specs, 4, 100);
    until_state(m, "x", ASH_MODEL_LOADED);
    assert_string_equal(order, "bcax");
    assert_int_equal(atomic_load(&most_at_once), 1);
    ash_manager_close(m);
    memset(order, 0, sizeof order);
    m = open_manager(specs, 4, 60); /* not all fit: the list says who comes first */
    until_state(m, "x", ASH_MODEL_LOADED);
    assert_string_equal(order, "abx");
    ash_manager_close(m);
}

/* What the ledger of this machine's folder says of x: n rows, of which the first has that share. */
static void until_found(const ash_model_spec *x, size_t n, double share)
{
    ash_ledger *l;
    ash_fit_known known;
    const ash_measure_of of = {.id = x->id, .path = x->path};
    assert_int_equal(ash_ledger_open(machine.root, &l, NULL), 0);
    for (int i = 0; i < 10000; i++) {
        ash_measure_find_found(l, &of, 300, &known);
        if (known.n == n && (!n || fabs(known.v[0].found - share) < 1e-9)) break;
        usleep(1000);
    }
    ash_ledger_close(l);
    assert_int_equal(known.n, n);
    if (n && (fabs(known.v[0].found - share) > 1e-9 || fabs(known.v[0].room - 98.0 / 300) > 1e-9))
        fail_msg("%g in %g, wanted %g", known.v[0].found, known.v[0].room, share);
}

static void set_found(unsigned long long c, unsigned long long f)
{
    atomic_store(&found, f); /* the manager looks at any time: never a share beyond the one that is meant */
    atomic_store(&chosen, c);
}

/* Of a mixture larger than its room: when it goes, now and then while it runs, and at the end; not what a few
 * choices say. */
static void test_what_experts_found_is_kept(void **state)
{
    ash_model_spec specs[] = {DEMAND("x", "300+:x"), DEMAND("b", "60:b")};
    ash_manager_opts o = {.specs = specs, .n_specs = 2, .memory_budget = 100, .memory_root = machine.root,
                          .state_dir = machine.root};
    ash_manager *m;
    assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
    assert_int_equal(ash_manager_start(m, NULL), 0);
    set_found(9999, 5000);
    use(m, "x");
    assert_int_equal(ash_manager_unload(m, "x", NULL), 0);
    until_state(m, "x", ASH_MODEL_UNLOADED);
    use(m, "x"); /* after the engine before it was closed */
    until_found(&specs[0], 0, 0);
    set_found(10000, 7000);
    use(m, "b"); /* evicts it */
    until_found(&specs[0], 1, 0.7);
    set_found(0, 0);
    use(m, "x");
    set_found(100000, 90000); /* while it runs */
    until_found(&specs[0], 1, (0.7 + 0.9) / 2);
    set_found(112000, 90000 + 7200); /* by itself, what came since: 0.6 */
    assert_int_equal(ash_manager_unload(m, "x", NULL), 0);
    until_found(&specs[0], 1, (0.8 + 0.6) / 2);
    set_found(0, 0);
    use(m, "x");
    set_found(20000, 6000);
    ash_manager_close(m);
    until_found(&specs[0], 1, (0.7 + 0.3) / 2);
}

/* A ledger that cannot be written costs only what it would have said. */
static void test_experts_without_a_ledger(void **state)
{
    ash_model_spec specs[] = {DEMAND("x", "300+:x")};
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/ledger.db", machine.root);
    assert_int_equal(ash_fs_mkdirs(path, NULL), 0);
    ash_manager_opts o = {.specs = specs, .n_specs = 1, .memory_budget = 100, .memory_root = machine.root};
    for (int round = 0; round < 2; round++) {
        ash_manager *m;
        assert_int_equal(ash_manager_open(&o, &m, NULL), 0);
        assert_int_equal(ash_manager_start(m, NULL), 0);
        set_found(20000, 4000);
        use(m, "x");
        ash_manager_close(m);
        o.state_dir = machine.root;
    }
}

/* Of several that are to be loaded none has its text read ahead: it would take the first one's processor. */
static void test_no_text_is_read_ahead_of_others(void **state)
{
    ash_model_spec specs[] = {PRELOAD("a", "10:a"), PRELOAD("b", "20:b"), PRELOAD("c", "30:c")};
    ash_manager *m = open_manager(specs, 3, 100);
    for (size_t i = 0; i < 3; i++)
        while (ash_manager_state(m, specs[i].id) != ASH_MODEL_LOADED) usleep(1000);
    assert_int_equal(atomic_load(&text_ahead), 0);
    ash_manager_close(m);
}

int main(void)
{
    ash_log_set_level(ASH_LOG_NONE);
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_no_text_is_read_ahead_of_others),
        TEST(test_makes_room_and_stays_within_the_budget),
        TEST(test_what_can_never_fit_is_refused),
        TEST(test_waits_for_use_and_takes_turns),
        TEST(test_a_small_one_need_not_wait_behind_a_large_one),
        TEST(test_an_evicted_preload_comes_back),
        TEST(test_the_usual_model_comes_back),
        TEST(test_a_preload_evicts_no_preload),
        TEST(test_the_plan_says_what_becomes_of_a_list),
        TEST(test_preloads_leave_room_for_each_other),
        TEST(test_a_late_preload_has_its_share),
        TEST(test_the_room_of_one_that_cannot_begin_is_nobodys),
        TEST(test_pressure_evicts_what_is_idle),
        TEST(test_a_failed_load_is_not_tried_at_every_request),
        TEST(test_a_model_that_is_wanted_is_tried_again),
        TEST(test_the_pool_shrinks_before_a_request_waits),
        TEST(test_what_was_measured_is_charged_the_next_time),
        TEST(test_a_request_does_not_wait_for_a_preload),
        TEST(test_a_second_load_computes_while_the_first_waits_for_the_disk),
        TEST(test_no_second_load_while_the_first_computes),
        TEST(test_preloads_that_all_fit_load_the_quickest_first),
        TEST(test_what_experts_found_is_kept),
        TEST(test_experts_without_a_ledger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
