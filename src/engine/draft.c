/* Owns the n-gram index of one sequence's tokens. Refuses nothing; collisions in the index lose old
 * places, never give wrong agreements: ids are compared. One thread at a time. */
#include "engine/draft.h"

#include <stdlib.h>
#include <string.h>

/* Lengths of the n-grams that are indexed. A place found by the long one is more often right. */
enum { SHORT = 2, LONG = 4 };
enum { MIN_ENTRIES = 256, MAX_ENTRIES = 1 << 16, MOST_AGREED = 64 };

/* Where counting starts, by level, as if from so many guesses: careful, as to wait costs less than to be
 * wrong. Then the mean of all, and when there are many of the last ones. */
static const float first_right[ASH_DRAFT_LEVELS] = {0, 0.1f, 0.15f, 0.25f, 0.4f, 0.5f, 0.7f, 0.85f};
enum { FIRST_GUESSES = 4, LAST_GUESSES = 24 };

static int level_of(uint32_t agreed)
{
    if (agreed < 4)
        return (int)agreed;
    return agreed < 6 ? 4 : agreed < 10 ? 5 : agreed < 20 ? 6 : 7;
}

int ash_draft_init(ash_draft *d, uint32_t max_ids, ash_err *err)
{
    uint32_t entries = MIN_ENTRIES;
    while (entries < MAX_ENTRIES && entries < 2ull * max_ids) entries *= 2;
    *d = (ash_draft){.mask = entries - 1};
    memcpy(d->right, first_right, sizeof d->right);
    memset(d->seen, FIRST_GUESSES, sizeof d->seen);
    d->table = calloc(entries, sizeof *d->table);
    return d->table ? 0 : ash_err_nomem(err, "the index of a job's tokens");
}

void ash_draft_release(ash_draft *d)
{
    free(d->table);
    d->table = NULL;
}

/* The entry of the n-gram that ends before `end`. */
static uint32_t *entry_of(const ash_draft *d, const int32_t *end, uint32_t n)
{
    uint64_t h = n;
    for (uint32_t i = 1; i <= n; i++) h = (h ^ (uint32_t)end[-(int64_t)i]) * 0x9E3779B97F4A7C15u;
    return &d->table[(h ^ h >> 32) & d->mask];
}

/* How many tokens before `place` equal the last ones of ids[0..n). */
static uint32_t agreement(const int32_t *ids, uint32_t place, uint32_t n)
{
    uint32_t k = 0;
    while (k < place && k < MOST_AGREED && ids[place - 1 - k] == ids[n - 1 - k]) k++;
    return k;
}

/* Looks the last `gram` tokens up, then enters them. */
static void look_up(ash_draft *d, const int32_t *ids, uint32_t gram)
{
    if (d->n < gram)
        return;
    uint32_t *entry = entry_of(d, ids + d->n, gram), place = *entry;
    *entry = d->n;
    if (!place || place == d->n || d->agreed >= LONG) /* n: the other length's, just entered */
        return;
    uint32_t agreed = agreement(ids, place, d->n);
    if (agreed >= gram && agreed > d->agreed) {
        d->place = place;
        d->agreed = agreed;
    }
}

static void count(ash_draft *d, int level, bool right)
{
    if (d->seen[level] < LAST_GUESSES)
        d->seen[level]++;
    d->right[level] += ((right ? 1.0f : 0.0f) - d->right[level]) / d->seen[level];
}

void ash_draft_follow(ash_draft *d, const int32_t *ids, uint32_t n, bool learn)
{
    while (d->n < n) {
        if (d->place) {
            bool right = ids[d->place] == ids[d->n];
            if (learn)
                count(d, level_of(d->agreed), right);
            d->place = right ? d->place + 1 : 0;
            d->agreed = right ? d->agreed + 1 : 0;
        }
        d->n++;
        look_up(d, ids, LONG);
        look_up(d, ids, SHORT);
    }
}

float ash_draft_chance(const ash_draft *d, uint32_t ahead)
{
    return d->place ? d->right[level_of(d->agreed + ahead)] : 0;
}

void ash_draft_guess(const ash_draft *d, int32_t *ids, uint32_t k)
{
    /* One by one, forwards: a guess may go on from guesses, where a text repeats itself closely. */
    for (uint32_t i = 0; i < k; i++) ids[d->n + i] = ids[d->place + i];
}
