/* Who answers: names, personas, policies, over the manager without models of tests/http. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../http/fake_parts.h"
#include "api/route.h"

typedef struct world {
    ash_server_opts o;
    ash_arena arena;
    ash_api_persona personas[3];
} world;

static world make(void)
{
    world w = {0};
    w.o.manager = fake_manager_open();
    w.o.local = fake_provider_open("local", false);
    w.o.upstream = fake_provider_open("openai", true);
    w.o.default_model = "tiny";
    w.o.fallback_model = "gpt-4o-mini";
    ash_arena_init(&w.arena, 1 << 20);
    return w;
}

static void drop(world *w)
{
    w->o.local->close(w->o.local);
    if (w->o.upstream) w->o.upstream->close(w->o.upstream);
    free(w->o.manager);
    ash_arena_release(&w->arena);
}

static void test_names(void **state)
{
    world w = make();
    ash_route r;
    ash_api_error e;
    w.personas[0] = (ash_api_persona){.id = "me", .model = "other"};
    w.personas[1] = (ash_api_persona){.id = "you", .model = "openai"};
    w.personas[2] = (ash_api_persona){.id = "lost", .model = "gone"};
    w.o.personas = w.personas;
    w.o.n_personas = 3;
    const struct {
        const char *name, *model;
        bool upstream, persona;
    } good[] = {
        {NULL, "tiny", false, false},
        {"", "tiny", false, false},
        {"tiny", "tiny", false, false},
        {"tiny:latest", "tiny", false, false},
        {"openai", "gpt-4o-mini", true, false},
        {"openai:latest", "gpt-4o-mini", true, false},
        {"gpt-4o-mini", "gpt-4o-mini", true, false},
        {"me", "other", false, true},
        {"me:latest", "other", false, true},
        {"you", "gpt-4o-mini", true, true},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(ash_route_name(&w.o, good[i].name, &w.arena, &r, &e), 0);
        assert_string_equal(r.model, good[i].model);
        assert_int_equal(r.upstream, good[i].upstream);
        assert_int_equal(r.persona != NULL, good[i].persona);
    }
    const char *bad[] = {":latest", "tiny:latest:latest", "tiny:q4", "lost", "TINY", "nobody"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(ash_route_name(&w.o, bad[i], &w.arena, &r, &e), 404);
        assert_string_equal(e.code, "model_not_found");
    }
    assert_int_equal(ash_route_name(&w.o, "lost", &w.arena, &r, &e), 404);
    assert_non_null(strstr(e.message, "the persona's model"));
    drop(&w);
}

/* A body's persona alone, its model alone, both, neither; whatever was in the caller's storage. */
static void test_bodies(void **state)
{
    world w = make();
    ash_api_error e;
    w.personas[0] = (ash_api_persona){.id = "me", .model = "other"};
    w.o.personas = w.personas;
    w.o.n_personas = 1;
    const struct {
        const char *body, *model;
        bool persona;
    } all[] = {
        {"{}", "tiny", false},
        {"{\"model\":null,\"persona\":null}", "tiny", false},
        {"{\"persona\":\"me\"}", "other", true},
        {"{\"persona\":\"me\",\"model\":\"\"}", "other", true},
        {"{\"persona\":\"me\",\"model\":\"tiny\"}", "tiny", true},
        {"{\"model\":\"me\"}", "other", true},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        json_t *body = json_loads(all[i].body, 0, NULL);
        ash_route r;
        memset(&r, 1, sizeof r);
        assert_int_equal(ash_route_body(&w.o, body, &w.arena, &r, &e), 0);
        assert_string_equal(r.model, all[i].model);
        assert_false(r.upstream);
        assert_int_equal(r.persona == &w.personas[0], all[i].persona);
        json_decref(body);
    }
    drop(&w);
}

static ash_fallback entry_policy(void *user, const char *id)
{
    return *(ash_fallback *)user;
}

