/* Owns the counters behind /metrics and their text. Names follow interfaces.md; units are seconds
 * and bytes, as Prometheus asks. Bounded: a fixed table of (route, status) pairs. */
#include "api/metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { MAX_COUNTS = 256, N_BOUNDS = 14 };

static const double bounds[N_BOUNDS] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                        1,     2.5,  5,     10,   30,  60,   300};

typedef struct histogram {
    uint64_t buckets[N_BOUNDS + 1];
    uint64_t count;
    double sum;
} histogram;

typedef struct request_count {
    const char *route;
    int status;
    uint64_t n;
} request_count;

struct ash_metrics {
    pthread_mutex_t mutex;
    request_count counts[MAX_COUNTS];
    int n_counts;
    histogram duration, first_token;
    double started;
};

ash_metrics *ash_metrics_open(void)
{
    ash_metrics *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    pthread_mutex_init(&m->mutex, NULL);
    m->started = ash_clock_wall();
    return m;
}

void ash_metrics_close(ash_metrics *m)
{
    if (!m) return;
    pthread_mutex_destroy(&m->mutex);
    free(m);
}

static void observe(histogram *h, double seconds)
{
    int i = 0;
    while (i < N_BOUNDS && seconds > bounds[i]) i++;
    h->buckets[i]++;
    h->count++;
    h->sum += seconds;
}

static request_count *count_of(ash_metrics *m, const char *route, int status)
{
    for (int i = 0; i < m->n_counts; i++)
        if (m->counts[i].status == status && !strcmp(m->counts[i].route, route))
            return &m->counts[i];
    if (m->n_counts == MAX_COUNTS - 1 && strcmp(route, "other") != 0)
        return count_of(m, "other", 0);
    if (m->n_counts == MAX_COUNTS) return &m->counts[MAX_COUNTS - 1];
    m->counts[m->n_counts] = (request_count){route, status, 0};
    return &m->counts[m->n_counts++];
}

void ash_metrics_request(ash_metrics *m, const char *route, int status, double seconds)
{
    pthread_mutex_lock(&m->mutex);
    count_of(m, route, status ? status : 499)->n++;
    observe(&m->duration, seconds);
    pthread_mutex_unlock(&m->mutex);
}

void ash_metrics_first_token(ash_metrics *m, double seconds)
{
    pthread_mutex_lock(&m->mutex);
    observe(&m->first_token, seconds);
    pthread_mutex_unlock(&m->mutex);
}

/* ---- text ---- */

static void head(ash_buf *out, const char *name, const char *type, const char *help)
{
    ash_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_histogram(ash_buf *out, const char *name, const char *help, const histogram *h)
{
    uint64_t below = 0;
    head(out, name, "histogram", help);
    for (int i = 0; i < N_BOUNDS; i++) {
        below += h->buckets[i];
        ash_buf_printf(out, "%s_bucket{le=\"%g\"} %llu\n", name, bounds[i],
                       (unsigned long long)below);
    }
    ash_buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name,
                   (unsigned long long)h->count, name, h->sum, name, (unsigned long long)h->count);
}

static void write_own(ash_metrics *m, const ash_token_counts *tokens, ash_buf *out)
{
    head(out, "ashley_requests_total", "counter", "HTTP requests by route and status.");
    for (int i = 0; i < m->n_counts; i++)
        ash_buf_printf(out, "ashley_requests_total{route=\"%s\",status=\"%d\"} %llu\n",
                       m->counts[i].route, m->counts[i].status, (unsigned long long)m->counts[i].n);
    write_histogram(out, "ashley_request_duration_seconds", "From headers in to answer out.",
                    &m->duration);
    write_histogram(out, "ashley_time_to_first_token_seconds",
                    "From headers in to the first token.", &m->first_token);
    head(out, "ashley_tokens_total", "counter",
         "Tokens of local answers by kind, also of those that were left.");
    ash_buf_printf(
        out,
        "ashley_tokens_total{kind=\"prompt\"} %llu\nashley_tokens_total{kind=\"cached\"} "
        "%llu\nashley_tokens_total{kind=\"completion\"} %llu\n",
        (unsigned long long)tokens->prompt, (unsigned long long)tokens->cached,
        (unsigned long long)tokens->completion);
    head(out, "ashley_start_time_seconds", "gauge", "Unix time of the start.");
    ash_buf_printf(out, "ashley_start_time_seconds %.3f\n", m->started);
    head(out, "ashley_build_info", "gauge", "The version that runs.");
    ash_buf_adds(out, "ashley_build_info{version=\"" ASHLEY_VERSION "\"} 1\n");
}

/* Label values: backslash, quote and line break are escaped. */
static void label(ash_buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            ash_buf_adds(out, "\\n");
        else if (*text == '"' || *text == '\\')
            ash_buf_printf(out, "\\%c", *text);
        else
            ash_buf_addc(out, *text);
    }
}

