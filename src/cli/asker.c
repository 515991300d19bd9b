/* Owns one conversation's way to an answer from the command line: the local provider over a manager
 * with that one model, or the upstream. Main thread; events come on the provider's threads. */
#include "cli/asker.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/draft.h"
#include "cli/engine_open.h"
#include "cli/term.h"
#include "provider/local.h"
#include "provider/openai.h"
#include "residency/manager.h"

struct ash_asker {
    ash_cli *cli;
    ash_personas *personas;
    const ash_persona *persona;
    char *path;
    ash_manager *manager;
    ash_provider *provider;
    const char *model; /* what answers */
    bool local;
    /* what the command's options say */
    double temperature; /* negative: nothing */
    long max_tokens, seed;
    /* the answer in flight */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    ash_buf *text;
    bool ended, thinking;
    int unwritable; /* errno of standard output */
    char error[sizeof((ash_api_error *)0)->message]; /* what failed, */
    int exit_status;                                 /* and the exit status for it */
    bool failed;
    ash_answer_usage usage;
};

/* ---- opening ----------------------------------------------------------------------------------
 */

static int open_upstream(ash_asker *a, ash_err *err)
{
    const ash_config *c = a->cli->config;
    if (!c->openai_api_key && !strcmp(ash_config_origin(c, "OPENAI_BASE_URL"), "default"))
        return ash_err_set(err, ASH_EAUTH,
                           "the upstream needs OPENAI_API_KEY (or OPENAI_BASE_URL of a server "
                           "without keys); or name a local model: ashley list");
    a->model = c->fallback_model;
    ash_openai_opts o = {.name = "openai",
                         .base_url = c->openai_base_url,
                         .api_key = c->openai_api_key,
                         .proxy = c->https_proxy,
                         .no_proxy = c->no_proxy};
    return ash_openai_open(&o, &a->provider, err);
}

/* The library's code of what /models calls an error: it decides the exit status. */
static int code_of(const char *name)
{
    static const struct {
        const char *name;
        int code;
    } table[] = {{"file_missing", ASH_ENOENT},
                 {"does_not_fit", ASH_ENOSPC},
                 {"does_not_fit_disk", ASH_EDISK},
                 {"out_of_memory", ASH_ENOMEM}};
    for (size_t i = 0; name && i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, name)) return table[i].code;
    return ASH_EFORMAT;
}

/* Waits for the load with a bar; 0, or an exit status with the message printed. */
static int wait_for_load(ash_asker *a, const char *id)
{
    ash_term term;
    ash_err err = ASH_ERR_INIT;
    const atomic_bool *stop = ash_cli_interrupt();
    ash_term_init(&term, a->cli, id);
    for (;;) {
        json_t *p = ash_manager_progress(a->manager, id);
        const char *state = json_string_value(json_object_get(p, "state"));
        const char *stage = json_string_value(json_object_get(p, "stage"));
        bool failed = state && !strcmp(state, "failed"), loaded = state && !strcmp(state, "loaded");
        uint64_t done = (uint64_t)json_integer_value(json_object_get(p, "bytes_done"));
        uint64_t total = (uint64_t)json_integer_value(json_object_get(p, "bytes_total"));
        if (!total) { /* nothing is read: the share of the whole load */
            total = 1000;
            done = (uint64_t)(1e3 * json_number_value(json_object_get(p, "progress")));
        }
        if (stage) ash_term_progress(&term, stage[0] * 256 + stage[1], stage, done, total);
        const json_t *e = json_object_get(p, "error");
        if (failed)
            ash_err_set(&err, code_of(json_string_value(json_object_get(e, "code"))), "%s",
                        json_string_value(json_object_get(e, "message")));
        json_decref(p);
        if (loaded || failed || atomic_load(stop)) break;
        usleep(2000);
    }
    ash_term_done(&term);
    return err.code ? ash_cli_fail(&err) : atomic_load(stop) ? 130 : 0;
}

