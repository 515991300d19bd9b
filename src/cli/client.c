/* Owns what asks a running server: the commands ps, load and unload, and whether it uses a model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/curl.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/status.h"
#include "cli/term.h"

static size_t on_body(char *p, size_t size, size_t n, void *user)
{
    return ash_buf_add(user, p, size * n) ? 0 : size * n;
}

static void base_url(const ash_cli *cli, ash_buf *url)
{
    const char *given = ash_cli_get(cli, "url"), *host = cli->config->host;
    if (given)
        ash_buf_adds(url, given);
    else if (strchr(host, ':'))
        ash_buf_printf(url, "http://[%s]:%u", host, cli->config->port);
    else
        ash_buf_printf(url, "http://%s:%u", strcmp(host, "0.0.0.0") ? host : "127.0.0.1",
                       cli->config->port);
    while (url->len && url->data[url->len - 1] == '/') url->data[--url->len] = 0;
}

/* GET path, or POST of `body`. 0 or an exit status with the message printed; *out is a new
 * reference. absent: where to tell that no server answers, instead of printing it; or NULL. */
static int call(ash_cli *cli, const char *path, const char *body, bool *absent, json_t **out)
{
    ash_buf url, answer;
    ash_curl lib;
    ash_err err = ASH_ERR_INIT;
    long http = 0;
    *out = NULL;
    int status = cli->config ? 0 : ash_cli_configure(cli);
    if (status) return status;
    if (ash_curl_open(&lib, &err)) return ash_cli_fail(&err);
    ash_buf_init(&url, ASH_MAX_URL);
    ash_buf_init(&answer, ASH_MAX_JSON_BODY);
    base_url(cli, &url);
    size_t base = url.len;
    ash_buf_adds(&url, path);
    CURL *curl = lib.easy_init();
    struct curl_slist *headers = lib.slist_append(NULL, "Content-Type: application/json");
    if (cli->config->api_keys.n) {
        ash_buf auth;
        ash_buf_init(&auth, ASH_MAX_ENV_VALUE);
        ash_buf_printf(&auth, "Authorization: Bearer %s", cli->config->api_keys.v[0]);
        headers = lib.slist_append(headers, ash_buf_cstr(&auth));
        ash_buf_release(&auth);
    }
    lib.easy_setopt(curl, CURLOPT_URL, ash_buf_cstr(&url));
    lib.easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    lib.easy_setopt(curl, CURLOPT_NOPROXY, "*");
    lib.easy_setopt(curl, CURLOPT_TIMEOUT, 30L);
    lib.easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    lib.easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    if (body) lib.easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    CURLcode rc = curl ? lib.easy_perform(curl) : CURLE_OUT_OF_MEMORY;
    lib.easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &http);
    if (rc == CURLE_COULDNT_CONNECT && absent) {
        *absent = true;
    } else if (rc) {
        fprintf(stderr, "ashley: no server answers at %.*s (%s); start one with `ashley serve`\n",
                (int)base, ash_buf_cstr(&url), lib.easy_strerror(rc));
        status = ASH_EXIT_FAILED;
    } else if (ash_json_parse(ash_buf_cstr(&answer), answer.len, out, &err)) {
        ash_err_prefix(&err, "%s", ash_buf_cstr(&url));
        status = ash_cli_fail(&err);
    } else if (http >= 400) {
        const char *msg =
            json_string_value(json_object_get(json_object_get(*out, "error"), "message"));
        if (!msg) msg = "the server refused";
        fputs("ashley: ", stderr);
        ash_term_text(stderr, msg, strlen(msg));
        fputc('\n', stderr);
        status = http == 401 || http == 403 ? ASH_EXIT_AUTH
                 : http == 404              ? ASH_EXIT_NOT_FOUND
                                            : ASH_EXIT_FAILED;
    }
    lib.slist_free_all(headers);
    lib.easy_cleanup(curl);
    ash_buf_release(&url);
    ash_buf_release(&answer);
    return status;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void print_model(const json_t *m)
{
    const json_t *status = json_object_get(m, "status"), *error = json_object_get(status, "error");
    const char *state = text_of(status, "value"), *why = text_of(error, "message");
    double bytes = json_number_value(json_object_get(status, "resident_bytes"));
    char progress[160], line[ASH_MAX_MODEL_ID + 64];
    snprintf(line, sizeof line, "%-32s %-12s ", text_of(m, "id"), state);
    ash_term_text(stdout, line, strlen(line));
    ash_cli_status_progress(status, progress, sizeof progress);
    if (!strcmp(state, "loading") || !strcmp(state, "downloading"))
        puts(progress);
    else if (!strcmp(state, "failed"))
        ash_term_text(stdout, why, strlen(why)), putchar('\n');
    else if (bytes > 0.0)
        printf("%.1f MB with a full KV cache\n", bytes * 1e-6);
    else
        putchar('\n');
}

int ash_cli_server_uses(ash_cli *cli, const char *id, const char *repo, const char **use)
{
    static const char *const busy[][2] = {
        {"downloading", "is fetching it: pause or cancel that first"},
        {"loading", "is loading it: cancel that first"},
        {"loaded", "has it in memory: `ashley unload` it first"},
    };
    json_t *v, *m;
    size_t i;
    bool absent = false;
    *use = NULL;
    int status = call(cli, "/models", NULL, &absent, &v);
    if (absent || status) return status;
    json_array_foreach(json_object_get(v, "data"), i, m)
    {
        const json_t *state = json_object_get(m, "status");
        const char *of = text_of(state, "repo");
        if (strcmp(text_of(m, "id"), id) != 0 && !(repo && !strcmp(of, repo))) continue;
        for (size_t k = 0; k < sizeof busy / sizeof *busy; k++)
            if (!strcmp(text_of(state, "value"), busy[k][0])) *use = busy[k][1];
    }
    json_decref(v);
    return 0;
}

int ash_cmd_ps(ash_cli *cli)
{
    json_t *v, *m;
    size_t i;
    int status = call(cli, "/models", NULL, NULL, &v);
    if (!status && cli->json) {
        json_dumpf(json_object_get(v, "data"), stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (!status) {
        printf("%-32s %-12s\n", "MODEL", "STATE");
        json_array_foreach(json_object_get(v, "data"), i, m) print_model(m);
    }
    json_decref(v);
    return status;
}

static int change(ash_cli *cli, const char *path)
{
    ash_buf body;
    json_t *v;
    ash_buf_init(&body, ASH_MAX_URL);
    ash_buf_adds(&body, "{\"model\":");
    ash_json_quote(&body, cli->args[0], strlen(cli->args[0]));
    ash_buf_adds(&body, "}");
    int status = call(cli, path, ash_buf_cstr(&body), NULL, &v);
    if (!status && cli->json) {
        json_dumpf(v, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(v);
    ash_buf_release(&body);
    return status;
}

int ash_cmd_load(ash_cli *cli)
{
    return change(cli, "/models/load");
}

int ash_cmd_unload(ash_cli *cli)
{
    return change(cli, "/models/unload");
}
