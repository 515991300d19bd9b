/* Owns the scheduler's thread, the queue, the running sequences and the KV block numbers. Refuses jobs
 * over ASH_MAX_QUEUE. The lock covers the inbox, the list of all jobs and the statistics; it is never
 * held over a forward or an event. */
#include "engine/scheduler.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/drafting.h"
#include "engine/kv_spill.h"

enum {
    BACKGROUND_TURN = 4,             /* background rows join every so many steps beside chats */
    OLDEST_PART = 4,                 /* the part of a step's prompt rows that the oldest prompt has */
    ROW_STEP = 8,                    /* prompts advance by multiples of this, as kernels like it */
    ROW_LEAST = 4,                   /* of all prompts, where steps without any are short */
};
#define STEP_BESIDE_NS 42000000ll    /* a step that holds running streams back */
static const float LEAST_CHANCE = 0.05f; /* guesses less likely are not thought about */
static const double WORTHWHILE = 1.02;   /* the gain from which on guesses are computed */
#define STEP_ALONE_NS 250000000ll    /* a step that only a cancel would wait for */

/* A call of ash_scheduler_call or, without fn, of ash_scheduler_eval, on its caller's stack. */
typedef struct call {
    ash_scheduler_fn fn;
    void *arg;
    const int32_t *ids;
    size_t n;
    bool all;
    float *logits;
    ash_err *err;
    int rc;
    bool done;
    struct call *next;
} call;

struct ash_scheduler {
    const ash_model *model;
    ash_run *run;
    float *logits;

    pthread_mutex_t lock;
    pthread_cond_t wake;     /* the thread has something to do */
    pthread_cond_t answered; /* a call is done */
    ash_sequence *inbox, **inbox_end; /* submitted, oldest first */
    ash_sequence *all;       /* every job that is not done yet */
    call *calls, **calls_end;
    uint64_t last_id;
    uint32_t n_all;
    bool stop;
    bool canceled;           /* some job was; look for it */
    bool turn;               /* the spill has something to do */
    ash_engine_stats stats;

    /* the thread's own */
    pthread_t thread;
    ash_prefix_cache *cache;
    ash_sequence *waiting;   /* chats before background, each oldest first */
    ash_sequence **running;  /* [max_sequences], oldest first */
    uint32_t n_running;
    bool beside_prompts;     /* this step computes prompts too */
    bool stuck;              /* all that wait do so for the spill, or for KV memory that a call holds */
    ash_kv_spill *spill;     /* owned, or NULL */
    uint64_t restoring;      /* the job that the spill brings blocks back for */
    int64_t step_ns;         /* of the last step */
    ash_batch_row *rows;     /* [max_rows] */
    ash_sequence **prompts;  /* [max_sequences], those that may have rows in this step */
    ash_sequence **drawn;    /* [max_sequences], those whose logits this step computes */
    int n_rows, n_drawn;
    int n_logits;            /* rows of logits that are given out */
    ash_prediction prediction;
    ash_drafting drafting;
    ash_pace pace;
    ash_pace_step plan;      /* what this step consists of */
    uint64_t steps;
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
    uint64_t guessed_tokens, right_tokens, drafted_tokens, drafted_right;
    int32_t *eval_blocks;    /* [blocks of n_ctx] */
};

/* ---- queue ---------------------------------------------------------------------------------- */

static bool before(const ash_sequence *a, const ash_sequence *b)
{
    return a->background != b->background ? !a->background : a->id < b->id;
}

static void wait_in_queue(ash_scheduler *s, ash_sequence *q)
{
    ash_sequence **at = &s->waiting;
    while (*at && before(*at, q)) at = &(*at)->next;
    q->next = *at;
    *at = q;
}

/* Tokens of q whose keys are the same in any text that begins so. */
static uint32_t shareable(const ash_scheduler *s, const ash_sequence *q)
{
    uint32_t fixed = ash_net_fixed(s->model->net);
    return q->n_prompt <= fixed ? fixed : 0;
}

static int32_t last_published(const ash_sequence *q)
{
    return q->n_published ? q->blocks[q->n_published - 1] : -1;
}

/* Gives q's blocks back; what they hold stays findable, the last, half full one's too. */
static void give_blocks(ash_scheduler *s, ash_sequence *q)
{
    uint32_t from = q->n_published * ASH_KV_TOKENS, to = q->n_kv < q->n_ids ? q->n_kv : q->n_ids;
    to = to < shareable(s, q) ? to : shareable(s, q);
    if (to > from && to - from < ASH_KV_TOKENS)
        ash_prefix_cache_publish_part(s->cache, last_published(q), q->blocks[q->n_published],
                                      q->ids + from, to - from, q->background);
    ash_prefix_cache_give(s->cache, q->blocks, q->n_blocks);
    q->n_blocks = q->n_published = q->n_kv = 0;
}

static void forget_running(ash_scheduler *s, const ash_sequence *q)
{
    for (uint32_t i = 0; i < s->n_running; i++)
        if (s->running[i] == q) {
            s->n_running--;
            memmove(&s->running[i], &s->running[i + 1], (s->n_running - i) * sizeof *s->running);
            return;
        }
}

