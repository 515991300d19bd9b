/* Owns the shape of errors and the mapping from library errors. Pure but for ash_errors_send. */
#include "api/errors.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

const char *ash_errors_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    case 500:
        return "server_error";
    case 501:
        return "not_supported_error";
    case 502:
        return "upstream_error";
    case 503:
        return "unavailable_error";
    default:
        return "invalid_request_error";
    }
}

int ash_errors_set(ash_api_error *e, int status, const char *code, const char *param,
                   const char *fmt, ...)
{
    *e = (ash_api_error){
        .status = status, .type = ash_errors_type(status), .code = code, .param = param};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
    return status;
}

static int status_of(int code)
{
    switch (code) {
    case ASH_EINVAL:
    case ASH_EFORMAT:
    case ASH_ELIMIT:
        return 400;
    case ASH_EAUTH:
        return 401;
    case ASH_ENOENT:
        return 404;
    case ASH_EUNSUPPORTED:
        return 501;
    case ASH_ENET:
        return 502;
    case ASH_ENOMEM:
    case ASH_EAGAIN:
    case ASH_ECANCELED:
    case ASH_ETIMEDOUT:
    case ASH_ENOSPC:
    case ASH_EDISK:
        return 503;
    default:
        return 500;
    }
}

static const char *quoted_field(const char *msg, ash_arena *a)
{
    const char *end = msg[0] == '\'' ? strchr(msg + 1, '\'') : NULL;
    return end && a ? ash_arena_strndup(a, msg + 1, (size_t)(end - msg - 1)) : NULL;
}

void ash_errors_from(ash_api_error *e, const ash_err *err, ash_arena *a)
{
    int status = status_of(err->code);
    ash_errors_set(e, status, NULL, quoted_field(err->msg, a), "%s", err->msg);
    if (err->code == ASH_ENOMEM) e->code = "out_of_memory";
    if (status == 503) e->retry_after = 1;
}

int ash_errors_manage(ash_api_error *e, const ash_err *err, ash_arena *a)
{
    if (err->code == ASH_EAUTH)
        return ash_errors_set(e, 403, "consent_needed", "confirm",
                              "%.400s Accept it with POST /models and \"confirm\":true", err->msg);
    ash_errors_from(e, err, a);
    e->param = "model"; /* the message may begin with a quoted id, which is no field */
    return e->status;
}

int ash_errors_crowded(ash_api_error *e)
{
    ash_errors_set(e, 503, "out_of_memory", NULL, "too many request bodies are being read at once");
    e->retry_after = 1;
    return e->status;
}

static void add_string(ash_buf *out, const char *key, const char *value)
{
    ash_buf_printf(out, ",\"%s\":", key);
    if (value)
        ash_json_quote(out, value, strlen(value));
    else
        ash_buf_adds(out, "null");
}

static void add_message(const ash_api_error *e, ash_buf *out)
{
    char message[sizeof e->message];
    snprintf(message, sizeof message, "%s", e->message);
    ash_log_redact(message);
    ash_json_quote(out, message, strlen(message));
}

int ash_errors_plain(const ash_api_error *e, ash_buf *out)
{
    ash_buf_adds(out, "{\"error\":");
    add_message(e, out);
    return ash_buf_addc(out, '}');
}

int ash_errors_body(const ash_api_error *e, ash_buf *out)
{
    ash_buf_adds(out, "{\"error\":{\"message\":");
    add_message(e, out);
    add_string(out, "type", e->type ? e->type : ash_errors_type(e->status));
    add_string(out, "code", e->code);
    add_string(out, "param", e->param);
    const char *key;
    json_t *value;
    json_object_foreach(e->extra, key, value)
    {
        ash_buf_addc(out, ',');
        ash_json_quote(out, key, strlen(key));
        ash_buf_addc(out, ':');
        ash_json_dump(value, out);
    }
    if (e->loading) {
        ash_buf_adds(out, ",\"loading\":");
        ash_json_dump(e->loading, out);
    }
    return ash_buf_adds(out, "}}");
}

/* What stays as it is until somebody changes the request, the configuration or the machine. */
static bool is_lasting(const ash_api_error *e)
{
    static const char *const codes[] = {"consent_needed",     "not_downloaded",     "download_paused",
                                        "does_not_fit",       "does_not_fit_disk",  "unsupported_format",
                                        "model_in_use",       "upstream_not_configured"};
    for (size_t i = 0; e->code && i < sizeof codes / sizeof *codes; i++)
        if (!strcmp(e->code, codes[i])) return true;
    return e->status == 501;
}

void ash_errors_send(ash_exchange *x, const ash_api_error *e)
{
    ash_buf body;
    ash_buf_init(&body, 1 << 20);
    if (e->retry_after > 0 || e->status == 503 || e->status == 429) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", e->retry_after > 0 ? e->retry_after : 1);
        ash_exchange_add_header(x, "Retry-After", seconds);
    }
    /* OpenAI's clients try each 409 and 5xx again, up to a minute later, unless this says not to. */
    if (is_lasting(e)) ash_exchange_add_header(x, "X-Should-Retry", "false");
    if (e->status == 401) ash_exchange_add_header(x, "WWW-Authenticate", "Bearer");
    bool ollama = !strncmp(ash_exchange_path(x), "/api/", 5);
    int rc = ollama ? ash_errors_plain(e, &body) : ash_errors_body(e, &body);
    if (rc) /* no memory for the text: the status still tells */
        ash_buf_release(&body);
    ash_exchange_respond(x, e->status, "application/json", &body);
    ash_buf_release(&body);
}
