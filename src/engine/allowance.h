/* What guessing may lose: accounts that it is paid from, one for each text and one for all.
 *
 * The unit is a step without guesses of one text. A text earns 1.5 % of every step of its own and what right
 * guesses save it, and pays what guesses cost, the wrong ones too. It may overdraw by a loan from what all
 * texts have saved up: at most 1.5 % of the tokens that it may still have, and at most one step. All texts
 * together never overdraw. Nothing is done that the accounts do not cover. So, whatever comes true:
 *
 *   a text that goes to its last token takes at most 1.5 % longer than without guesses, one that ends before
 *   at most 1.5 % and one step, and this only of what others earned and did not lose;
 *   all texts since the start take at most 1.5 % longer, at any time.
 *
 * This holds as exactly as costs are known before (engine/pace.h): where a cost turns out higher, the rest
 * is paid before anything else is guessed. Of texts that decode at once those that guess pay for all.
 *
 * One thread at a time; allocates nothing. */
#ifndef ASHLEY_ENGINE_ALLOWANCE_H
#define ASHLEY_ENGINE_ALLOWANCE_H

#include <stdbool.h>
#include <stdint.h>

/* Zeroed is how both start. */
typedef struct ash_allowance {
    double balance; /* of all texts */
} ash_allowance;

typedef struct ash_text_allowance {
    double balance;
} ash_text_allowance;

/* A step in which the text decodes: once each. */
void ash_allowance_earn(ash_allowance *a, ash_text_allowance *t);
/* What guessing for t may cost now, at most. lend: with a loan, for guesses that are thought to pay; `room`:
 * the tokens that the text may still have. */
double ash_allowance_left(const ash_allowance *a, const ash_text_allowance *t, uint32_t room, bool lend);
/* Guessing for t took that much, and saved so much. */
void ash_allowance_pay(ash_allowance *a, ash_text_allowance *t, double cost, double saved);

#endif