/* The job's end, from wherever it was but a list of this thread. */
static void finish(ash_scheduler *s, ash_sequence *q, ash_finish why, const char *stop_string,
                   const ash_err *err)
{
    give_blocks(s, q);
    ash_sequence_finish(q, why, stop_string, err);
    s->completion_tokens += q->usage.completion_tokens;
    s->cached_tokens += q->usage.cached_tokens;
    pthread_mutex_lock(&s->lock);
    ash_sequence **at = &s->all;
    while (*at != q) at = &(*at)->all_next;
    *at = q->all_next;
    s->n_all--;
    pthread_mutex_unlock(&s->lock);
    ash_sequence_close(q);
}

static void drop_canceled(ash_scheduler *s)
{
    for (ash_sequence **at = &s->waiting; *at;) {
        ash_sequence *q = *at;
        if (!atomic_load(&q->canceled)) {
            at = &q->next;
            continue;
        }
        *at = q->next;
        finish(s, q, ASH_FINISH_CANCELED, NULL, NULL);
    }
    for (uint32_t i = 0; i < s->n_running;) {
        ash_sequence *q = s->running[i];
        if (!atomic_load(&q->canceled)) {
            i++;
            continue;
        }
        forget_running(s, q);
        finish(s, q, ASH_FINISH_CANCELED, NULL, NULL);
    }
}

/* ---- KV memory ------------------------------------------------------------------------------ */

/* Back to the queue, to be computed again. */
static void preempt(ash_scheduler *s, ash_sequence *q)
{
    forget_running(s, q);
    if (!q->t_first)
        q->usage.cached_tokens = 0; /* counted anew when it starts again */
    q->looked_on_disk = false;
    give_blocks(s, q);
    wait_in_queue(s, q);
}

/* Who gives way to q: the youngest in the background, else the youngest; nobody older than q gives way
 * to it but background work to a chat. May be q itself. */
static ash_sequence *victim_for(const ash_scheduler *s, const ash_sequence *q)
{
    ash_sequence *last = NULL;
    for (uint32_t i = 0; i < s->n_running; i++)
        if (!last || before(last, s->running[i]))
            last = s->running[i];
    return last && (last == q || before(q, last)) ? last : NULL;
}

/* Blocks for the first `tokens` positions of q; false if q itself had to give way. */
static bool have_blocks(ash_scheduler *s, ash_sequence *q, uint32_t tokens)
{
    while ((uint64_t)q->n_blocks * ASH_KV_TOKENS < tokens) {
        int32_t b = ash_prefix_cache_take(s->cache, q->background);
        if (b >= 0) {
            q->blocks[q->n_blocks++] = b;
            continue;
        }
        ash_sequence *v = victim_for(s, q);
        preempt(s, v ? v : q);
        if (!v || v == q)
            return false;
    }
    return true;
}

/* Makes q's full blocks findable and goes on with the shared copy where there was one. */
static void publish(ash_scheduler *s, ash_sequence *q)
{
    uint32_t most = q->n_kv < shareable(s, q) ? q->n_kv : shareable(s, q);
    while ((q->n_published + 1) * ASH_KV_TOKENS <= most) {
        uint32_t i = q->n_published++;
        q->blocks[i] = ash_prefix_cache_publish(s->cache, i ? q->blocks[i - 1] : -1, q->blocks[i],
                                                q->ids + (size_t)i * ASH_KV_TOKENS, q->background);
    }
}

/* What another sequence has computed of q's prompt since q started: q shares it. The last known token
 * is always computed, for its logits. */
static void share_prefix(ash_scheduler *s, ash_sequence *q)
{
    if (q->n_kv != q->n_published * ASH_KV_TOKENS)
        return;
    uint32_t tokens = q->n_ids - 1 < shareable(s, q) ? q->n_ids - 1 : shareable(s, q);
    uint32_t most = tokens / ASH_KV_TOKENS, had = q->n_published;
    if (most <= had)
        return;
    uint32_t n = ash_prefix_cache_extend(s->cache, last_published(q),
                                         q->ids + (size_t)had * ASH_KV_TOKENS, most - had,
                                         q->background, s->eval_blocks);
    for (uint32_t i = 0; i < n; i++) {
        if (had + i < q->n_blocks)
            ash_prefix_cache_give(s->cache, &q->blocks[had + i], 1);
        else
            q->n_blocks++;
        q->blocks[had + i] = s->eval_blocks[i];
    }
    q->n_published += n;
    q->n_kv = q->n_published * ASH_KV_TOKENS;
    if (!q->t_first)
        q->usage.cached_tokens += n * ASH_KV_TOKENS;
}

/* Whether q takes part: chats always do, background work beside them now and then. */
static bool takes_part(const ash_scheduler *s, const ash_sequence *q, bool chats)
{
    return !q->background || !chats || s->steps % BACKGROUND_TURN == 0;
}

