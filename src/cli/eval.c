/* Owns the commands for people who check an engine: eval (logits, greedy ids) and perplexity. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/engine_open.h"

enum { MAX_IDS = 1 << 20 };

static int parse_ids(const char *text, ash_ids *ids, ash_err *err)
{
    int rc = 0;
    for (const char *p = text; !rc; p++) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || v < 0 || v > INT32_MAX)
            return ash_err_at(err, ASH_EINVAL, p - text, "--ids: expected token ids as 1,2,3");
        rc = ash_ids_add(ids, (int32_t)v, err);
        p = end;
        if (!*p) break;
    }
    return rc;
}

static int check_ids(const ash_ids *ids, const ash_engine *e, ash_err *err)
{
    uint32_t n_vocab = ash_engine_info(e)->n_vocab;
    for (size_t i = 0; i < ids->n; i++)
        if ((uint32_t)ids->p[i] >= n_vocab)
            return ash_err_set(err, ASH_EINVAL,
                               "--ids: %d is no id of this model's vocabulary of %u",
                               (int)ids->p[i], n_vocab);
    return 0;
}

static void print_row(const float *row, uint32_t n)
{
    putchar('[');
    for (uint32_t i = 0; i < n; i++) {
        if (isfinite(row[i]))
            printf(i ? ",%.9g" : "%.9g", (double)row[i]);
        else
            fputs(i ? ",null" : "null", stdout);
    }
    putchar(']');
}

static int print_logits(ash_engine *e, const ash_ids *ids, bool all, ash_err *err)
{
    uint32_t n_vocab = ash_engine_info(e)->n_vocab;
    size_t rows = all ? ids->n : 1;
    float *logits = calloc(rows, n_vocab * sizeof *logits);
    if (!logits) return ash_err_nomem(err, "logits");
    int rc = ash_engine_eval(e, ids->p, ids->n, all, logits, err);
    if (!rc) {
        printf("{\"n_vocab\":%u,\"logits\":[", n_vocab);
        for (size_t r = 0; r < rows; r++) {
            if (r) putchar(',');
            print_row(logits + r * n_vocab, n_vocab);
        }
        puts("]}");
    }
    free(logits);
    return rc;
}

/* What the scheduler's thread hands to the waiting main thread. */
typedef struct greedy_run {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    ash_ids ids;
    ash_err err;
    bool done;
} greedy_run;

static void on_event(void *user, const ash_event *ev)
{
    greedy_run *g = user;
    pthread_mutex_lock(&g->mutex);
    if (ev->kind == ASH_EVENT_TOKEN && ash_ids_add(&g->ids, ev->id, &g->err)) g->done = true;
    if (ev->kind == ASH_EVENT_DONE) {
        if (ev->finish == ASH_FINISH_ERROR) g->err = *ev->error;
        g->done = true;
    }
    pthread_cond_signal(&g->cond);
    pthread_mutex_unlock(&g->mutex);
}

static int greedy(ash_engine *e, const ash_ids *prompt, long n, ash_err *err)
{
    greedy_run g = {
        .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .err = ASH_ERR_INIT};
    uint64_t id;
    ash_job job = {.ids = prompt->p,
                   .n_ids = prompt->n,
                   .sampling = ash_sampler_params_default(),
                   .max_tokens = n,
                   .ignore_eos = true,
                   .on_event = on_event,
                   .user = &g};
    job.sampling.temperature = 0.0;
    int rc = n ? ash_engine_submit(e, &job, &id, err) : 0;
    pthread_mutex_lock(&g.mutex);
    while (!rc && n && !g.done) pthread_cond_wait(&g.cond, &g.mutex);
    pthread_mutex_unlock(&g.mutex);
    if (!rc && g.err.code) {
        *err = g.err;
        rc = g.err.code;
    }
    if (!rc && g.ids.n != (size_t)n)
        rc = ash_err_set(err, ASH_ELIMIT, "%zu of %ld tokens fit the context of %u", g.ids.n, n,
                         ash_engine_info(e)->n_ctx);
    if (!rc) {
        fputs("{\"ids\":[", stdout);
        for (size_t i = 0; i < prompt->n; i++) printf(i ? ",%d" : "%d", (int)prompt->p[i]);
        for (size_t i = 0; i < g.ids.n; i++) printf(",%d", (int)g.ids.p[i]);
        puts("]}");
    }
    ash_ids_release(&g.ids);
    return rc;
}

