/* Prediction by look-up: guesses how a text goes on from where its last tokens stood before in it.
 *
 * An index of n-grams finds the latest place in the text (prompt and answer) that its last tokens were
 * at, and what followed there is the guess; while guesses come true the place moves along, so that a
 * repeated passage is followed to its end. How often guesses come true is counted for every length of
 * agreement, also of those that nobody computed: to know whether guessing pays costs nothing.
 *
 * A guess is only ever a guess: the caller computes it beside the text and keeps what it would have
 * sampled anyway (Leviathan et al. 2023; look-up as in Saxena 2023).
 *
 * One thread at a time. Nothing is allocated after init. */
#ifndef ASHLEY_ENGINE_DRAFT_H
#define ASHLEY_ENGINE_DRAFT_H

#include "base/err.h"
#include "base/limits.h"

enum { ASH_DRAFT_LEVELS = 8 };

typedef struct ash_draft {
    uint32_t *table;   /* owned: hash of an n-gram -> the position behind it; 0: none */
    uint32_t mask;     /* entries - 1 */
    uint32_t n;        /* ids that are indexed */
    uint32_t place;    /* ids[place] is the guess for ids[n]; 0: no guess */
    uint32_t agreed;   /* ids before `place` known to equal the last ones */
    float right[ASH_DRAFT_LEVELS]; /* smoothed: how often a guess of this agreement came true */
    uint8_t seen[ASH_DRAFT_LEVELS]; /* guesses that `right` rests on, so far as they matter */
} ash_draft;

/* How often guesses of a draft model come true (engine/drafting.h). */
typedef struct ash_draft_odds {
    float right[ASH_DRAFT_LEVELS]; /* smoothed, by how sure the model was */
    float mean;                    /* of all */
    uint8_t seen[ASH_DRAFT_LEVELS], n_seen; /* guesses that these rest on, so far as they matter */
} ash_draft_odds;

/* What a draft model guesses to follow a text in one step. */
typedef struct ash_drafted {
    uint32_t n;
    int32_t ids[ASH_MAX_DRAFT];
    uint8_t levels[ASH_MAX_DRAFT]; /* of the odds */
    float chances[ASH_MAX_DRAFT];  /* that it is right if those before are */
} ash_drafted;

/* For a text of up to max_ids tokens: 8 to 16 bytes each, at most 256 KiB. ASH_ENOMEM. */
int ash_draft_init(ash_draft *d, uint32_t max_ids, ash_err *err) ASH_MUST_CHECK;
void ash_draft_release(ash_draft *d); /* zeroed is fine */
/* The text is ids[0..n) now: what it was plus new tokens. O(new tokens). learn: the new ones are of an
 * answer and count for how often guesses come true. */
void ash_draft_follow(ash_draft *d, const int32_t *ids, uint32_t n, bool learn);
/* How likely the guess after `ahead` others is right if those are, 0 without a guess. */
float ash_draft_chance(const ash_draft *d, uint32_t ahead);
/* Writes k guesses behind the text: ids[n..n+k). Only when ash_draft_chance is over 0. */
void ash_draft_guess(const ash_draft *d, int32_t *ids, uint32_t k);

#endif