static void write_states(const json_t *list, ash_buf *out)
{
    size_t i;
    const json_t *p;
    head(out, "ashley_model_state", "gauge", "1 for the state a model is in.");
    json_array_foreach(list, i, p)
    {
        const char *id = json_string_value(json_object_get(p, "model"));
        const char *state = json_string_value(json_object_get(p, "state"));
        for (int s = ASH_MODEL_UNLOADED; id && state && s <= ASH_MODEL_FAILED; s++) {
            const char *name = ash_model_state_name((ash_model_state)s);
            ash_buf_adds(out, "ashley_model_state{model=\"");
            label(out, id);
            ash_buf_printf(out, "\",state=\"%s\"} %d\n", name, !strcmp(name, state));
        }
    }
}

typedef struct engine_lines {
    ash_buf bytes, running, queue, kv, guesses, experts;
} engine_lines;

static void line(ash_buf *out, const char *name, const char *id, const char *kind, uint64_t n)
{
    ash_buf_printf(out, "%s{model=\"", name);
    label(out, id);
    if (kind) ash_buf_printf(out, "\",kind=\"%s", kind);
    ash_buf_printf(out, "\"} %llu\n", (unsigned long long)n);
}

static void add_engine(void *user, const char *id, ash_engine *e)
{
    engine_lines *l = user;
    const ash_model_info *info = ash_engine_info(e);
    ash_engine_stats s = {0};
    ash_engine_get_stats(e, &s);
    line(&l->bytes, "ashley_model_bytes", id, "weights", info->weight_bytes);
    line(&l->bytes, "ashley_model_bytes", id, "kv", info->kv_bytes);
    line(&l->bytes, "ashley_model_bytes", id, "scratch", info->scratch_bytes);
    line(&l->bytes, "ashley_model_bytes", id, "draft", info->draft_bytes);
    line(&l->bytes, "ashley_model_bytes", id, "untouched", ash_engine_untouched(e));
    line(&l->running, "ashley_running", id, NULL, s.running);
    line(&l->queue, "ashley_queue_length", id, NULL, s.queued);
    line(&l->kv, "ashley_kv_blocks", id, "total", s.kv_blocks);
    line(&l->kv, "ashley_kv_blocks", id, "used", s.kv_blocks_used);
    line(&l->kv, "ashley_kv_blocks", id, "cached", s.kv_blocks_cached);
    line(&l->kv, "ashley_kv_blocks", id, "resident", s.kv_blocks_resident);
    line(&l->guesses, "ashley_guessed_tokens", id, "computed", s.guessed_tokens);
    line(&l->guesses, "ashley_guessed_tokens", id, "right", s.right_tokens);
    line(&l->guesses, "ashley_guessed_tokens", id, "drafted", s.drafted_tokens);
    line(&l->guesses, "ashley_guessed_tokens", id, "drafted_right", s.drafted_right);
    line(&l->experts, "ashley_experts_total", id, "chosen", s.experts_chosen);
    line(&l->experts, "ashley_experts_total", id, "found", s.experts_found);
}

static void write_engines(ash_manager *manager, ash_buf *out)
{
    engine_lines l;
    struct {
        ash_buf *lines;
        const char *name, *help;
    } all[] = {
        {&l.bytes, "ashley_model_bytes",
         "Memory of a loaded model by kind; untouched: what of it is not taken now."},
        {&l.running, "ashley_running", "Answers being computed."},
        {&l.queue, "ashley_queue_length", "Answers waiting for their turn."},
        {&l.kv, "ashley_kv_blocks", "Blocks of the KV pool by kind."},
        {&l.experts, "ashley_experts_total", "Experts of a mixture larger than memory: chosen, found there."},
        {&l.guesses, "ashley_guessed_tokens",
         "Guessed tokens since the load: computed, and right; of these by a draft model."},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) ash_buf_init(all[i].lines, 1 << 20);
    ash_manager_each(manager, add_engine, &l);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        head(out, all[i].name, "gauge", all[i].help);
        ash_buf_add(out, all[i].lines->data, all[i].lines->len);
        ash_buf_release(all[i].lines);
    }
}

int ash_metrics_write(ash_metrics *m, ash_provider *local, ash_manager *manager, int answering,
                      ash_buf *out)
{
    ash_token_counts tokens = {0};
    if (local->counts) local->counts(local, &tokens);
    pthread_mutex_lock(&m->mutex);
    write_own(m, &tokens, out);
    pthread_mutex_unlock(&m->mutex);
    head(out, "ashley_answering", "gauge", "Requests being answered, waiting ones included.");
    ash_buf_printf(out, "ashley_answering %d\n", answering);
    json_t *list = ash_manager_list(manager);
    write_states(list, out);
    json_decref(list);
    write_engines(manager, out);
    return out->failed;
}
