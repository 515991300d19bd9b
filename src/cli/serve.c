/* Owns `ashley serve`: configuration into plain options, start in an order that has the port
 * answering first, the boot report, signals. Refuses to listen beyond loopback without keys. Main
 * thread. */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "api/server.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/draft.h"
#include "cli/engine_open.h"
#include "cli/fetch.h"
#include "cli/notify.h"
#include "cli/report.h"
#include "cli/status.h"
#include "cli/term.h"
#include "provider/local.h"
#include "provider/openai.h"
#include "store/downloads.h"

typedef struct serving {
    ash_cli *cli;
    const ash_config *config;
    ash_personas *personas;
    ash_api_persona *api_personas;
    size_t n_personas;
    ash_model_spec *specs;
    size_t n_specs;
    char **paths;       /* of the specs; owned */
    ash_cli_draft *drafts; /* of the specs */
    char (*texts)[820]; /* absent reasons and hints of the specs */
    size_t most_specs;
    pthread_mutex_t adding; /* of specs, once the server answers */
    json_t *paused;         /* ids whose downloads were paused when the program last ended */
    char told_id[ASH_MAX_MODEL_ID + 1]; /* what systemd's status line was about, of the keeper's thread */
    ash_model_state told_state;
    int64_t told_ms;
    ash_cli_fetcher *fetcher;
    ash_manager *manager;
    ash_provider *local, *upstream;
    ash_server *server;
} serving;

