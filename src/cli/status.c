/* Owns the words in which a model's progress is told in one line. */
#include "cli/status.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "config/value.h"

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static uint64_t bytes_of(const json_t *o, const char *key)
{
    double v = json_number_value(json_object_get(o, key));
    return v > 0.0 && v < 9e18 ? (uint64_t)v : 0;
}

/* "1.3 h", "3 min", "12 s". */
static void time_left(double s, char out[32])
{
    if (s >= 3600.0)
        snprintf(out, 32, "%.1f h", s / 3600.0);
    else if (s >= 120.0)
        snprintf(out, 32, "%.0f min", s / 60.0);
    else
        snprintf(out, 32, "%.0f s", s);
}

void ash_cli_status_progress(const json_t *p, char *out, size_t size)
{
    char done[16], total[16], rate[16], left[32] = "", speed[64] = "";
    const json_t *eta = json_object_get(p, "eta_seconds");
    const char *waits = text_of(p, "waits"), *stage = text_of(p, "stage");
    if (!*stage) {
        snprintf(out, size, "%s", *waits ? waits : "waits for its turn");
        return;
    }
    ash_value_show_bytes(bytes_of(p, "bytes_done"), done);
    ash_value_show_bytes(bytes_of(p, "bytes_total"), total);
    ash_value_show_bytes(bytes_of(p, "bytes_per_second"), rate);
    double part = json_number_value(json_object_get(p, "progress")); /* of all stages */
    bool fetching = !strcmp(stage, "fetch") && bytes_of(p, "bytes_total");
    if (fetching) part = (double)bytes_of(p, "bytes_done") / (double)bytes_of(p, "bytes_total");
    if (fetching) snprintf(speed, sizeof speed, ", %s of %s, %s/s", done, total, rate);
    if (json_is_number(eta)) time_left(json_number_value(eta), left);
    snprintf(out, size, "%s %.0f %%%s%s%s%s", stage, 100.0 * part, speed,
             json_is_number(json_object_get(p, "stalled_since")) ? ", stalled" : "", *left ? ", " : "",
             left);
    if (*left) snprintf(out + strlen(out), size - strlen(out), " left");
    if (*waits) snprintf(out + strlen(out), size - strlen(out), ", waits %s", waits);
}

static void add(char out[ASH_CLI_STATUS], const char *id, const char *what)
{
    size_t n = strlen(out);
    snprintf(out + n, ASH_CLI_STATUS - n, "%s%.80s%s%s", n ? "; " : "", id, *id ? ": " : "", what);
}

void ash_cli_status_line(const json_t *list, char out[ASH_CLI_STATUS])
{
    size_t loaded = 0, failed = 0, waiting = 0, i;
    char text[160];
    const json_t *p;
    out[0] = 0;
    json_array_foreach(list, i, p)
    {
        const char *state = text_of(p, "state");
        bool busy = !strcmp(state, "downloading") || !strcmp(state, "loading");
        loaded += !strcmp(state, "loaded");
        failed += !strcmp(state, "failed") && json_is_true(json_object_get(p, "preload"));
        waiting += busy && !*text_of(p, "stage");
        if (!busy || !*text_of(p, "stage")) continue;
        ash_cli_status_progress(p, text, sizeof text);
        add(out, text_of(p, "model"), text);
    }
    snprintf(text, sizeof text, "%zu loaded", loaded);
    if (waiting) snprintf(text + strlen(text), sizeof text - strlen(text), ", %zu waiting", waiting);
    if (failed)
        snprintf(text + strlen(text), sizeof text - strlen(text), ", %zu of the preload failed", failed);
    if (json_array_size(list)) add(out, "", text);
    for (char *c = out; *c; c++)
        if (iscntrl((unsigned char)*c)) *c = '?'; /* a line break would begin another assignment */
}
