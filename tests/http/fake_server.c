/* The HTTP server over the fake parts, as a program for tests/http/run:
 *   fake_server [--key K]... [--origin O]... [--default M] [--fallback
 * never|on-error|on-not-ready|always]
 *               [--upstream] [--drain-ms N] [--idle-ms N] [--host H]
 * Says "port N" on standard output; SIGTERM drains, a second one hurries. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/server.h"
#include "base/log.h"
#include "fake_parts.h"

static atomic_bool hurry;
static atomic_int signals;

static void on_signal(int number)
{
    if (atomic_fetch_add(&signals, 1)) atomic_store(&hurry, true);
}

static ash_fallback policy(const char *word)
{
    static const char *const words[] = {"unset", "never", "on-error", "on-not-ready", "always"};
    for (int i = 0; i < 5; i++)
        if (!strcmp(word, words[i])) return (ash_fallback)i;
    return ASH_FALLBACK_UNSET;
}

static void add(const char *const **list, size_t *n, const char *word)
{
    const char **all = realloc((void *)(uintptr_t)*list, (*n + 1) * sizeof *all);
    if (!all) abort();
    all[(*n)++] = word;
    *list = all;
}

static void read_args(int argc, char **argv, ash_server_opts *o)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--upstream")) {
            o->upstream = fake_provider_open("openai", true);
            continue;
        }
        i++;
        if (!strcmp(argv[i - 1], "--key"))
            add(&o->api_keys, &o->n_api_keys, value);
        else if (!strcmp(argv[i - 1], "--origin"))
            add(&o->origins, &o->n_origins, value);
        else if (!strcmp(argv[i - 1], "--default"))
            o->default_model = value;
        else if (!strcmp(argv[i - 1], "--fallback"))
            o->fallback = policy(value);
        else if (!strcmp(argv[i - 1], "--drain-ms"))
            o->drain_ms = strtol(value, NULL, 10);
        else if (!strcmp(argv[i - 1], "--idle-ms"))
            o->idle_ms = strtol(value, NULL, 10);
        else if (!strcmp(argv[i - 1], "--host"))
            o->host = value;
        else
            exit(2);
    }
}

/* The model "other" gives a load 150 ms, as a catalogue entry may say. */
static void budgets_of(void *user, const char *id, ash_budgets *b)
{
    if (!strcmp(id, "other")) b->load_ms = 150;
}

static void wait_for_signal(void)
{
    sigset_t set;
    sigemptyset(&set);
    while (!atomic_load(&signals)) sigsuspend(&set);
}

int main(int argc, char **argv)
{
    json_t *sampling = json_pack("{s:f, s:i}", "temperature", 0.5, "max_tokens", 77);
    json_t *extra = json_pack("{s:[s, s]}", "greetings", "Hi.", "Hello.");
    ash_api_persona personas[] = {
        {.id = "ashley",
         .name = "Ashley",
         .description = "A test persona",
         .system_prompt = "You are Ashley.",
         .first_message = "Hi.",
         .sampling = sampling,
         .extra = extra},
        {.id = "local-one", .name = "Local", .system_prompt = "Be brief.", .model = "tiny"},
    };
    ash_server_opts o = {
        .host = "127.0.0.1",
        .manager = fake_manager_open(),
        .local = fake_provider_open("local", false),
        .upstream_missing = "set OPENAI_API_KEY",
        .default_model = "tiny",
        .fallback_model = "gpt-4o-mini",
        .personas = personas,
        .n_personas = 2,
        .model_budgets = budgets_of,
        .budgets = {30000, 600000, 30000, 30000},
        .budget_caps = {60000, 900000, 60000, 60000},
        .drain_ms = 5000,
    };
    read_args(argc, argv, &o);
    ash_log_set_level(ASH_LOG_INFO);
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigaddset(&block, SIGINT);
    sigprocmask(SIG_BLOCK, &block, NULL); /* only sigsuspend lets them in, and only here */
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    ash_server *s;
    ash_err err = ASH_ERR_INIT;
    if (ash_server_open(&o, &s, &err)) {
        fprintf(stderr, "fake_server: %s\n", err.msg);
        return 1;
    }
    printf("port %u\n", ash_server_port(s));
    fflush(stdout);
    wait_for_signal();
    sigprocmask(SIG_UNBLOCK, &block, NULL);
    ash_server_drain(s, &hurry);
    ash_server_close(s);
    o.local->close(o.local);
    if (o.upstream) o.upstream->close(o.upstream);
    free(o.manager);
    free((void *)(uintptr_t)o.api_keys);
    free((void *)(uintptr_t)o.origins);
    json_decref(sampling);
    json_decref(extra);
    printf("closed\n");
    return 0;
}