static int open_local(ash_asker *a, const char *id)
{
    const ash_catalogue_entry *entry;
    ash_err err = ASH_ERR_INIT;
    int status = ash_cli_locate(a->cli, id, &a->path, &entry);
    if (status) return status;
    ash_cli_draft draft;
    if (ash_cli_draft_find(a->cli, entry, NULL, &draft, &err)) return ash_cli_fail(&err);
    ash_model_spec spec = {.id = entry->id,
                           .path = a->path,
                           .template_text = entry->template_text,
                           .ctx = entry->context,
                           .kv_q8 = ash_cli_kv_q8(a->cli, entry, NULL),
                           .draft = draft.id,
                           .draft_path = draft.path,
                           .draft_absent = draft.reason,
                           .keep_alive_ms = -1,
                           .preload = true,
                           .required = true,
                           .pin = true};
    ash_manager_opts o = ash_cli_manager_opts(a->cli->config);
    o.specs = &spec;
    o.n_specs = 1;
    a->model = entry->id;
    a->local = true;
    int rc = ash_manager_open(&o, &a->manager, &err);
    ash_cli_draft_release(&draft); /* it was copied */
    rc = rc ? rc : ash_local_open(a->manager, &a->provider, &err);
    rc = rc ? rc : ash_manager_start(a->manager, &err);
    return rc ? ash_cli_fail(&err) : wait_for_load(a, entry->id);
}

/* Reads the command's options, before a load that may take minutes; 0 or an exit status. */
static int read_params(ash_asker *a)
{
    const char *t = ash_cli_get(a->cli, "temperature");
    a->temperature = -1;
    a->max_tokens = a->seed = -1;
    int status = ash_cli_int(a->cli, "max-tokens", 0, 1 << 30, &a->max_tokens);
    status = status ? status : ash_cli_int(a->cli, "seed", -1, INT64_MAX / 2, &a->seed);
    if (status || !t) return status;
    char *end;
    double v = strtod(t, &end);
    if (end == t || *end || !(v >= 0.0 && v <= 100.0))
        return ash_cli_usage("--temperature: '%s' is no number from 0 to 100", t);
    a->temperature = v;
    return 0;
}

int ash_asker_open(ash_cli *cli, const char *model, ash_asker **out)
{
    ash_err err = ASH_ERR_INIT;
    *out = NULL;
    int status = ash_cli_configure(cli);
    if (status) return status;
    ash_asker *a = calloc(1, sizeof *a);
    if (!a) return ash_cli_fail((ash_err_nomem(&err, "a conversation"), &err));
    a->cli = cli;
    pthread_mutex_init(&a->mutex, NULL);
    pthread_cond_init(&a->cond, NULL);
    ash_log_set_level(ASH_LOG_NONE); /* progress and errors are told in the terminal's own way */
    if (ash_personas_open(cli->config->personas_dir, NULL, 0, &a->personas, &err)) {
        ash_asker_close(a);
        return ash_cli_fail(&err);
    }
    model = model ? model : cli->config->default_model;
    a->persona = ash_personas_find(a->personas, model);
    if (a->persona) model = a->persona->model ? a->persona->model : cli->config->default_model;
    status = read_params(a);
    if (!status && !strcmp(model, "openai"))
        status = open_upstream(a, &err) ? ash_cli_fail(&err) : 0;
    else if (!status)
        status = open_local(a, model);
    if (status)
        ash_asker_close(a);
    else
        *out = a;
    return status;
}

void ash_asker_close(ash_asker *a)
{
    if (!a) return;
    if (a->provider) a->provider->close(a->provider);
    ash_manager_close(a->manager);
    ash_personas_close(a->personas);
    free(a->path);
    pthread_cond_destroy(&a->cond);
    pthread_mutex_destroy(&a->mutex);
    free(a);
}

const char *ash_asker_system(const ash_asker *a)
{
    return a->persona ? a->persona->system_prompt : NULL;
}

const char *ash_asker_model(const ash_asker *a)
{
    return a->model;
}

const ash_answer_usage *ash_asker_usage(const ash_asker *a)
{
    return &a->usage;
}

/* ---- asking -----------------------------------------------------------------------------------
 */

/* As it is into a file or a pipe; a terminal does not do what a model says. */
static void say(FILE *to, const char *p, size_t n)
{
    if (isatty(fileno(to)))
        ash_term_text(to, p, n);
    else
        fwrite(p, 1, n, to);
}

/* An answer that nobody can read ends: `ashley run ... | head`, a full disk. */
static void show(ash_asker *a, const char *p, size_t n)
{
    if (a->unwritable) return;
    say(stdout, p, n);
    if (fflush(stdout) || ferror(stdout)) {
        a->unwritable = errno ? errno : EIO;
        a->ended = true;
    }
    ash_buf_add(a->text, p, n);
}

/* An upstream's chunk: the text of its first choice. */
static void show_chunk(ash_asker *a, ash_str raw)
{
    json_t *v = NULL;
    if (ash_json_parse(raw.p, raw.n, &v, NULL)) return;
    const json_t *delta =
        json_object_get(json_array_get(json_object_get(v, "choices"), 0), "delta");
    const json_t *content = json_object_get(delta, "content");
    if (json_is_string(content)) show(a, json_string_value(content), json_string_length(content));
    json_decref(v);
}

