/* Owns one job's state. Refuses prompts that do not fit, ids outside the vocabulary and sampling
 * parameters out of range. See the header for threads. */
#include "engine/sequence.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { MAX_TEXT = 1 << 20 }; /* bytes that one token may add; far beyond any */

static int check_ids(const ash_model *m, const ash_job *job, ash_err *err)
{
    if (!job->ids || job->n_ids < 1)
        return ash_err_set(err, ASH_EINVAL, "the prompt is empty");
    uint64_t n_ctx = m->sizes.n_ctx;
    if (job->n_ids > n_ctx || (job->n_ids == n_ctx && job->max_tokens != 0))
        return ash_err_set(err, ASH_ELIMIT,
                           "the prompt does not fit the context: n_prompt %zu, n_ctx %llu", job->n_ids,
                           (unsigned long long)n_ctx);
    for (size_t i = 0; i < job->n_ids; i++)
        if (job->ids[i] < 0 || job->ids[i] >= m->net->hp.n_vocab)
            return ash_err_set(err, ASH_EINVAL, "id %d at %zu of the prompt; the vocabulary has %lld",
                               job->ids[i], i, (long long)m->net->hp.n_vocab);
    return 0;
}

static int copy_ids(ash_sequence *s, const ash_job *job, ash_err *err)
{
    uint32_t left = s->model->sizes.n_ctx - (uint32_t)job->n_ids;
    uint32_t more = job->max_tokens < 0 || job->max_tokens > left ? left : (uint32_t)job->max_tokens;
    s->n_prompt = s->n_ids = (uint32_t)job->n_ids;
    s->max_ids = s->n_prompt + more;
    s->max_blocks = (s->max_ids + ASH_KV_TOKENS - 1) / ASH_KV_TOKENS;
    s->ids = malloc(s->max_ids * sizeof *s->ids);
    s->blocks = malloc(s->max_blocks * sizeof *s->blocks);
    if (!s->ids || !s->blocks)
        return ash_err_nomem(err, "tokens of a job");
    memcpy(s->ids, job->ids, job->n_ids * sizeof *s->ids);
    return 0;
}

static int copy_sampling(ash_sequence *s, const ash_job *job, ash_err *err)
{
    s->sampling = job->sampling;
    s->sampling.logit_bias = NULL;
    s->sampling.logprobs |= job->want_logprobs;
    int rc = ash_sampler_check(&job->sampling, err);
    rc = rc ? rc : ash_sampler_check_ids(&job->sampling, s->model->n_usable, err);
    if (rc || !job->sampling.n_logit_bias)
        return rc;
    size_t bytes = job->sampling.n_logit_bias * sizeof *job->sampling.logit_bias;
    ash_logit_bias *copy = malloc(bytes);
    if (!copy)
        return ash_err_nomem(err, "logit bias");
    memcpy(copy, job->sampling.logit_bias, bytes);
    s->sampling.logit_bias = copy;
    return 0;
}

static int copy_stops(ash_sequence *s, const ash_job *job, ash_err *err)
{
    if (job->n_stops > ASH_MAX_STOPS)
        return ash_err_set(err, ASH_ELIMIT, "%zu stop strings; at most %d", job->n_stops, ASH_MAX_STOPS);
    ash_str views[ASH_MAX_STOPS];
    size_t bytes = 1;
    for (size_t i = 0; i < job->n_stops; i++) {
        views[i] = ash_str_from(job->stops[i]);
        bytes += views[i].n + 1;
    }
    int rc = ash_stop_open(views, job->n_stops, &s->stop, err);
    if (rc)
        return rc;
    char *at = s->stop_text = malloc(bytes);
    if (!at)
        return ash_err_nomem(err, "stop strings");
    for (size_t i = 0; i < job->n_stops; i++) {
        memcpy(at, views[i].p, views[i].n);
        at[views[i].n] = 0;
        s->stops[i] = at;
        at += views[i].n + 1;
    }
    return 0;
}