/* A prompt whose next block an older sequence is just computing waits for it and shares the result. */
static bool follows_another(const ash_scheduler *s, const ash_sequence *q, uint32_t index,
                            bool chats)
{
    uint32_t from = q->n_published * ASH_KV_TOKENS, to = from + ASH_KV_TOKENS;
    if (q->n_kv != from || q->n_ids <= to || to > shareable(s, q)) return false;
    for (uint32_t i = 0; i < index; i++) {
        const ash_sequence *o = s->running[i];
        if (o->n_published == q->n_published && o->n_ids >= to && to <= shareable(s, o) &&
            takes_part(s, o, chats) &&
            (!from || o->blocks[q->n_published - 1] == q->blocks[q->n_published - 1]) &&
            !memcmp(o->ids + from, q->ids + from, ASH_KV_TOKENS * sizeof *q->ids))
            return true;
    }
    return false;
}

/* Starts q's next block as a published one starts: copies it, as q goes on in it. Where q could follow
 * another sequence it does that instead, and gets all of its prompt. */
static void share_part(ash_scheduler *s, ash_sequence *q)
{
    uint32_t from = q->n_published * ASH_KV_TOKENS, to = q->n_ids - 1;
    bool chats = !q->background;
    for (uint32_t i = 0; i < s->n_running; i++) chats |= !s->running[i]->background;
    to = to < shareable(s, q) ? to : shareable(s, q);
    if (q->n_kv != from || to <= from || follows_another(s, q, s->n_running, chats))
        return;
    int32_t other;
    uint32_t most = to - from < ASH_KV_TOKENS ? to - from : ASH_KV_TOKENS;
    uint32_t n = ash_prefix_cache_nearest(s->cache, last_published(q), q->ids + from, most,
                                          q->background, &other);
    if (!n)
        return;
    ash_kv_copy(s->run->kv, q->blocks[q->n_published], other);
    q->n_kv += n;
    if (!q->t_first)
        q->usage.cached_tokens += n;
}

/* ---- starting ------------------------------------------------------------------------------- */

static uint32_t blocks_for(uint32_t tokens)
{
    return (tokens + ASH_KV_TOKENS - 1) / ASH_KV_TOKENS;
}

/* Room for what is known of q and one token more; takes it from background work if q is a chat. A block
 * for each that runs is left, or the next of them to fill one would send q back at once. */
static bool claim_prompt(ash_scheduler *s, ash_sequence *q)
{
    share_prefix(s, q);
    uint32_t want = blocks_for(q->n_ids < q->max_ids ? q->n_ids + 1 : q->n_ids);
    while (ash_prefix_cache_room(s->cache, q->background) < want - q->n_blocks + s->n_running) {
        ash_sequence *v = NULL;
        for (uint32_t i = 0; i < s->n_running && !q->background; i++)
            if (s->running[i]->background)
                v = s->running[i];
        if (!v) {
            give_blocks(s, q);
            return false;
        }
        preempt(s, v);
    }
    while (q->n_blocks < want)
        q->blocks[q->n_blocks++] = ash_prefix_cache_take(s->cache, q->background);
    share_part(s, q);
    return true;
}

/* A place among the running, a background job's if need be. */
static bool claim_place(ash_scheduler *s, const ash_sequence *q)
{
    if (s->n_running < s->model->sizes.max_sequences)
        return true;
    ash_sequence *v = victim_for(s, q);
    if (q->background || !v || !v->background)
        return false;
    preempt(s, v);
    return true;
}

static void run_sequence(ash_scheduler *s, ash_sequence *q)
{
    uint32_t i = s->n_running++;
    for (; i > 0 && s->running[i - 1]->id > q->id; i--) s->running[i] = s->running[i - 1];
    s->running[i] = q;
}

/* First start of a job that holds its blocks. */
static void start(ash_scheduler *s, ash_sequence *q)
{
    ash_err err = ASH_ERR_INIT;
    s->prompt_tokens += q->n_prompt;
    if (ash_sequence_start(q, &err)) {
        finish(s, q, ASH_FINISH_ERROR, NULL, &err);
        return;
    }
    run_sequence(s, q);
    ash_sequence_progress(q);
}

/* Whether q waits for blocks from the disk; begins to bring them back if that is worth it now. */
static bool waits_for_disk(ash_scheduler *s, ash_sequence *q)
{
    bool restoring = ash_kv_spill_restoring(s->spill);
    if (restoring && q->id == s->restoring)
        return true;
    if (!s->spill || q->looked_on_disk || q->background ||
        ash_prefix_cache_room(s->cache, false) < blocks_for(q->n_ids) + s->n_running)
        return false;
    uint32_t n = q->n_ids - 1 < shareable(s, q) ? q->n_ids - 1 : shareable(s, q);
    q->looked_on_disk = !ash_kv_spill_has(s->spill, q->ids, n);
    if (q->looked_on_disk || restoring)
        return !q->looked_on_disk;
    q->looked_on_disk = true;
    s->restoring = q->id;
    ash_kv_spill_restore(s->spill, q->ids, n);
    return ash_kv_spill_restoring(s->spill);
}