int ash_cmd_eval(ash_cli *cli)
{
    const char *list = ash_cli_get(cli, "ids");
    long n = -1;
    ash_ids ids = {.max = MAX_IDS};
    ash_err err = ASH_ERR_INIT;
    ash_engine *e = NULL;
    if (!list) return ash_cli_usage("eval needs --ids 1,2,3");
    int status = ash_cli_int(cli, "greedy", 0, MAX_IDS, &n);
    if (status) return status;
    if (parse_ids(list, &ids, &err)) {
        ash_ids_release(&ids);
        return ash_cli_fail(&err);
    }
    /* the context is what was asked for, even past the one that the model was trained on */
    ash_engine_opts o = {
        .bare = true, .max_sequences = 1, .ctx = (uint32_t)ids.n + (uint32_t)(n > 0 ? n : 0) + 1};
    status = ash_cli_engine(cli, cli->args[0], o, &e);
    if (!status) {
        int rc = check_ids(&ids, e, &err);
        if (!rc && n >= 0)
            rc = greedy(e, &ids, n, &err);
        else if (!rc)
            rc = print_logits(e, &ids, ash_cli_get(cli, "all") != NULL, &err);
        status = rc ? ash_cli_fail(&err) : 0;
    }
    ash_engine_close(e);
    ash_ids_release(&ids);
    return status;
}

/* -log softmax(row)[id] in nats. */
static double token_nll(const float *row, uint32_t n, int32_t id)
{
    double max = -HUGE_VAL, sum = 0.0;
    for (uint32_t i = 0; i < n; i++) max = fmax(max, (double)row[i]);
    for (uint32_t i = 0; i < n; i++) sum += exp((double)row[i] - max);
    return max + log(sum) - (double)row[id];
}

/* Windows that do not overlap; the first token of each is not scored, a last one of one id is
 * dropped. each [ids->n] gets the nats of every scored token, in their order. */
static int score(ash_engine *e, const ash_ids *ids, size_t window, size_t *tokens, double *each,
                 ash_err *err)
{
    uint32_t n_vocab = ash_engine_info(e)->n_vocab;
    float *logits = calloc(window, n_vocab * sizeof *logits);
    if (!logits) return ash_err_nomem(err, "logits of a window");
    int rc = 0;
    *tokens = 0;
    for (size_t at = 0; !rc && at < ids->n; at += window) {
        size_t n = ids->n - at < window ? ids->n - at : window;
        if (n < 2) break;
        rc = ash_engine_eval(e, ids->p + at, n, true, logits, err);
        for (size_t i = 0; !rc && i + 1 < n; i++)
            each[(*tokens)++] = token_nll(logits + i * n_vocab, n_vocab, ids->p[at + i + 1]);
        if (!rc && atomic_load(ash_cli_interrupt()))
            rc = ash_err_set(err, ASH_ECANCELED, "interrupted");
    }
    free(logits);
    return rc;
}

static void print_perplexity(const ash_cli *cli, const double *each, size_t tokens)
{
    double nll = 0.0;
    for (size_t i = 0; i < tokens; i++) nll += each[i];
    double ppl = exp(nll / (double)tokens);
    if (!cli->json) {
        printf("%zu tokens, %.4f nats a token, perplexity %.4f\n", tokens, nll / (double)tokens, ppl);
        return;
    }
    printf("{\"tokens\":%zu,\"nll\":%.9g,\"ppl\":%.9g", tokens, nll, ppl);
    if (ash_cli_get(cli, "all")) {
        for (size_t i = 0; i < tokens; i++) printf("%s%.7g", i ? "," : ",\"nats\":[", each[i]);
        printf("]");
    }
    printf("}\n");
}

int ash_cmd_perplexity(ash_cli *cli)
{
    long window = 512;
    ash_buf text;
    ash_ids ids = {.max = 1u << 28};
    ash_err err = ASH_ERR_INIT;
    ash_engine *e = NULL;
    size_t tokens = 0;
    double *each = NULL;
    int status = ash_cli_int(cli, "ctx", 2, 1 << 20, &window);
    if (status) return status;
    status = ash_cli_read(cli->args[1], ASH_MAX_TEXT, &text);
    if (!status)
        status = ash_cli_engine(cli, cli->args[0],
                                (ash_engine_opts){.max_sequences = 1, .ctx = (uint32_t)window}, &e);
    if (!status) {
        int rc = ash_tokenizer_encode(ash_engine_tokenizer(e), ash_buf_cstr(&text), text.len, 0,
                                      NULL, 0, &ids, &err);
        if (!rc && !(each = calloc(ids.n + 1, sizeof *each)))
            rc = ash_err_nomem(&err, "what each token takes");
        rc = rc ? rc : score(e, &ids, (size_t)window, &tokens, each, &err);
        if (!rc && !tokens)
            rc = ash_err_set(&err, ASH_EINVAL, "%s: fewer than two tokens to score", cli->args[1]);
        status = rc ? ash_cli_fail(&err) : 0;
    }
    if (!status)
        print_perplexity(cli, each, tokens);
    free(each);
    ash_engine_close(e);
    ash_ids_release(&ids);
    ash_buf_release(&text);
    return status;
}
