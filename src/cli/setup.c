/* Owns what commands do first: configuration, catalogue, finding a model's file, and how errors
 * turn into exit statuses. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "cli/cli.h"

int ash_cli_exit_status(int code)
{
    switch (code) {
    case ASH_OK:
        return ASH_EXIT_DONE;
    case ASH_EINVAL:
        return ASH_EXIT_USAGE;
    case ASH_ENOMEM:
    case ASH_ENOSPC:
    case ASH_EDISK:
        return ASH_EXIT_NO_ROOM;
    case ASH_ENOENT:
        return ASH_EXIT_NOT_FOUND;
    case ASH_ENET:
        return ASH_EXIT_NETWORK;
    case ASH_EFORMAT:
    case ASH_EUNSUPPORTED:
    case ASH_ELIMIT:
        return ASH_EXIT_BAD_INPUT;
    case ASH_EAUTH:
        return ASH_EXIT_AUTH;
    case ASH_ETIMEDOUT:
        return ASH_EXIT_TIMEOUT;
    default:
        return ASH_EXIT_FAILED;
    }
}

int ash_cli_fail(const ash_err *err)
{
    char msg[sizeof err->msg];
    memcpy(msg, err->msg, sizeof msg);
    ash_log_redact(msg);
    fprintf(stderr, "ashley: %s\n", msg[0] ? msg : ash_err_name(err->code));
    return ash_cli_exit_status(err->code);
}

int ash_cli_configure(ash_cli *cli)
{
    ash_err err = ASH_ERR_INIT;
    ash_config_sources src = {
        .env_file = cli->env_file, .flags = cli->flags, .n_flags = cli->n_flags};
    if (ash_config_load(&src, &cli->config, &err)) {
        ash_cli_fail(&err);
        return ASH_EXIT_USAGE;
    }
    ash_catalogue_opts o = {
        .path = cli->config->models_file,
        .optional = !strcmp(ash_config_origin(cli->config, "ASHLEY_MODELS_FILE"), "default"),
        .hub_dir = cli->config->hub_dir};
    if (ash_catalogue_open(&o, &cli->catalogue, &err)) return ash_cli_fail(&err);
    return 0;
}

ash_budgets ash_cli_budgets(const ash_config *config)
{
    const char *origin = ash_config_origin(config, "ASHLEY_FIRST_TOKEN_TIMEOUT");
    return (ash_budgets){config->queue_ms, config->load_ms, config->first_token_ms, config->idle_ms,
                         !strcmp(origin, "default")};
}

void ash_cli_release(ash_cli *cli)
{
    ash_catalogue_close(cli->catalogue);
    ash_config_close(cli->config);
    cli->catalogue = NULL;
    cli->config = NULL;
}

static int find(ash_cli *cli, const char *model, bool consent, ash_catalogue_place *place,
                const ash_catalogue_entry **entry)
{
    ash_err err = ASH_ERR_INIT;
    *place = (ash_catalogue_place){0};
    *entry = NULL;
    int status = cli->config ? 0 : ash_cli_configure(cli);
    if (status) return status;
    if (ash_catalogue_resolve(cli->catalogue, model, entry, &err)) return ash_cli_fail(&err);
    if (ash_catalogue_locate(cli->catalogue, *entry, consent, place, &err)) {
        ash_catalogue_place_release(place);
        return ash_cli_fail(&err);
    }
    return 0;
}

static int absent(const char *model, const ash_catalogue_place *place)
{
    ash_err err = ASH_ERR_INIT;
    bool refused = !strcmp(place->code, "unsupported_format") || !strcmp(place->code, "bad_entry");
    bool consent = !strcmp(place->code, "consent_needed");
    ash_err_set(&err,
                refused   ? ASH_EUNSUPPORTED
                : consent ? ASH_EAUTH
                          : ASH_ENOENT,
                "%s: %s%s%s", model, place->reason, place->hint[0] ? "; " : "", place->hint);
    return ash_cli_fail(&err);
}

int ash_cli_locate(ash_cli *cli, const char *model, char **path, const ash_catalogue_entry **entry)
{
    ash_catalogue_place place;
    const ash_catalogue_entry *e;
    int status = find(cli, model, cli->yes, &place, &e);
    if (!status && !place.path) status = absent(model, &place);
    *path = place.path;
    if (entry) *entry = e;
    free(place.partial);
    return status;
}

int ash_cli_place(ash_cli *cli, const char *model, ash_catalogue_place *place,
                  const ash_catalogue_entry **entry)
{
    int status = find(cli, model, true, place, entry);
    return !status && !place->path && !place->partial ? absent(model, place) : status;
}

bool ash_cli_ask(const ash_cli *cli, const char *question)
{
    char answer[16] = "";
    if (cli->quiet || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) return false;
    fprintf(stderr, "%s [y/N] ", question);
    fflush(stderr);
    if (!fgets(answer, sizeof answer, stdin)) fputc('\n', stderr);
    return answer[0] == 'y' || answer[0] == 'Y';
}

int ash_cli_read(const char *file, size_t max, ash_buf *out)
{
    ash_err err = ASH_ERR_INIT;
    if (file && strcmp(file, "-"))
        return ash_fs_read(file, max, out, &err) ? ash_cli_fail(&err) : 0;
    ash_buf_init(out, max);
    for (;;) {
        size_t room = max - out->len < 65536 ? max - out->len : 65536;
        char *to = ash_buf_reserve(out, room ? room : 1);
        if (!to) {
            ash_err_set(&err, out->failed, "standard input holds more than %zu bytes", max);
            return ash_cli_fail(&err);
        }
        ssize_t n = read(STDIN_FILENO, to, room);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            ash_err_set(&err, ASH_EIO, "cannot read standard input: %s", strerror(errno));
            return ash_cli_fail(&err);
        }
        if (n == 0) return 0;
        out->len += (size_t)n;
        out->data[out->len] = 0;
    }
}