static void start_waiting(ash_scheduler *s)
{
    ash_sequence *later = NULL;
    while (s->waiting) {
        ash_sequence *q = s->waiting;
        s->waiting = q->next; /* a preempted one may be queued while q is tried */
        if (waits_for_disk(s, q)) {
            q->next = later;
            later = q;
            continue;
        }
        if (claim_place(s, q) && claim_prompt(s, q)) {
            if (q->started)
                run_sequence(s, q);
            else
                start(s, q);
            continue;
        }
        if (s->n_running || ash_prefix_cache_used(s->cache)) { /* its turn comes when one of them ends, */
            wait_in_queue(s, q);                               /* or what is held is given back */
            break;
        }
        /* Nothing to wait for. A chat fits an empty pool, as that holds one context at least. */
        ash_err err;
        ash_err_set(&err, ASH_ENOSPC, "no KV memory for %u tokens beside the chats' prefixes", q->n_ids);
        finish(s, q, ASH_FINISH_ERROR, NULL, &err);
    }
    while (later) {
        ash_sequence *q = later;
        later = q->next;
        wait_in_queue(s, q);
    }
    s->stuck = s->waiting && !s->n_running;
}

/* ---- a step --------------------------------------------------------------------------------- */

static uint32_t rows_left(const ash_sequence *q)
{
    return q->n_ids - q->n_kv;
}

/* n of q's tokens, and its guesses if those are the last. */
static void add_rows(ash_scheduler *s, ash_sequence *q, uint32_t n)
{
    bool draws = n == rows_left(q) && q->n_ids < q->max_ids;
    q->rows = n + q->n_guesses;
    for (uint32_t i = 0; i < q->rows; i++)
        s->rows[s->n_rows++] = (ash_batch_row){.token = q->ids[q->n_kv + i],
                                               .pos = (int32_t)(q->n_kv + i),
                                               .table = q->blocks,
                                               .wants_logits = draws && i >= n - 1,
                                               .text = (int32_t)q->n_prompt};
    q->logits = NULL;
    if (draws) {
        q->logits = s->logits + s->n_logits * s->model->net->hp.n_vocab;
        s->n_logits += 1 + (int)q->n_guesses;
        s->drawn[s->n_drawn++] = q;
    }
}

static bool is_prompt(const ash_scheduler *s, uint32_t i, bool chats)
{
    const ash_sequence *q = s->running[i];
    return !q->rows && takes_part(s, q, chats) && !follows_another(s, q, i, chats);
}

/* Rows that `prompts` prompts may have in this step; they go on at a mean position of `place`. */
static int prompt_budget(const ash_scheduler *s, int prompts, int64_t place)
{
    const ash_pace *p = &s->pace;
    int most = s->model->sizes.max_rows - s->n_rows, decoding = s->plan.decoding;
    int64_t ns = s->n_rows ? STEP_BESIDE_NS - (int64_t)(s->plan.guesses * p->row_ns) : STEP_ALONE_NS;
    int rows = ash_pace_rows(p, decoding, ns, prompts, place, ROW_STEP, most), least = ROW_STEP;
    if (rows < ROW_STEP && decoding && ash_pace_plain_ns(p, decoding) < STEP_BESIDE_NS / 4) {
        rows = ash_pace_rows(p, decoding, ns, prompts, place, ROW_LEAST, most);
        least = ROW_LEAST;
    }
    rows = rows < least ? least : rows;
    return rows < most ? rows : most;
}

/* The prompts that may have rows in this step, oldest first, into s->prompts; how many. */
static int find_prompts(ash_scheduler *s, bool chats)
{
    int n = 0;
    for (uint32_t i = 0; i < s->n_running; i++) share_prefix(s, s->running[i]);
    for (uint32_t i = 0; i < s->n_running; i++)
        if (is_prompt(s, i, chats))
            s->prompts[n++] = s->running[i];
    return n;
}

/* The index of the prompt with fewest rows to go that has none yet. */
static int shortest_prompt(const ash_scheduler *s, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!s->prompts[i]->rows && (best < 0 || rows_left(s->prompts[i]) < rows_left(s->prompts[best])))
            best = i;
    return best;
}

/* Shares the budget between the prompts: who needs least comes first, so that short requests do not wait
 * for long ones; a part is kept for the oldest, so that they do not hold it up for ever. */
static void add_prompts(ash_scheduler *s, bool chats)
{
    int prompts = find_prompts(s, chats);
    int64_t places = 0;
    if (!prompts)
        return;
    for (int i = 0; i < prompts; i++) places += s->prompts[i]->n_kv;
    int left = prompt_budget(s, prompts, places / prompts), kept = (left + OLDEST_PART - 1) / OLDEST_PART;
    for (int i; left > 0 && (i = shortest_prompt(s, prompts)) >= 0;) {
        ash_sequence *q = s->prompts[i];
        if (!i)
            kept = 0;
        int n = left - kept;
        n = rows_left(q) < (uint32_t)n ? (int)rows_left(q) : n;
        if (n < 1) { /* all that is left is the oldest's */
            q = s->prompts[0];
            n = rows_left(q) < (uint32_t)left ? (int)rows_left(q) : left;
            kept = 0;
        }
        add_rows(s, q, (uint32_t)n);
        s->plan.prompt_rows += n;
        s->plan.places += (int64_t)n * q->n_kv + (int64_t)n * (n - 1) / 2;
        left -= n;
    }
}

