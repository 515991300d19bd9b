/* Owns the choice of a step's rows: a token of each running text, parts of prompts beside them, and guesses
 * where they pay. Refuses nothing. The scheduler's thread. */
#include <string.h>

#include "engine/scheduler_private.h"

enum {
    OLDEST_PART = 4, /* the part of a step's prompt rows that the oldest prompt has */
    ROW_STEP = 8,    /* prompts advance by multiples of this, as kernels like it */
    ROW_LEAST = 4,   /* of all prompts, where steps without any are short */
};
static const float LEAST_CHANCE = 0.05f; /* guesses less likely are not thought about */
static const double WORTHWHILE = 1.02;   /* the gain from which on guesses are computed */

uint32_t sched_rows_left(const ash_sequence *q)
{
    return q->n_ids - q->n_kv;
}

/* n of q's tokens, and its guesses if those are the last. */
static void add_rows(ash_scheduler *s, ash_sequence *q, uint32_t n)
{
    bool draws = n == sched_rows_left(q) && q->n_ids < q->max_ids;
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
    return !q->rows && sched_takes_part(s, q, chats) && !sched_follows(s, q, i, chats);
}

/* Rows that `prompts` prompts may have in this step; they go on at a mean position of `place`. */
static int prompt_budget(const ash_scheduler *s, int prompts, int64_t place)
{
    const ash_pace *p = &s->pace;
    int most = s->model->sizes.max_rows - s->n_rows, decoding = s->plan.decoding;
    if (!s->n_rows)
        return ash_pace_rows_alone(p, prompts, place, ROW_STEP, most);
    int64_t ns = STEP_BESIDE_NS - (int64_t)(s->plan.guesses * p->row_ns);
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
    for (uint32_t i = 0; i < s->n_running; i++) sched_share(s, s->running[i]);
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
        if (!s->prompts[i]->rows &&
            (best < 0 || sched_rows_left(s->prompts[i]) < sched_rows_left(s->prompts[best])))
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
        n = sched_rows_left(q) < (uint32_t)n ? (int)sched_rows_left(q) : n;
        if (n < 1) { /* all that is left is the oldest's */
            q = s->prompts[0];
            n = sched_rows_left(q) < (uint32_t)left ? (int)sched_rows_left(q) : left;
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
    if (sched_blocks(tokens) > q->n_blocks &&
        ash_prefix_cache_room(s->cache, q->background) > s->n_running)
        q->blocks[q->n_blocks++] = ash_prefix_cache_take(s->cache, q->background);
    return sched_blocks(tokens) <= q->n_blocks;
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
        bool joins = sched_takes_part(s, q, chats), decodes = joins && sched_rows_left(q) == 1;
        if (decodes && s->plan.decoding < ASH_DRAFT_SLOTS)
            few[s->plan.decoding] = q;
        s->plan.decoding += decodes;
        prompts |= joins && !decodes;
        q->decodes = decodes;
        q->drafted.n = 0;
    }
    s->beside_prompts = prompts;
    ash_drafting_guess(&s->drafting, &s->pace, &s->allowance, few,
                       prompts || s->plan.decoding > ASH_DRAFT_SLOTS ? 0 : s->plan.decoding);
}

/* Whether what so many guesses, of all that decode, may cost is covered: each text's share by its account,
 * all of it by that of all texts. */
static bool is_covered(const ash_scheduler *s, int guesses)
{
    if (s->prediction == ASH_PREDICTION_ALWAYS || !guesses)
        return true;
    double cost = ash_pace_cost(&s->pace, s->plan.decoding, guesses, s->beside_prompts) * s->plan.decoding;
    if (cost > s->allowance.balance)
        return false;
    for (uint32_t i = 0; i < s->n_running; i++) {
        const ash_sequence *q = s->running[i];
        if (q->n_guesses &&
            cost * q->n_guesses / guesses >
                ash_allowance_left(&s->allowance, &q->allowance, q->max_ids - q->n_ids, true))
            return false;
    }
    return true;
}

/* Gives guesses to those that decode, the likeliest first: as many as make most tokens a second, and no more
 * than may be lost. */
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
    while (given > best) order[--given]->n_guesses--;
    for (; !is_covered(s, best); best--) order[best - 1]->n_guesses--;
    s->plan.guesses = best;
    for (uint32_t i = 0; i < s->n_running; i++) {
        ash_sequence *q = s->running[i];
        if (q->drafted.n)
            memcpy(q->ids + q->n_ids, q->drafted.ids, q->n_guesses * sizeof *q->ids);
        else if (q->n_guesses)
            ash_draft_guess(&q->draft, q->ids, q->n_guesses);
    }
}

/* Lays out the batch: first who decodes, with what is guessed to follow, then prompts. */
void sched_plan(ash_scheduler *s)
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
        if (sched_have_blocks(s, q, q->n_kv + (sched_rows_left(q) == 1)) && s->n_running == n)
            i++;
        else
            i = 0; /* someone gave way: look again, those served already cost nothing */
    }
    give_guesses(s, chats);
    for (uint32_t i = 0; i < s->n_running; i++)
        if (sched_rows_left(s->running[i]) == 1 && sched_takes_part(s, s->running[i], chats))
            add_rows(s, s->running[i], 1);
    add_prompts(s, chats);
}
