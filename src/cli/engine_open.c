/* Owns loading a model for one command, and what Ctrl-C does meanwhile. Main thread. */
#include "cli/engine_open.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/term.h"

static atomic_bool interrupted; /* set by signal handlers only */
static atomic_int signalled;    /* the first one's number */

static void on_signal(int sig)
{
    if (atomic_exchange(&interrupted, true)) _exit(128 + sig); /* the second one ends at once */
    atomic_store(&signalled, sig);
}

const atomic_bool *ash_cli_interrupt(void)
{
    static bool installed;
    if (!installed) {
        struct sigaction sa = {.sa_handler = on_signal};
        sigaction(SIGINT, &sa, NULL);
        sigaction(SIGTERM, &sa, NULL);
        installed = true;
    }
    return &interrupted;
}

int ash_cli_interrupt_status(void)
{
    return 128 + (atomic_load(&signalled) ? atomic_load(&signalled) : SIGINT);
}

void ash_cli_interrupt_clear(void)
{
    atomic_store(&interrupted, false);
}

static void on_progress(void *user, ash_load_stage stage, uint64_t done, uint64_t total)
{
    static const char *const names[] = {"verify", "map", "pack", "warm", "prefill"};
    ash_term_progress(user, (int)stage, names[stage], done, total);
}

int ash_cli_engine_file(ash_cli *cli, const char *path, const char *shown, ash_engine_opts o,
                        ash_engine **out)
{
    ash_term term;
    ash_err err = ASH_ERR_INIT;
    *out = NULL;
    int status = cli->config ? 0 : ash_cli_configure(cli);
    if (status) return status;
    ash_term_init(&term, cli, shown);
    o.path = path;
    o.cpu = cli->config->cpu;
    o.progress = on_progress;
    o.user = &term;
    o.cancel = ash_cli_interrupt();
    int rc = ash_engine_open(&o, out, &err);
    ash_term_done(&term);
    if (rc == ASH_ECANCELED) return 130;
    return rc ? ash_cli_fail(&err) : 0;
}

/* 0 says auto; a budget of no bytes refuses every model. */
static uint64_t memory_budget(const ash_config *c)
{
    if (c->memory_budget == ASH_BYTES_AUTO) return 0;
    return c->memory_budget ? c->memory_budget : 1;
}

ash_manager_opts ash_cli_manager_opts(const ash_config *c)
{
    return (ash_manager_opts){.cpu = c->cpu,
                              .prediction = c->prediction ? ASH_PREDICTION_AUTO : ASH_PREDICTION_NEVER,
                              .state_dir = c->disk_budget ? c->state_dir : NULL,
                              .disk_budget = c->disk_budget == ASH_BYTES_AUTO ? 0 : c->disk_budget,
                              .memory_budget = memory_budget(c),
                              .ready_policy = c->ready};
}

bool ash_cli_kv_q8(const ash_cli *cli, const ash_catalogue_entry *entry, const ash_preload *preload)
{
    const char *kv = preload && preload->kv ? preload->kv : entry ? entry->kv : NULL;
    return kv ? !strcmp(kv, "q8") : cli->config->kv_q8;
}

int ash_cli_engine(ash_cli *cli, const char *model, ash_engine_opts o, ash_engine **out)
{
    char *path;
    const ash_catalogue_entry *entry;
    *out = NULL;
    int status = ash_cli_locate(cli, model, &path, &entry);
    if (status) return status;
    o.template_text = entry->template_text;
    o.ctx = o.ctx ? o.ctx : entry->context;
    o.kv_q8 = ash_cli_kv_q8(cli, entry, NULL);
    status = ash_cli_engine_file(cli, path, model, o, out);
    free(path);
    return status;
}