/* Whether q may have one guess more: a place for its keys that nobody has to leave, and a token after it. */
static bool has_room(ash_scheduler *s, ash_sequence *q)
{
    uint32_t tokens = q->n_ids + q->n_guesses + 1;
    if (tokens >= q->max_ids)
        return false;
    if (blocks_for(tokens) > q->n_blocks &&
        ash_prefix_cache_room(s->cache, q->background) > s->n_running)
        q->blocks[q->n_blocks++] = ash_prefix_cache_take(s->cache, q->background);
    return blocks_for(tokens) <= q->n_blocks;
}

/* Of those that decode the one whose next guess is most likely right; NULL if none is worth a thought. */
static ash_sequence *likeliest(ash_scheduler *s)
{
    for (;;) {
        ash_sequence *best = NULL;
        for (uint32_t i = 0; i < s->n_running; i++)
            if (!best || s->running[i]->chance > best->chance)
                best = s->running[i];
        if (!best || best->chance < LEAST_CHANCE)
            return NULL;
        if (has_room(s, best))
            return best;
        best->chance = 0;
    }
}

/* What a step with so many guesses, which makes `tokens` in the mean, is worth: tokens in the time that it
 * takes without any. Beside prompts, which take most of the time, a guess is worth its row if it is
 * rather right than wrong: the last one was so with a chance of `last`. */
static double worth(const ash_scheduler *s, bool prompts, int guesses, double tokens, double last)
{
    if (s->prediction == ASH_PREDICTION_ALWAYS)
        return 2 * tokens;
    if (prompts)
        return last >= 0.5 ? 2 * tokens : 0;
    double longer = ash_pace_guessing(&s->pace, s->plan.decoding, guesses);
    return longer > 0 ? tokens / longer : 0;
}

/* How likely q's guess after `ahead` others is right if those are. */
static float chance_of(const ash_sequence *q, uint32_t ahead)
{
    const ash_drafted *g = &q->drafted;
    return !g->n ? ash_draft_chance(&q->draft, ahead) : ahead < g->n ? g->chances[ahead] : 0;
}

/* Counts who decodes in this step, and asks the draft model for them if there are few and no prompts. */
static void find_decoding(ash_scheduler *s, bool chats)
{
    ash_sequence *few[ASH_DRAFT_SLOTS];
    bool prompts = false;
    for (uint32_t i = 0; i < s->n_running; i++) {
        ash_sequence *q = s->running[i];
        bool joins = takes_part(s, q, chats), decodes = joins && rows_left(q) == 1;
        if (decodes && s->plan.decoding < ASH_DRAFT_SLOTS)
            few[s->plan.decoding] = q;
        s->plan.decoding += decodes;
        prompts |= joins && !decodes;
        q->decodes = decodes;
        q->drafted.n = 0;
    }
    s->beside_prompts = prompts;
    ash_drafting_guess(&s->drafting, &s->pace, few,
                       prompts || s->plan.decoding > ASH_DRAFT_SLOTS ? 0 : s->plan.decoding);
}

/* Gives guesses to those that decode, the likeliest first: as many as make most tokens a second. */
static void give_guesses(ash_scheduler *s, bool chats)
{
    ash_sequence *order[ASH_MAX_DRAFT];
    int given = 0, best = 0;
    find_decoding(s, chats);
    for (uint32_t i = 0; i < s->n_running; i++) {
        ash_sequence *q = s->running[i];
        q->n_guesses = 0;
        q->chance = q->decodes && s->prediction != ASH_PREDICTION_NEVER ? chance_of(q, 0) : 0;
    }
    double tokens = s->plan.decoding, most = tokens * WORTHWHILE;
    for (ash_sequence *q; given < ASH_MAX_DRAFT && (q = likeliest(s));) {
        double last = (double)q->chance;
        order[given++] = q;
        tokens += last;
        q->n_guesses++;
        q->chance *= chance_of(q, q->n_guesses);
        double w = worth(s, s->beside_prompts, given, tokens, last);
        if (w > most) {
            most = w;
            best = given;
        }
    }
    s->plan.guesses = best;
    while (given > best) order[--given]->n_guesses--;
    for (uint32_t i = 0; i < s->n_running; i++) {
        ash_sequence *q = s->running[i];
        if (q->drafted.n)
            memcpy(q->ids + q->n_ids, q->drafted.ids, q->n_guesses * sizeof *q->ids);
        else if (q->n_guesses)
            ash_draft_guess(&q->draft, q->ids, q->n_guesses);
    }
}

