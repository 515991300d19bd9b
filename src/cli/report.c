/* Owns the boot report's table: every step of the start and every preload entry with its times. */
#include "cli/report.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* What it is charged; the measurement's difference from the headers' figure, where there is one. */
static void print_memory(const json_t *m)
{
    const json_t *memory = json_object_get(m, "memory");
    double charged = json_number_value(json_object_get(memory, "charged"));
    double estimated = json_number_value(json_object_get(memory, "estimated"));
    const json_t *measured = json_object_get(memory, "measured");
    fprintf(stderr, "%.1f MB with full KV cache", charged * 1e-6);
    if (json_is_integer(measured) && estimated > 0.0)
        fprintf(stderr, " (measured; the headers say %+.1f %%)",
                (estimated / json_number_value(measured) - 1.0) * 100.0);
}

static void print_entry(const json_t *m)
{
    const json_t *error = json_object_get(m, "error"), *v;
    const char *key;
    fprintf(stderr, "  %-32s %-9s", text_of(m, "model"), text_of(m, "state"));
    if (json_is_object(error)) {
        fprintf(stderr, " %s\n", text_of(error, "message"));
        if (*text_of(error, "hint"))
            fprintf(stderr, "  %-32s %-9s %s\n", "", "", text_of(error, "hint"));
        return;
    }
    if (strcmp(text_of(m, "state"), "loaded")) {
        fputc('\n', stderr);
        return;
    }
    fprintf(stderr, " %7.0f ms  ", json_number_value(json_object_get(m, "load_ms")));
    print_memory(m);
    fputc(' ', stderr);
    json_object_foreach((json_t *)json_object_get(m, "stage_ms"), key, v)
        fprintf(stderr, " %s %.0f", key, json_number_value(v));
    fprintf(stderr, "%s\n", json_is_false(json_object_get(m, "warmed")) ? " (overtaken by a request)" : "");
    if (*text_of(m, "draft"))
        fprintf(stderr, "  %-32s %-9s draft model %s%s%s\n", "", "", text_of(m, "draft"),
                *text_of(m, "draft_refused") ? " does not guess: " : "", text_of(m, "draft_refused"));
}

void ash_report_print(const json_t *report, bool quiet)
{
    size_t i;
    json_t *v;
    if (quiet) return;
    fprintf(stderr, "boot report\n");
    json_array_foreach(json_object_get(report, "steps"), i, v)
        fprintf(stderr, "  %-32s %-9s %7.1f ms\n", text_of(v, "step"), "",
                json_number_value(json_object_get(v, "ms")));
    json_array_foreach(json_object_get(report, "models"), i, v) print_entry(v);
    const json_t *ms = json_object_get(report, "preload_ms");
    if (json_is_number(ms) && json_array_size(json_object_get(report, "models")))
        fprintf(stderr, "  %-32s %-9s %7.0f ms\n", "all preloads decided", "",
                json_number_value(ms));
    const json_t *memory = json_object_get(report, "memory");
    const json_t *budget = json_object_get(memory, "budget");
    if (json_is_integer(budget))
        fprintf(stderr, "  %-32s %-9s %.1f MB for models, of which %.1f are charged\n", "memory budget", "",
                json_number_value(budget) * 1e-6,
                json_number_value(json_object_get(memory, "charged")) * 1e-6);
    double asked = json_number_value(json_object_get(memory, "configured"));
    if (asked > json_number_value(budget) && !json_is_true(json_object_get(memory, "lowered")))
        fprintf(stderr, "  %-32s %-9s ASHLEY_MEMORY_BUDGET asks for %.1f MB, more than there is\n", "", "",
                asked * 1e-6);
    fprintf(stderr, "  %s, %.1f MB resident\n",
            json_is_true(json_object_get(report, "ready")) ? "ready" : "not ready",
            (double)json_integer_value(json_object_get(report, "resident_bytes")) * 1e-6);
}