int ash_sequence_open(const ash_model *m, const ash_job *job, ash_sequence **out, ash_err *err)
{
    *out = NULL;
    int rc = check_ids(m, job, err);
    if (rc)
        return rc;
    ash_sequence *s = calloc(1, sizeof *s);
    if (!s)
        return ash_err_nomem(err, "job");
    s->model = m;
    s->on_event = job->on_event;
    s->user = job->user;
    s->ignore_eos = job->ignore_eos;
    s->want_logprobs = job->want_logprobs || job->sampling.logprobs;
    s->want_progress = job->want_progress;
    s->background = job->background;
    s->skip_special = job->skip_special;
    ash_buf_init(&s->piece, MAX_TEXT);
    ash_buf_init(&s->text, MAX_TEXT);
    s->t_submit = ash_clock_ns();
    if ((rc = copy_ids(s, job, err)) || (rc = copy_sampling(s, job, err)) ||
        (rc = copy_stops(s, job, err))) {
        ash_sequence_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void ash_sequence_close(ash_sequence *s)
{
    if (!s)
        return;
    ash_sampler_close(s->sampler);
    ash_draft_release(&s->draft);
    ash_stop_close(s->stop);
    ash_buf_release(&s->piece);
    ash_buf_release(&s->text);
    free((void *)s->sampling.logit_bias);
    free(s->stop_text);
    free(s->ids);
    free(s->blocks);
    free(s);
}

static void tell(ash_sequence *s, ash_event *ev)
{
    if (s->on_event)
        s->on_event(s->user, ev);
}

int ash_sequence_start(ash_sequence *s, ash_err *err)
{
    const ash_model *m = s->model;
    int rc = 0;
    if (s->max_ids > s->n_prompt) {
        rc = ash_sampler_open(&s->sampling, m->net->hp.n_vocab, m->n_usable, &s->sampler, err);
        for (uint32_t i = 0; i < s->n_prompt && !rc; i++) ash_sampler_accept(s->sampler, s->ids[i]);
        if (!rc)
            rc = ash_draft_init(&s->draft, s->max_ids, err);
        if (!rc)
            ash_draft_follow(&s->draft, s->ids, s->n_prompt, false);
    }
    if (rc)
        return rc;
    ash_detok_init(&s->detok, m->tokenizer,
                   ASH_DETOK_CONTINUE | (s->skip_special ? 0 : ASH_DETOK_SPECIAL));
    /* A byte that is no text becomes U+FFFD, three bytes; a stop may let go all it held. */
    size_t most = 3 * m->max_piece + 16;
    if (!ash_buf_reserve(&s->piece, most) ||
        !ash_buf_reserve(&s->text, most + ASH_MAX_STOP_BYTES))
        return ash_err_nomem(err, "text of a job");
    s->started = true;
    s->t_start = ash_clock_ns();
    s->usage.prompt_tokens = s->n_prompt;
    tell(s, &(ash_event){.kind = ASH_EVENT_STARTED});
    return 0;
}

void ash_sequence_progress(ash_sequence *s)
{
    if (s->want_progress)
        tell(s, &(ash_event){.kind = ASH_EVENT_PROGRESS,
                             .total = s->n_prompt,
                             .cached = s->usage.cached_tokens,
                             .processed = s->n_kv < s->n_prompt ? s->n_kv : s->n_prompt});
}

void ash_sequence_draw(ash_sequence *s)
{
    int64_t n_vocab = s->model->net->hp.n_vocab;
    s->err = ASH_ERR_INIT;
    for (s->n_samples = 0; s->n_samples <= s->n_guesses;) {
        uint32_t i = s->n_samples;
        s->sample_rc = ash_sampler_sample(s->sampler, s->logits + i * n_vocab, &s->samples[i], &s->err);
        if (s->sample_rc)
            return;
        ash_sampler_accept(s->sampler, s->samples[i].id);
        s->n_samples++;
        if (i < s->n_guesses && s->samples[i].id != s->ids[s->n_ids + i])
            return;
    }
}

/* s->piece -> s->text; the stop that ended in it, or -1. */
static int push_text(ash_sequence *s)
{
    int hit = -1;
    ash_buf_clear(&s->text);
    if (ash_stop_push(s->stop, s->piece.data, s->piece.len, &s->text, &hit))
        ash_buf_clear(&s->text);
    return hit;
}

ash_finish ash_sequence_take(ash_sequence *s, const ash_sample *sample, const char **stop_string)
{
    int32_t id = sample->id;
    const ash_tokenizer *t = s->model->tokenizer;
    *stop_string = NULL;
    if (!s->t_first)
        s->t_first = ash_clock_ns();
    s->usage.completion_tokens++;
    if (t && !s->ignore_eos && ash_tokenizer_is_eog(t, id))
        return ASH_FINISH_STOP;
    s->ids[s->n_ids++] = id;
    ash_draft_follow(&s->draft, s->ids, s->n_ids, true);
    ash_buf_clear(&s->piece);
    if (t && ash_detok_push(&s->detok, id, &s->piece))
        ash_buf_clear(&s->piece);
    int hit = push_text(s);
    tell(s, &(ash_event){.kind = ASH_EVENT_TOKEN,
                         .text = {ash_buf_cstr(&s->text), s->text.len},
                         .id = id,
                         .sample = s->want_logprobs ? sample : NULL});
    if (hit >= 0) {
        *stop_string = s->stops[hit];
        return ASH_FINISH_STOP;
    }
    return s->n_ids == s->max_ids ? ASH_FINISH_LENGTH : ASH_FINISH_NONE;
}

static double ms_between(int64_t from, int64_t to)
{
    return (double)(to - from) / 1e6;
}

void ash_sequence_finish(ash_sequence *s, ash_finish why, const char *stop_string, const ash_err *err)
{
    int64_t now = ash_clock_ns();
    ash_usage *u = &s->usage;
    u->prompt_tokens = s->n_prompt;
    u->queue_ms = ms_between(s->t_submit, s->started ? s->t_start : now);
    if (s->started)
        u->prefill_ms = ms_between(s->t_start, s->t_first ? s->t_first : now);
    if (s->t_first)
        u->decode_ms = ms_between(s->t_first, now);
    ash_buf_clear(&s->text);
    if (s->started && !stop_string) {
        ash_buf_clear(&s->piece);
        int hit = -1;
        if (!s->model->tokenizer || ash_detok_flush(&s->detok, &s->piece))
            ash_buf_clear(&s->piece);
        hit = push_text(s);
        if (hit < 0 && ash_stop_flush(s->stop, &s->text))
            ash_buf_clear(&s->text);
        if (hit >= 0) {
            stop_string = s->stops[hit];
            why = why == ASH_FINISH_LENGTH ? ASH_FINISH_STOP : why;
        }
    }
    tell(s, &(ash_event){.kind = ASH_EVENT_DONE,
                         .text = {ash_buf_cstr(&s->text), s->text.len},
                         .finish = why,
                         .stop_string = stop_string,
                         .usage = u,
                         .error = err});
}