/* Lays out the batch: first who decodes, with what is guessed to follow, then prompts. */
static void plan_step(ash_scheduler *s)
{
    bool chats = false;
    s->n_rows = s->n_drawn = s->n_logits = 0;
    s->plan = (ash_pace_step){0};
    for (uint32_t i = 0; i < s->n_running; i++) {
        s->running[i]->rows = 0;
        chats |= !s->running[i]->background;
    }
    /* Preempting changes the list: all blocks first. Older ones first, so that who gives way is still
     * to come, or is background work, which then is not laid out below. */
    for (uint32_t i = 0; i < s->n_running;) {
        ash_sequence *q = s->running[i];
        uint32_t n = s->n_running;
        if (have_blocks(s, q, q->n_kv + (rows_left(q) == 1)) && s->n_running == n)
            i++;
        else
            i = 0; /* someone gave way: look again, those served already cost nothing */
    }
    give_guesses(s, chats);
    for (uint32_t i = 0; i < s->n_running; i++)
        if (rows_left(s->running[i]) == 1 && takes_part(s, s->running[i], chats))
            add_rows(s, s->running[i], 1);
    add_prompts(s, chats);
}

static void draw_range(void *arg, int64_t begin, int64_t end, int worker)
{
    ash_scheduler *s = arg;
    for (int64_t i = begin; i < end; i++) ash_sequence_draw(s->drawn[i]);
}

/* After the forward: tokens out, ends. */
static void settle(ash_scheduler *s, ash_sequence *q)
{
    const char *stop_string = NULL;
    ash_finish why = ASH_FINISH_NONE;
    bool prefill = !q->t_first;
    uint32_t right = q->logits && q->n_samples ? q->n_samples - 1 : 0;
    s->guessed_tokens += q->n_guesses;
    s->right_tokens += right;
    if (q->drafted.n) {
        s->drafted_tokens += q->n_guesses;
        s->drafted_right += right;
    }
    q->n_kv += q->rows - q->n_guesses + right; /* keys of wrong guesses are written over */
    publish(s, q);
    if (prefill)
        ash_sequence_progress(q);
    for (uint32_t i = 0; q->logits && i < q->n_samples && why == ASH_FINISH_NONE; i++)
        why = ash_sequence_take(q, &q->samples[i], &stop_string);
    if (why == ASH_FINISH_NONE && q->logits && q->sample_rc)
        why = ASH_FINISH_ERROR;
    else if (why == ASH_FINISH_NONE && !q->logits && !rows_left(q))
        why = ASH_FINISH_LENGTH; /* a prefill was all that was asked */
    if (why == ASH_FINISH_NONE)
        return;
    ash_err err = q->err;
    forget_running(s, q);
    finish(s, q, why, stop_string, why == ASH_FINISH_ERROR ? &err : NULL);
}

/* Weights that were mapped are gone: nothing that runs can be right, nor its keys and values. */
static void fail_running(ash_scheduler *s)
{
    ash_err err = ASH_ERR_INIT;
    ash_err_set(&err, ASH_EIO, "the pack file was damaged while it was in use: load the model again");
    while (s->n_running) {
        ash_sequence *q = s->running[s->n_running - 1];
        forget_running(s, q);
        finish(s, q, ASH_FINISH_ERROR, NULL, &err);
    }
}

static void step(ash_scheduler *s)
{
    plan_step(s);
    s->steps++;
    if (!s->n_rows)
        return;
    int64_t t = ash_clock_ns();
    const ash_batch batch = {.rows = s->rows, .n = s->n_rows, .logits = s->logits};
    s->model->net->arch->forward(s->model->net, s->run, &batch);
    if (ash_packs_lost(s->model->packs)) {
        fail_running(s);
        return;
    }
    ash_pool_run(s->run->nn->pool, s->n_drawn, 1, draw_range, s);
    s->step_ns = ash_clock_ns() - t;
    ash_pace_note(&s->pace, &s->plan, s->step_ns);
    ash_drafting_learn(&s->drafting, &s->pace, &s->plan, s->drawn, s->n_drawn);
    for (uint32_t i = 0; i < s->n_running;) {
        ash_sequence *q = s->running[i];
        if (q->rows)
            settle(s, q);
        if (i < s->n_running && s->running[i] == q)
            i++;
    }
}

/* ---- calls ---------------------------------------------------------------------------------- */

static int run_eval(ash_scheduler *s, const call *e)
{
    uint32_t want = blocks_for((uint32_t)e->n);
    while (s->n_running && ash_prefix_cache_room(s->cache, false) < want)
        preempt(s, s->running[s->n_running - 1]); /* an empty pool holds one context at least */
    if (ash_prefix_cache_room(s->cache, false) < want)
        return ash_err_set(e->err, ASH_EAGAIN, "KV memory is held for a moment");
    for (uint32_t i = 0; i < want; i++) s->eval_blocks[i] = ash_prefix_cache_take(s->cache, false);
    float *out = e->logits;
    for (size_t at = 0; at < e->n;) {
        size_t n = e->n - at, most = (size_t)s->model->sizes.max_rows;
        n = n < most ? n : most;
        for (size_t i = 0; i < n; i++)
            s->rows[i] = (ash_batch_row){.token = e->ids[at + i],
                                         .pos = (int32_t)(at + i),
                                         .table = s->eval_blocks,
                                         .wants_logits = e->all || at + i == e->n - 1,
                                         .text = (int32_t)e->n};
        const ash_batch batch = {.rows = s->rows, .n = (int)n, .logits = out};
        s->model->net->arch->forward(s->model->net, s->run, &batch);
        if (e->all)
            out += (int64_t)n * s->model->net->hp.n_vocab;
        at += n;
    }
    ash_prefix_cache_give(s->cache, s->eval_blocks, want);
    if (ash_packs_lost(s->model->packs))
        return ash_err_set(e->err, ASH_EIO, "the pack file was damaged while it was in use");
    return 0;
}