static int exit_of(const ash_api_error *e)
{
    switch (e->status) {
    case 400:
        return ASH_EXIT_BAD_INPUT;
    case 401:
    case 403:
        return ASH_EXIT_AUTH;
    case 404:
        return ASH_EXIT_NOT_FOUND;
    case 502:
        return ASH_EXIT_NETWORK;
    default:
        return e->code && strstr(e->code, "timeout") ? ASH_EXIT_TIMEOUT : ASH_EXIT_FAILED;
    }
}

static int on_answer(void *user, const ash_answer *ans)
{
    ash_asker *a = user;
    pthread_mutex_lock(&a->mutex);
    switch (ans->kind) {
    case ASH_ANSWER_DELTA:
        if (ans->reasoning.n) {
            say(stderr, ans->reasoning.p, ans->reasoning.n);
            a->thinking = true;
        }
        if (ans->text.n) {
            if (a->thinking) fputc('\n', stderr);
            a->thinking = false;
            show(a, ans->text.p, ans->text.n);
        }
        break;
    case ASH_ANSWER_RAW:
        show_chunk(a, ans->raw);
        break;
    case ASH_ANSWER_END:
        if (ans->usage) a->usage = *ans->usage;
        a->ended = true;
        break;
    case ASH_ANSWER_ERROR:
        snprintf(a->error, sizeof a->error, "%s", ans->error->message); /* the rest ends with the event */
        a->exit_status = exit_of(ans->error);
        a->failed = a->ended = true;
        break;
    default:
        break;
    }
    pthread_cond_signal(&a->cond);
    pthread_mutex_unlock(&a->mutex);
    return 0;
}

/* Puts what the options say into the request. */
static void fill_params(const ash_asker *a, ash_request *req, json_t *body)
{
    req->sampling = ash_sampler_params_default();
    req->sampling.temperature = a->temperature < 0 ? 0.8 : a->temperature;
    req->sampling.seed = a->seed;
    req->max_tokens = a->max_tokens;
    if (a->temperature >= 0) json_object_set_new(body, "temperature", json_real(a->temperature));
    if (a->max_tokens >= 0) json_object_set_new(body, "max_tokens", json_integer(a->max_tokens));
    if (a->seed >= 0) json_object_set_new(body, "seed", json_integer(a->seed));
}

/* Waits for the end of the answer or Ctrl-C; true if it ended. */
static bool wait_for_end(ash_asker *a)
{
    const atomic_bool *stop = ash_cli_interrupt();
    pthread_mutex_lock(&a->mutex);
    while (!a->ended && !atomic_load(stop)) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 50000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&a->cond, &a->mutex, &until);
    }
    bool ended = a->ended;
    pthread_mutex_unlock(&a->mutex);
    return ended;
}

int ash_asker_ask(ash_asker *a, const json_t *messages, ash_buf *text)
{
    ash_err err = ASH_ERR_INIT;
    ash_answering *handle = NULL;
    json_t *body = json_pack("{s:O, s:b}", "messages", messages, "stream", 1);
    if (!body) return ash_cli_fail((ash_err_nomem(&err, "a request"), &err));
    ash_request req = {.kind = ASH_REQUEST_CHAT,
                       .id = "cli",
                       .model = a->model,
                       .body = body,
                       .n = 1,
                       .stream = true,
                       .add_generation_prompt = true,
                       .budgets = ash_cli_budgets(a->cli->config)};
    fill_params(a, &req, body);
    a->text = text;
    a->ended = a->failed = a->thinking = false;
    a->unwritable = 0;
    memset(&a->usage, 0, sizeof a->usage);
    int status = a->provider->start(a->provider, &req, on_answer, a, &handle, &err);
    if (status) {
        status = ash_cli_fail(&err);
    } else {
        bool ended = wait_for_end(a);
        a->provider->close_request(a->provider, handle);
        if (!ended) {
            status = 130;
        } else if (a->unwritable) {
            if (a->unwritable != EPIPE) /* who reads no further knows */
                fprintf(stderr, "ashley: the answer cannot be written: %s\n", strerror(a->unwritable));
            status = ASH_EXIT_FAILED;
        } else if (a->failed) {
            fputs("ashley: ", stderr);
            ash_term_text(stderr, a->error, strlen(a->error));
            fputc('\n', stderr);
            status = a->exit_status;
        }
    }
    json_decref(body);
    return status;
}
