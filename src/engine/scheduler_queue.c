/* Owns who waits and who runs, and the KV blocks that they hold. Refuses nothing: what finds no memory waits,
 * or ends if there is nothing to wait for. The scheduler's thread. */
#include <string.h>

#include "engine/scheduler_private.h"

enum { BACKGROUND_TURN = 4 }; /* background rows join every so many steps beside chats */

/* ---- queue ---------------------------------------------------------------------------------- */

static bool before(const ash_sequence *a, const ash_sequence *b)
{
    return a->background != b->background ? !a->background : a->id < b->id;
}

void sched_wait(ash_scheduler *s, ash_sequence *q)
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

void sched_forget(ash_scheduler *s, const ash_sequence *q)
{
    for (uint32_t i = 0; i < s->n_running; i++)
        if (s->running[i] == q) {
            s->n_running--;
            memmove(&s->running[i], &s->running[i + 1], (s->n_running - i) * sizeof *s->running);
            return;
        }
}

/* The job's end, from wherever it was but a list of this thread. */
void sched_finish(ash_scheduler *s, ash_sequence *q, ash_finish why, const char *stop_string,
                  const ash_err *err)
{
    q->usage.prefilled_tokens = q->t_first || q->n_kv > q->n_prompt ? q->n_prompt : q->n_kv;
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

void sched_drop_canceled(ash_scheduler *s)
{
    for (ash_sequence **at = &s->waiting; *at;) {
        ash_sequence *q = *at;
        if (!atomic_load(&q->canceled)) {
            at = &q->next;
            continue;
        }
        *at = q->next;
        sched_finish(s, q, ASH_FINISH_CANCELED, NULL, NULL);
    }
    for (uint32_t i = 0; i < s->n_running;) {
        ash_sequence *q = s->running[i];
        if (!atomic_load(&q->canceled)) {
            i++;
            continue;
        }
        sched_forget(s, q);
        sched_finish(s, q, ASH_FINISH_CANCELED, NULL, NULL);
    }
}

/* ---- KV memory ------------------------------------------------------------------------------ */

/* Back to the queue, to be computed again. */
void sched_preempt(ash_scheduler *s, ash_sequence *q)
{
    sched_forget(s, q);
    if (!q->t_first)
        q->usage.cached_tokens = 0; /* counted anew when it starts again */
    q->looked_on_disk = false;
    give_blocks(s, q);
    sched_wait(s, q);
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
bool sched_have_blocks(ash_scheduler *s, ash_sequence *q, uint32_t tokens)
{
    while ((uint64_t)q->n_blocks * ASH_KV_TOKENS < tokens) {
        int32_t b = ash_prefix_cache_take(s->cache, q->background);
        if (b >= 0) {
            q->blocks[q->n_blocks++] = b;
            continue;
        }
        ash_sequence *v = victim_for(s, q);
        sched_preempt(s, v ? v : q);
        if (!v || v == q)
            return false;
    }
    return true;
}

/* Makes q's full blocks findable and goes on with the shared copy where there was one. */
void sched_publish(ash_scheduler *s, ash_sequence *q)
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
void sched_share(ash_scheduler *s, ash_sequence *q)
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
bool sched_takes_part(const ash_scheduler *s, const ash_sequence *q, bool chats)
{
    return !q->background || !chats || s->steps % BACKGROUND_TURN == 0;
}

/* A prompt whose next block an older sequence is just computing waits for it and shares the result. */
bool sched_follows(const ash_scheduler *s, const ash_sequence *q, uint32_t index, bool chats)
{
    uint32_t from = q->n_published * ASH_KV_TOKENS, to = from + ASH_KV_TOKENS;
    if (q->n_kv != from || q->n_ids <= to || to > shareable(s, q)) return false;
    for (uint32_t i = 0; i < index; i++) {
        const ash_sequence *o = s->running[i];
        if (o->n_published == q->n_published && o->n_ids >= to && to <= shareable(s, o) &&
            sched_takes_part(s, o, chats) &&
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
    if (q->n_kv != from || to <= from || sched_follows(s, q, s->n_running, chats))
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

uint32_t sched_blocks(uint32_t tokens)
{
    return (tokens + ASH_KV_TOKENS - 1) / ASH_KV_TOKENS;
}

/* Room for what is known of q and one token more; takes it from background work if q is a chat. A block
 * for each that runs is left, or the next of them to fill one would send q back at once. */
static bool claim_prompt(ash_scheduler *s, ash_sequence *q)
{
    sched_share(s, q);
    uint32_t want = sched_blocks(q->n_ids < q->max_ids ? q->n_ids + 1 : q->n_ids);
    while (ash_prefix_cache_room(s->cache, q->background) < want - q->n_blocks + s->n_running) {
        ash_sequence *v = NULL;
        for (uint32_t i = 0; i < s->n_running && !q->background; i++)
            if (s->running[i]->background)
                v = s->running[i];
        if (!v) {
            give_blocks(s, q);
            return false;
        }
        sched_preempt(s, v);
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
    sched_preempt(s, v);
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
        sched_finish(s, q, ASH_FINISH_ERROR, NULL, &err);
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
        ash_prefix_cache_room(s->cache, false) < sched_blocks(q->n_ids) + s->n_running)
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

void sched_start(ash_scheduler *s)
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
            sched_wait(s, q);                               /* or what is held is given back */
            break;
        }
        /* Nothing to wait for. A chat fits an empty pool, as that holds one context at least. */
        ash_err err;
        ash_err_set(&err, ASH_ENOSPC, "no KV memory for %u tokens beside the chats' prefixes", q->n_ids);
        sched_finish(s, q, ASH_FINISH_ERROR, NULL, &err);
    }
    while (later) {
        ash_sequence *q = later;
        later = q->next;
        sched_wait(s, q);
    }
    s->stuck = s->waiting && !s->n_running;
}