/* ---- thread --------------------------------------------------------------------------------- */

static void answer(ash_scheduler *s, call *e, int rc)
{
    pthread_mutex_lock(&s->lock);
    e->rc = rc;
    e->done = true;
    pthread_cond_broadcast(&s->answered);
    pthread_mutex_unlock(&s->lock);
}

static void note_stats(ash_scheduler *s, bool turn)
{
    uint64_t completion = s->completion_tokens;
    for (uint32_t i = 0; i < s->n_running; i++) completion += s->running[i]->usage.completion_tokens;
    uint32_t waiting = 0;
    for (ash_sequence *q = s->waiting; q; q = q->next) {
        completion += q->usage.completion_tokens;
        waiting++;
    }
    pthread_mutex_lock(&s->lock);
    s->stats.running = s->n_running;
    s->stats.queued = waiting;
    s->stats.kv_blocks_used = ash_prefix_cache_used(s->cache);
    s->stats.kv_blocks_cached = ash_prefix_cache_cached(s->cache);
    s->stats.prompt_tokens = s->prompt_tokens;
    s->stats.cached_tokens = s->cached_tokens;
    s->stats.completion_tokens = completion;
    s->stats.guessed_tokens = s->guessed_tokens;
    s->stats.right_tokens = s->right_tokens;
    s->stats.drafted_tokens = s->drafted_tokens;
    s->stats.drafted_right = s->drafted_right;
    s->stats.last_step_ns = ash_clock_ns();
    s->turn |= turn;
    pthread_mutex_unlock(&s->lock);
}

/* Waits for work; what came in is the thread's from here on. False at the end. */
static bool take_work(ash_scheduler *s, call **calls)
{
    pthread_mutex_lock(&s->lock);
    while (!s->stop && !s->inbox && !s->calls && !s->canceled && !s->turn &&
           (!s->waiting || s->stuck) && !s->n_running)
        pthread_cond_wait(&s->wake, &s->lock);
    ash_sequence *in = s->inbox;
    s->inbox = NULL;
    s->inbox_end = &s->inbox;
    *calls = s->calls;
    s->calls = NULL;
    s->calls_end = &s->calls;
    bool stop = s->stop, canceled = s->canceled;
    s->canceled = s->turn = false;
    pthread_mutex_unlock(&s->lock);
    while (in) {
        ash_sequence *next = in->next;
        wait_in_queue(s, in);
        in = next;
    }
    if (canceled || stop) {
        if (stop)
            for (ash_sequence *q = s->all; q; q = q->all_next) atomic_store(&q->canceled, true);
        drop_canceled(s);
    }
    return !stop;
}

static void *thread_main(void *arg)
{
    ash_scheduler *s = arg;
    call *calls;
    while (take_work(s, &calls)) {
        while (calls) {
            call *e = calls;
            calls = e->next; /* e is gone once it is answered */
            answer(s, e, e->fn ? e->fn(s->cache, s->run->kv, e->arg, e->err) : run_eval(s, e));
        }
        ash_kv_spill_turn(s->spill, s->n_running ? s->step_ns : STEP_BESIDE_NS);
        start_waiting(s);
        bool steps = s->n_running;
        if (steps)
            step(s);
        note_stats(s, steps && s->spill);
    }
    while (calls) {
        call *e = calls;
        calls = e->next;
        answer(s, e, ash_err_set(e->err, ASH_ECANCELED, "the engine was closed"));
    }
    return NULL;
}

/* ---- public --------------------------------------------------------------------------------- */

static int reserve(ash_scheduler *s, ash_err *err)
{
    const ash_sizes *z = &s->model->sizes;
    s->running = calloc(z->max_sequences, sizeof *s->running);
    s->drawn = calloc(z->max_sequences, sizeof *s->drawn);
    s->prompts = calloc(z->max_sequences, sizeof *s->prompts);
    s->rows = calloc((size_t)z->max_rows, sizeof *s->rows);
    s->eval_blocks = calloc(blocks_for(z->n_ctx), sizeof *s->eval_blocks);
    if (!s->running || !s->drawn || !s->prompts || !s->rows || !s->eval_blocks)
        return ash_err_nomem(err, "scheduler");
    return ash_prefix_cache_open((uint32_t)z->kv_blocks, ASH_KV_TOKENS, &s->cache, err);
}

static void release(ash_scheduler *s)
{
    ash_kv_spill_close(s->spill);
    ash_prefix_cache_close(s->cache);
    free(s->running);
    free(s->drawn);
    free(s->prompts);
    free(s->rows);
    free(s->eval_blocks);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    pthread_cond_destroy(&s->answered);
    free(s);
}