static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (!strcmp(host, "localhost")) return true;
    if (inet_pton(AF_INET, host, &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* ---- what the manager is told ------------------------------------------------------------------
 */

/* The system prompt of the first persona that this model answers, for its prefix to be computed
 * before anyone asks. */
static const char *warm_prompt(const serving *s, const char *id)
{
    size_t n;
    const ash_persona *p = ash_personas_list(s->personas, &n);
    for (size_t i = 0; i < n; i++)
        if (p[i].system_prompt && !strcmp(p[i].model ? p[i].model : s->config->default_model, id))
            return p[i].system_prompt;
    return NULL;
}

static const ash_preload *preload_of(const ash_config *c, const char *id)
{
    for (size_t i = 0; i < c->preload.n; i++)
        if (!strcmp(c->preload.v[i].model, id)) return &c->preload.v[i];
    return NULL;
}

static void set_preload(ash_model_spec *spec, const ash_preload *p)
{
    spec->preload = true;
    spec->required = p->required;
    spec->pin = p->pin;
    spec->ctx = p->ctx ? p->ctx : spec->ctx;
    if (p->has_keep_alive) spec->keep_alive_ms = p->keep_alive_ms;
}

/* Whether the server can fetch it where it is not here: from a repository. */
static bool can_fetch(const ash_config *c, const ash_catalogue_entry *e, const ash_catalogue_place *place)
{
    return e->repo && !e->bad && !c->hf_hub_offline &&
           (place->path || !strcmp(place->code, "not_downloaded") || !strcmp(place->code, "consent_needed"));
}

static bool is_paused(const serving *s, const char *id)
{
    const json_t *v;
    size_t i;
    json_array_foreach(s->paused, i, v) if (!strcmp(json_string_value(v), id)) return true;
    return false;
}

/* One spec from a catalogue entry, or, e NULL, from a name that nothing knows. */
static int add_spec(serving *s, const ash_catalogue_entry *e, const ash_preload *p,
                    const ash_err *unknown)
{
    size_t i = s->n_specs++;
    ash_model_spec *spec = &s->specs[i];
    char *reason = s->texts[i], *hint = s->texts[i] + 410;
    *spec = (ash_model_spec){.id = e ? e->id : p->model,
                             .keep_alive_ms = s->config->keep_alive_ms,
                             .absent_reason = reason,
                             .absent_hint = hint};
    spec->usual = !strcmp(spec->id, s->config->default_model);
    if (e && e->has_keep_alive) spec->keep_alive_ms = e->keep_alive_ms;
    if (p) set_preload(spec, p);
    if (!e) {
        snprintf(reason, 410, "%.409s", unknown->msg);
        snprintf(hint, 410, "correct the name in PRELOAD_MODELS, or add it to %.300s",
                 s->config->models_file);
        spec->absent_code = "model_not_found";
        return 0;
    }
    ash_catalogue_place place;
    ash_err err = ASH_ERR_INIT;
    bool confirmed = s->cli->yes || (p && p->confirm);
    int rc = ash_catalogue_locate(s->cli->catalogue, e, confirmed, &place, &err);
    if (rc) {
        ash_catalogue_place_release(&place);
        snprintf(reason, 410, "%.409s", err.msg);
        spec->absent_code = "not_downloaded";
        return rc == ASH_ENOMEM ? rc : 0;
    }
    snprintf(reason, 410, "%s", place.reason);
    snprintf(hint, 410, "%s", place.hint);
    bool absent = e->repo && !place.path && !strcmp(place.code, "not_downloaded");
    if (absent && s->config->hf_hub_offline) {
        snprintf(reason, 410, "%.350s, and HF_HUB_OFFLINE is set", place.reason);
        snprintf(hint, 410, "set HF_HUB_OFFLINE=0, so that it can be fetched");
    }
    free(place.partial);
    s->paths[i] = place.path;
    spec->path = place.path;
    spec->absent_code = place.code;
    spec->paused = is_paused(s, e->id); /* it was confirmed then */
    spec->confirm = can_fetch(s->config, e, &place) && e->warning && !confirmed && !spec->paused;
    spec->fetch = can_fetch(s->config, e, &place) && !spec->confirm;
    if (place.path) spec->absent_code = spec->confirm ? "consent_needed" : "not_downloaded";
    if (place.path) snprintf(reason, 410, "%.400s", spec->confirm ? e->warning : "it was removed");
    spec->template_text = e->template_text;
    spec->repo = e->repo;
    spec->format = e->format;
    spec->size = e->size;
    spec->description = e->description;
    spec->warning = e->warning;
    spec->ctx = spec->ctx ? spec->ctx : e->context;
    spec->kv_q8 = ash_cli_kv_q8(s->cli, e, p);
    spec->warm_prompt = warm_prompt(s, e->id);
    rc = ash_cli_draft_find(s->cli, e, p, &s->drafts[i], &err);
    spec->draft = s->drafts[i].id;
    spec->draft_path = s->drafts[i].path;
    spec->draft_absent = s->drafts[i].reason;
    return rc;
}

/* Preload entries first, in their order, then the rest of the catalogue. */
static int make_specs(serving *s, ash_err *err)
{
    const ash_config *c = s->config;
    ash_catalogue *cat = s->cli->catalogue;
    size_t most = ash_catalogue_count(cat) + 2 * c->preload.n + 1 + ASH_MAX_DOWNLOADS + ASH_MANAGER_ADDED;
    s->most_specs = most;
    s->specs = calloc(most, sizeof *s->specs);
    s->paths = calloc(most, sizeof *s->paths);
    s->texts = calloc(most, sizeof *s->texts);
    s->drafts = calloc(most, sizeof *s->drafts);
    int rc = s->specs && s->paths && s->texts && s->drafts ? 0 : ash_err_nomem(err, "the list of models");
    for (size_t i = 0; !rc && i < c->preload.n; i++) {
        const ash_catalogue_entry *e = NULL;
        ash_err unknown = ASH_ERR_INIT;
        if (ash_catalogue_resolve(cat, c->preload.v[i].model, &e, &unknown)) e = NULL;
        rc = add_spec(s, e, &c->preload.v[i], &unknown);
    }
    for (size_t i = 0; !rc && i < ash_catalogue_count(cat); i++) {
        const ash_catalogue_entry *e = ash_catalogue_at(cat, i);
        bool known = preload_of(c, e->id) != NULL;
        for (size_t k = 0; k < s->n_specs && !known; k++) known = !strcmp(s->specs[k].id, e->id);
        rc = known ? 0 : add_spec(s, e, NULL, NULL);
    }
    return rc;
}

/* Names that clients had downloaded get their entries again; pauses are read. What of it cannot be read is
 * forgotten, and said. */
static int recall_downloads(serving *s, ash_err *err)
{
    const char *dir = s->config->state_dir;
    ash_err why = ASH_ERR_INIT;
    json_t *added = NULL;
    const json_t *v;
    size_t i;
    if (!dir) return 0;
    int rc = ash_downloads_read(dir, ASH_DOWNLOADS_PAUSED, &s->paused, &why);
    if (rc != ASH_ENOMEM) rc = ash_downloads_read(dir, ASH_DOWNLOADS_ADDED, &added, &why);
    if (rc == ASH_ENOMEM) return ash_err_nomem(err, "downloads");
    if (rc) ash_warn("serve", "paused downloads and models added by name are forgotten: %s", why.msg);
    json_array_foreach(added, i, v)
    {
        const ash_catalogue_entry *e;
        if (ash_catalogue_reference(s->cli->catalogue, json_string_value(v), &e, &why))
            ash_warn("serve", "%.200s, which was added by name: %s", json_string_value(v), why.msg);
    }
    json_decref(added);
    return 0;
}

/* As ash_server_opts.add_model. */
static int add_model(void *user, const char *name, ash_err *err)
{
    serving *s = user;
    const ash_catalogue_entry *e;
    int rc = ash_catalogue_reference(s->cli->catalogue, name, &e, err);
    if (rc) return rc;
    pthread_mutex_lock(&s->adding);
    size_t i = s->n_specs;
    if (ash_manager_knows(s->manager, e->id, NULL))
        rc = 0;
    else if (i == s->most_specs)
        rc = ash_err_set(err, ASH_ELIMIT, "too many models were added by name");
    else
        rc = add_spec(s, e, NULL, NULL);
    if (!rc && s->n_specs > i) {
        s->specs[i].added = true;
        rc = ash_manager_add(s->manager, &s->specs[i], err);
    }
    pthread_mutex_unlock(&s->adding);
    return rc;
}

/* ---- what the server is told --------------------------------------------------------------------
 */

static int make_personas(serving *s, ash_err *err)
{
    size_t n = ash_catalogue_count(s->cli->catalogue), n_bad, count;
    const char **taken = calloc(n + 1, sizeof *taken);
    if (!taken) return ash_err_nomem(err, "personas");
    for (size_t i = 0; i < n; i++) taken[i] = ash_catalogue_at(s->cli->catalogue, i)->id;
    taken[n] = "openai";
    int rc = ash_personas_open(s->config->personas_dir, taken, n + 1, &s->personas, err);
    free(taken);
    if (rc) return rc;
    const ash_persona_bad *bad = ash_personas_bad(s->personas, &n_bad);
    for (size_t i = 0; i < n_bad; i++)
        ash_warn("personas", "%s is left out: %s", bad[i].file, bad[i].reason);
    const ash_persona *p = ash_personas_list(s->personas, &count);
    s->api_personas = calloc(count + 1, sizeof *s->api_personas);
    if (!s->api_personas) return ash_err_nomem(err, "personas");
    for (size_t i = 0; i < count; i++)
        s->api_personas[i] = (ash_api_persona){.id = p[i].id,
                                               .name = p[i].name,
                                               .description = p[i].description,
                                               .system_prompt = p[i].system_prompt,
                                               .model = p[i].model,
                                               .first_message = p[i].first_message,
                                               .sampling = p[i].sampling,
                                               .extra = p[i].json};
    s->n_personas = count;
    return 0;
}

static int open_upstream(serving *s, ash_err *err)
{
    const ash_config *c = s->config;
    if (!c->openai_api_key && !strcmp(ash_config_origin(c, "OPENAI_BASE_URL"), "default")) return 0;
    ash_openai_opts o = {.name = "openai",
                         .base_url = c->openai_base_url,
                         .api_key = c->openai_api_key,
                         .proxy = c->https_proxy,
                         .no_proxy = c->no_proxy};
    return ash_openai_open(&o, &s->upstream, err);
}

static ash_fallback entry_fallback(void *user, const char *id)
{
    const serving *s = user;
    const ash_catalogue_entry *e = ash_catalogue_find(s->cli->catalogue, id);
    return e ? e->fallback : ASH_FALLBACK_UNSET;
}

static void entry_budgets(void *user, const char *id, ash_budgets *b)
{
    const serving *s = user;
    const ash_catalogue_entry *e = ash_catalogue_find(s->cli->catalogue, id);
    if (!e) return;
    const struct {
        int64_t said, *to;
    } all[] = {{e->queue_ms, &b->queue_ms},
               {e->load_ms, &b->load_ms},
               {e->first_token_ms, &b->first_token_ms},
               {e->idle_ms, &b->idle_ms}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].said) *all[i].to = all[i].said > 0 ? all[i].said : 0;
    if (e->first_token_ms) b->first_token_renewed = false;
}

static int open_server(serving *s, ash_err *err)
{
    const ash_config *c = s->config;
    ash_server_opts o = {
        .host = c->host,
        .port = c->port,
        .api_keys = c->api_keys.v,
        .n_api_keys = c->api_keys.n,
        .origins = c->origins.v,
        .n_origins = c->origins.n,
        .manager = s->manager,
        .local = s->local,
        .upstream = s->upstream,
        .upstream_missing =
            "set OPENAI_API_KEY (and OPENAI_BASE_URL for another provider) in .env, or DEFAULT_MODEL "
            "to a model of this machine",
        .default_model = c->default_model,
        .fallback_model = c->fallback_model,
        .fallback = c->fallback,
        .model_fallback = entry_fallback,
        .model_budgets = entry_budgets,
        .add_model = add_model,
        .user = s,
        .personas = s->api_personas,
        .n_personas = s->n_personas,
        .budgets = ash_cli_budgets(c),
        .budget_caps = {3600000, 24 * 3600000, 3600000, 3600000, false},
        .drain_ms = c->drain_ms,
        .allow_open = c->allow_open};
    return ash_server_open(&o, &s->server, err);
}

/* Listener of the manager: systemd's status line at every change of a state, and once a second meanwhile. */
static void tell_systemd(void *user, const char *id)
{
    serving *s = user;
    char state[ASH_CLI_STATUS + 8] = "STATUS=";
    ash_model_state now = ash_manager_state(s->manager, id);
    int64_t ms = ash_clock_ms();
    bool same = !strcmp(s->told_id, id) && s->told_state == now;
    if (same && ms - s->told_ms < 1000) return;
    json_t *list = ash_manager_list(s->manager);
    ash_cli_status_line(list, state + strlen(state));
    json_decref(list);
    snprintf(s->told_id, sizeof s->told_id, "%s", id);
    s->told_state = now;
    s->told_ms = ms;
    ash_notify(state);
}

static int open_all(serving *s, ash_err *err)
{
    const ash_config *c = s->config;
    int64_t t0 = ash_clock_ns();
    int rc = make_personas(s, err);
    rc = rc ? rc : recall_downloads(s, err);
    rc = rc ? rc : make_specs(s, err);
    rc = rc ? rc : ash_cli_fetcher_open(s->cli, &s->fetcher, err);
    if (rc) return rc;
    ash_manager_opts mo = ash_cli_manager_opts(c);
    mo.specs = s->specs;
    mo.n_specs = s->n_specs;
    mo.fetch = ash_cli_fetch;
    mo.weigh = ash_cli_weigh;
    mo.advise = ash_cli_advise;
    mo.remove = ash_cli_remove;
    mo.find = ash_cli_fetch_find;
    mo.fetch_user = s->fetcher;
    rc = ash_manager_open(&mo, &s->manager, err);
    rc = rc ? rc : ash_local_open(s->manager, &s->local, err);
    rc = rc ? rc : open_upstream(s, err);
    if (rc) return rc;
    int64_t t1 = ash_clock_ns();
    rc = open_server(s, err);
    if (rc) return rc;
    if (getenv("NOTIFY_SOCKET")) ash_manager_listen(s->manager, tell_systemd, s);
    ash_manager_note_step(s->manager, "models and personas", (double)(t1 - t0) * 1e-6);
    ash_manager_note_step(s->manager, "listen", (double)(ash_clock_ns() - t1) * 1e-6);
    return ash_manager_start(s->manager, err);
}

static void close_all(serving *s)
{
    ash_server_close(s->server);
    if (s->local) s->local->close(s->local);
    if (s->upstream) s->upstream->close(s->upstream);
    ash_manager_close(s->manager);
    ash_cli_fetcher_close(s->fetcher);
    for (size_t i = 0; i < s->n_specs; i++) {
        free(s->paths[i]);
        ash_cli_draft_release(&s->drafts[i]);
    }
    json_decref(s->paused);
    pthread_mutex_destroy(&s->adding);
    free(s->drafts);
    free(s->specs);
    free(s->paths);
    free(s->texts);
    free(s->api_personas);
    ash_personas_close(s->personas);
}

/* ---- running ------------------------------------------------------------------------------------
 */

/* Says so if DEFAULT_MODEL names nothing: else it comes out at the first request, as a 404. */
static void warn_default(const serving *s)
{
    const ash_config *c = s->config;
    const char *nearest = NULL;
    bool upstream = !strcmp(c->default_model, "openai") ||
                    (s->upstream && !strcmp(c->default_model, c->fallback_model));
    if (upstream || ash_manager_knows(s->manager, c->default_model, &nearest)) return;
    printf("Requests that name no model will fail: DEFAULT_MODEL=%s is neither a model of this server nor "
           "openai%s%s%s\n",
           c->default_model, nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

static void greet(const serving *s)
{
    const ash_config *c = s->config;
    unsigned port = ash_server_port(s->server);
    const char *model = NULL; /* the first that is there; preload entries come first */
    for (size_t i = 0; !model && i < s->n_specs; i++)
        model = s->specs[i].path ? s->specs[i].id : NULL;
    bool v6 = strchr(c->host, ':') != NULL;
    printf("Ashley %s listens on http://%s%s%s:%u/\n", ASHLEY_VERSION, v6 ? "[" : "", c->host,
           v6 ? "]" : "", port);
    if (!strcmp(c->default_model, "openai") && !s->upstream)
        printf("Requests that name no model go to the upstream, which has no key: set "
               "OPENAI_API_KEY, or "
               "DEFAULT_MODEL=%s\n",
               model ? model : "a local model");
    else
        warn_default(s);
    printf("Try: curl http://%s%s%s:%u/v1/chat/completions %s-d "
           "'{\"model\":\"%s\",\"messages\":[{\"role\":\"user\","
           "\"content\":\"Hello!\"}]}'\n",
           v6 ? "[" : "", c->host, v6 ? "]" : "", port,
           c->api_keys.n ? "-H \"Authorization: Bearer $KEY\" " : "", model ? model : "openai");
    fflush(stdout);
}

/* The signal that came within ms, or 0. */
static int wait_signal(int fd, int ms)
{
    struct signalfd_siginfo info;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, ms) <= 0 || read(fd, &info, sizeof info) != sizeof info) return 0;
    return (int)info.ssi_signo;
}

typedef struct hurry {
    int fd;
    atomic_bool now, over;
} hurry;

/* While draining: a second signal ends the program at once. */
static void *watch_second_signal(void *arg)
{
    hurry *h = arg;
    while (!atomic_load(&h->over)) {
        int sig = wait_signal(h->fd, 50);
        if (sig) _exit(128 + sig);
    }
    return NULL;
}

static void drain(serving *s, int fd)
{
    hurry h = {.fd = fd};
    pthread_t thread;
    bool watched = !pthread_create(&thread, NULL, watch_second_signal, &h);
    ash_info("serve", "draining: running answers have %.0f s", (double)s->config->drain_ms * 1e-3);
    ash_server_drain(s->server, &h.now);
    atomic_store(&h.over, true);
    if (watched) pthread_join(thread, NULL);
}

static void run(serving *s, int fd)
{
    enum { SOON_MS = 20, LATER_MS = 200 };
    const int64_t quick_ns = 5000000000ll, began = ash_clock_ns(); /* a start; what takes longer fetches */
    bool reported = false, told_ready = false;
    if (!s->config->notify_ready) ash_notify("READY=1");
    for (;;) {
        int ms = !reported && ash_clock_ns() - began < quick_ns ? SOON_MS : LATER_MS;
        int sig = wait_signal(fd, reported && told_ready ? -1 : ms);
        if (sig) break;
        if (!told_ready && ash_manager_ready(s->manager)) {
            told_ready = true;
            if (s->config->notify_ready) ash_notify("READY=1");
        }
        if (!reported) {
            json_t *report = ash_manager_report(s->manager);
            if (json_is_true(json_object_get(report, "done"))) {
                ash_report_print(report, s->cli->quiet);
                reported = true;
            }
            json_decref(report);
        }
    }
    ash_notify("STOPPING=1");
    drain(s, fd);
}

/* As many open files as the hard limit allows: a soft limit of 1,024 holds fewer connections than
 * ASH_MAX_CONNECTIONS. Nothing here uses select(), which could not take them. */
static void raise_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur == r.rlim_max) return;
    r.rlim_cur = r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r)) ash_warn("serve", "the limit of open files stays as it was");
}