static void test_policies(void **state)
{
    world w = make();
    ash_api_error e;
    ash_route_plan p;
    ash_budgets b = {1000, 1000, 1000, 1000};
    ash_fallback entry = ASH_FALLBACK_UNSET;
    w.o.model_fallback = entry_policy;
    w.o.user = &entry;
    ash_route other = {.model = "other"}, cold = {.model = "cold"};
    const struct {
        ash_fallback server, entry;
        size_t n_loaded; /* steps for a loaded model */
        bool cold_goes;  /* a cold one goes upstream at once */
    } all[] = {
        {ASH_FALLBACK_UNSET, ASH_FALLBACK_UNSET, 1, false},
        {ASH_FALLBACK_NEVER, ASH_FALLBACK_UNSET, 1, false},
        {ASH_FALLBACK_NEVER, ASH_FALLBACK_ON_ERROR, 2, false},
        {ASH_FALLBACK_ON_ERROR, ASH_FALLBACK_UNSET, 2, false},
        {ASH_FALLBACK_ALWAYS, ASH_FALLBACK_NEVER, 1, false},
        {ASH_FALLBACK_ON_NOT_READY, ASH_FALLBACK_UNSET, 2, true},
        {ASH_FALLBACK_NEVER, ASH_FALLBACK_ALWAYS, 2, true},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        w.o.fallback = all[i].server;
        entry = all[i].entry;
        assert_int_equal(ash_route_plan_make(&w.o, &other, &b, &p, &e), 0);
        assert_int_equal(p.n, all[i].n_loaded);
        assert_ptr_equal(p.steps[0].provider, w.o.local);
        assert_int_equal(ash_manager_state(w.o.manager, "cold"), ASH_MODEL_UNLOADED);
        assert_int_equal(ash_route_plan_make(&w.o, &cold, &b, &p, &e), 0);
        assert_ptr_equal(p.steps[0].provider, all[i].cold_goes ? w.o.upstream : w.o.local);
        ash_err err;
        if (all[i].cold_goes) {
            assert_string_equal(p.steps[0].reason, "loading");
            assert_string_equal(p.steps[0].model, "gpt-4o-mini");
            assert_int_equal(ash_manager_state(w.o.manager, "cold"), ASH_MODEL_LOADING);
            assert_int_equal(ash_manager_unload(w.o.manager, "cold", &err), 0);
        }
    }
    /* loaded, but others have its room first: only as late as the budget is missed, and only by `always` */
    w.o.model_fallback = NULL;
    for (int always = 0; always < 2; always++) {
        w.o.fallback = always ? ASH_FALLBACK_ALWAYS : ASH_FALLBACK_ON_NOT_READY;
        for (int late = 0; late < 2; late++) {
            fake_eta = late ? 1.5 : 0.5; /* the budget is a second */
            assert_int_equal(ash_route_plan_make(&w.o, &other, &b, &p, &e), 0);
            assert_ptr_equal(p.steps[0].provider, always && late ? w.o.upstream : w.o.local);
            if (always && late) assert_string_equal(p.steps[0].reason, "busy");
        }
    }
    b.load_ms = 0; /* none */
    assert_int_equal(ash_route_plan_make(&w.o, &other, &b, &p, &e), 0);
    assert_ptr_equal(p.steps[0].provider, w.o.local);
    fake_eta = 0.0;
    w.o.model_fallback = entry_policy;
    /* without an upstream no policy leaves the machine */
    w.o.upstream->close(w.o.upstream);
    w.o.upstream = NULL;
    w.o.fallback = ASH_FALLBACK_ALWAYS;
    entry = ASH_FALLBACK_ALWAYS;
    assert_int_equal(ash_route_plan_make(&w.o, &cold, &b, &p, &e), 0);
    assert_int_equal(p.n, 1);
    assert_ptr_equal(p.steps[0].provider, w.o.local);
    drop(&w);
}

static void expect_body(const ash_api_persona *p, ash_request_kind kind, const char *in,
                        const char *want)
{
    json_t *body = json_loads(in, 0, NULL), *original = json_deep_copy(body),
           *before = json_incref(body);
    assert_int_equal(ash_route_apply(p, kind, &body), 0);
    json_t *wanted = json_loads(want, 0, NULL);
    assert_non_null(wanted);
    assert_true(json_equal(body, wanted));
    assert_true(json_equal(before, original)); /* the client's object is untouched */
    json_decref(wanted);
    json_decref(original);
    json_decref(before);
    json_decref(body);
}

static void test_persona(void **state)
{
    json_t *sampling = json_pack("{s:f, s:i}", "temperature", 0.5, "max_tokens", 7);
    ash_api_persona p = {.id = "p", .system_prompt = "P", .sampling = sampling};
    expect_body(&p, ASH_REQUEST_CHAT,
                "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"}],\"x\":1}",
                "{\"messages\":[{\"role\":\"system\",\"content\":\"P\"},{\"role\":\"user\","
                "\"content\":\"u\"}],"
                "\"x\":1,\"temperature\":0.5,\"max_tokens\":7}");
    expect_body(
        &p, ASH_REQUEST_CHAT,
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"S\",\"k\":1}],\"temperature\":0,"
        "\"n_predict\":3,\"persona\":\"p\"}",
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"P\\n\\nS\",\"k\":1}],\"temperature\":"
        "0,"
        "\"n_predict\":3}");
    expect_body(
        &p, ASH_REQUEST_CHAT,
        "{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"S\"}]}],"
        "\"temperature\":null}",
        "{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"P\\n\"},"
        "{\"type\":\"text\",\"text\":\"S\"}]}],\"temperature\":0.5,\"max_tokens\":7}");
    expect_body(&p, ASH_REQUEST_CHAT, "{\"messages\":\"rubbish\"}",
                "{\"messages\":\"rubbish\",\"temperature\":0.5,\"max_tokens\":7}");
    expect_body(&p, ASH_REQUEST_COMPLETION, "{\"prompt\":\"x\"}",
                "{\"prompt\":\"x\",\"temperature\":0.5,\"max_tokens\":7}");
    expect_body(NULL, ASH_REQUEST_CHAT, "{\"messages\":[]}", "{\"messages\":[]}");
    json_decref(sampling);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_persona),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
