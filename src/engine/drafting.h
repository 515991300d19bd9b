/* When a draft model guesses, and how far: for as long as that is measured to pay.
 *
 * What a guess is worth is known before it is made: what its forward takes and how often guesses come true
 * is learned, by how sure the draft model is of them; what a longer step takes the scheduler's pace knows.
 * Guesses go on while the next one is worth its time.
 *
 * Every forward, those that read a text too, is paid from the accounts of engine/allowance.h, and none is
 * made that they do not cover. Where guesses are not known to pay one is made now and then, from what the
 * text itself earned, without a loan. Of a text that is too long to be paid for only the end is read.
 *
 * The scheduler's thread. Nothing is allocated after open. */
#ifndef ASHLEY_ENGINE_DRAFTING_H
#define ASHLEY_ENGINE_DRAFTING_H

#include "engine/draft_model.h"
#include "engine/pace.h"
#include "engine/sequence.h"

typedef struct ash_drafting {
    ash_draft_model *model;
    bool always;         /* ASH_PREDICTION_ALWAYS: whatever it costs */
    int64_t (*clock)(void); /* ash_clock_ns; a test may set its own */
    ash_draft_odds odds; /* of all texts */
    double step_ns[ASH_DRAFT_SLOTS]; /* [texts - 1]: a forward of one row for each */
    double row_ns;       /* a row of a text that is read */
    uint64_t steps;
    int decoding;        /* sequences of the step in hand; 0: nothing was tried */
} ash_drafting;

/* Borrows the model; NULL never guesses. */
void ash_drafting_init(ash_drafting *d, ash_draft_model *model, bool always);
/* Before a step in which q[0..n) decode and no prompts are computed (else n = 0): q->drafted of each gets
 * what is guessed, or n = 0. Where look-up has a good guess it is left alone. */
void ash_drafting_guess(ash_drafting *d, const ash_pace *pace, ash_allowance *all, ash_sequence *const *q,
                        int n);
/* After the step, when q[0..n) drew tokens that are not taken yet: learns from them. */
void ash_drafting_learn(ash_drafting *d, ash_sequence *const *q, int n);

#endif