int ash_scheduler_open(const ash_model *m, ash_run *run, float *logits, ash_prediction prediction,
                       ash_draft_model *draft, int64_t row_ns, ash_scheduler **out, ash_err *err)
{
    *out = NULL;
    ash_scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return ash_err_nomem(err, "scheduler");
    s->model = m;
    s->run = run;
    s->logits = logits;
    s->prediction = prediction;
    ash_pace_init(&s->pace, row_ns);
    ash_drafting_init(&s->drafting, draft, prediction == ASH_PREDICTION_ALWAYS);
    s->inbox_end = &s->inbox;
    s->calls_end = &s->calls;
    s->stats.kv_blocks = (uint32_t)m->sizes.kv_blocks;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    pthread_cond_init(&s->answered, NULL);
    int rc = reserve(s, err);
    if (!rc && pthread_create(&s->thread, NULL, thread_main, s))
        rc = ash_err_nomem(err, "the scheduler's thread");
    if (rc) {
        release(s);
        return rc;
    }
    *out = s;
    return 0;
}

void ash_scheduler_close(ash_scheduler *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    release(s);
}

int ash_scheduler_submit(ash_scheduler *s, const ash_job *job, uint64_t *id, ash_err *err)
{
    ash_sequence *q;
    int rc = ash_sequence_open(s->model, job, &q, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&s->lock);
    if (s->stop)
        rc = ash_err_set(err, ASH_ECANCELED, "the engine is closing");
    else if (s->n_all >= ASH_MAX_QUEUE)
        rc = ash_err_set(err, ASH_EAGAIN, "%u jobs wait or run already", s->n_all);
    if (!rc) {
        *id = q->id = ++s->last_id;
        *s->inbox_end = q;
        s->inbox_end = &q->next;
        q->all_next = s->all;
        s->all = q;
        s->n_all++;
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    if (rc)
        ash_sequence_close(q);
    return rc;
}

void ash_scheduler_cancel(ash_scheduler *s, uint64_t id)
{
    pthread_mutex_lock(&s->lock);
    for (ash_sequence *q = s->all; q; q = q->all_next)
        if (q->id == id) {
            atomic_store(&q->canceled, true);
            s->canceled = true;
            pthread_cond_signal(&s->wake);
            break;
        }
    pthread_mutex_unlock(&s->lock);
}

/* Has the thread answer c, and waits for that. */
static int make_call(ash_scheduler *s, call *c)
{
    pthread_mutex_lock(&s->lock);
    if (s->stop) {
        pthread_mutex_unlock(&s->lock);
        return ash_err_set(c->err, ASH_ECANCELED, "the engine is closing");
    }
    *s->calls_end = c;
    s->calls_end = &c->next;
    pthread_cond_signal(&s->wake);
    while (!c->done) pthread_cond_wait(&s->answered, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return c->rc;
}

int ash_scheduler_call(ash_scheduler *s, ash_scheduler_fn fn, void *arg, ash_err *err)
{
    return make_call(s, &(call){.fn = fn, .arg = arg, .err = err});
}

static void disk_is_done(void *user)
{
    ash_scheduler *s = user;
    pthread_mutex_lock(&s->lock);
    s->turn = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

typedef struct spilling {
    ash_scheduler *scheduler;
    ash_kv_slots *store;
} spilling;

static int begin_spilling(ash_prefix_cache *cache, ash_kv *kv, void *arg, ash_err *err)
{
    spilling *p = arg;
    ash_kv_slots *store = p->store;
    p->store = NULL;
    return ash_kv_spill_open(store, cache, kv, p->scheduler->model->sizes.n_ctx, &p->scheduler->spill, err);
}

int ash_scheduler_spill(ash_scheduler *s, ash_kv_slots *store, ash_err *err)
{
    spilling p = {s, store};
    ash_kv_slots_on_done(store, disk_is_done, s);
    int rc = ash_scheduler_call(s, begin_spilling, &p, err);
    ash_kv_slots_close(p.store); /* the scheduler was closing */
    return rc;
}

int ash_scheduler_eval(ash_scheduler *s, const int32_t *ids, size_t n, bool all, float *logits,
                       ash_err *err)
{
    int64_t n_vocab = s->model->net->hp.n_vocab;
    if (n < 1 || n > s->model->sizes.n_ctx)
        return ash_err_set(err, ASH_ELIMIT, "the prompt does not fit the context: n_prompt %zu, n_ctx %u",
                           n, s->model->sizes.n_ctx);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= n_vocab)
            return ash_err_set(err, ASH_EINVAL, "id %d at %zu of the prompt; the vocabulary has %lld",
                               ids[i], i, (long long)n_vocab);
    return make_call(s, &(call){.ids = ids, .n = n, .all = all, .logits = logits, .err = err});
}

void ash_scheduler_stats(const ash_scheduler *s, ash_engine_stats *out)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&s->lock;
    pthread_mutex_lock(lock);
    *out = s->stats;
    for (const ash_sequence *q = s->inbox; q; q = q->next) out->queued++;
    pthread_mutex_unlock(lock);
}
