/* Owns how configuration and catalogue become a hub client and its wants, and the question that every fetch
 * begins with. Any thread. */
#include "cli/hub.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

int ash_cli_hub_open(const ash_cli *cli, ash_hub **out, ash_err *err)
{
    const ash_config *c = cli->config;
    char *token = NULL;
    int rc = 0;
    *out = NULL;
    if (!c->hf_token && c->hub_token_file) rc = ash_hub_read_token(c->hub_token_file, &token, err);
    if (rc) return rc;
    if (token) ash_log_hide(token);
    ash_hub_opts o = {.cache_dir = c->hub_dir,
                      .endpoint = c->hf_endpoint,
                      .token = c->hf_token ? c->hf_token : token,
                      .proxy = c->https_proxy,
                      .no_proxy = c->no_proxy,
                      .stall_ms = c->hf_timeout_ms,
                      .offline = c->hf_hub_offline};
    rc = ash_hub_open(&o, out, err);
    free(token);
    return rc;
}

int ash_cli_hub_want(const ash_catalogue_entry *e, const char *name, ash_hub_want *out,
                     ash_hub_pin **pins, ash_err *err)
{
    *out = (ash_hub_want){.format = e->format, .files = e->files, .n_files = e->n_files};
    *pins = NULL;
    if (e->bad) return ash_err_set(err, ASH_EINVAL, "%s: %.300s", name, e->bad);
    if (!e->repo)
        return ash_err_set(err, ASH_ENOENT,
                           "%s: no repository of the hub is known for it; give one as org/repo or "
                           "org/repo:QUANT, or "
                           "as \"repo\" in the catalogue",
                           name);
    const char *colon = e->resolved ? strrchr(name, ':') : NULL;
    if (colon) { /* org/repo:QUANT: a word of the name, not any part of it */
        out->quant = colon + 1;
        out->files = NULL;
        out->n_files = 0;
    }
    if (!e->n_sha256) return 0;
    *pins = calloc(e->n_sha256, sizeof **pins);
    if (!*pins) return ash_err_nomem(err, name);
    for (size_t i = 0; i < e->n_sha256; i++)
        (*pins)[i] = (ash_hub_pin){.file = e->sha256[i].file, .sha256 = e->sha256[i].sha256};
    out->pins = *pins;
    out->n_pins = e->n_sha256;
    return 0;
}

int ash_cli_hub_list(ash_hub *hub, const ash_catalogue_entry *e, const char *name, const char *revision,
                     const ash_hub_watch *watch, ash_cli_listing *out, ash_err *err)
{
    ash_hub_want want;
    *out = (ash_cli_listing){0};
    int rc = ash_cli_hub_want(e, name, &want, &out->pins, err);
    if (!rc) rc = ash_hub_list(hub, e->repo, revision ? revision : e->revision, watch, &out->tree, err);
    if (!rc) rc = ash_hub_choose(out->tree, &want, &out->plan, err);
    return rc ? rc : ash_hub_look(hub, out->plan, &out->here, err);
}

void ash_cli_listing_release(ash_cli_listing *l)
{
    ash_hub_plan_close(l->plan);
    ash_hub_tree_close(l->tree);
    free(l->pins);
    *l = (ash_cli_listing){0};
}

int ash_cli_hub_weights(const ash_hub_plan *p, const char *snapshot, char **path, ash_err *err)
{
    ash_buf at;
    ash_buf_init(&at, 1u << 16);
    ash_buf_adds(&at, snapshot);
    if (p->weights) ash_buf_printf(&at, "/%s", p->weights);
    int rc = ash_buf_check(&at, "a path", err);
    *path = rc ? NULL : ash_buf_take(&at);
    ash_buf_release(&at);
    return rc;
}