int ash_cmd_serve(ash_cli *cli)
{
    ash_err err = ASH_ERR_INIT;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals,
                    NULL); /* before any thread starts, so that all inherit it */
    int64_t t0 = ash_clock_ns();
    int status = ash_cli_configure(cli);
    if (status) return status;
    const ash_config *c = cli->config;
    if (*c->host == '[')
        return ash_cli_usage("ASHLEY_HOST is '%s': expected an address without brackets", c->host);
    if (!is_loopback(c->host) && !c->api_keys.n && !c->allow_open)
        return ash_cli_usage("listening on %s, beyond this machine, needs ASHLEY_API_KEYS (or "
                             "ASHLEY_ALLOW_OPEN=1 to "
                             "let everyone in)",
                             c->host);
    for (size_t i = 0; i < c->n_notices; i++) ash_warn("config", "%s", c->notices[i]);
    raise_file_limit();
    serving s = {.cli = cli, .config = c, .adding = PTHREAD_MUTEX_INITIALIZER};
    double config_ms = (double)(ash_clock_ns() - t0) * 1e-6;
    int fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (fd < 0 || open_all(&s, &err)) {
        status = fd < 0 ? ASH_EXIT_FAILED : ash_cli_fail(&err);
    } else {
        ash_manager_note_step(s.manager, "configuration", config_ms);
        greet(&s);
        run(&s, fd);
    }
    close_all(&s);
    if (fd >= 0) close(fd);
    return status;
}
