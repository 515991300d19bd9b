/* What a step takes, learned from the steps that were run: how many guesses pay, and how many rows of
 * prompts fit into a time.
 *
 * Steps that only decode are kept apart by sequences and guesses, as their cost follows no formula: rows
 * cost nothing while memory is the limit, and kernels take them in tiles. A prompt's row costs a fixed part
 * and one that grows with its position (attention); both are fitted to what was measured.
 *
 * Old measurements are forgotten and made again, so that a text that grew or a core that was lost shows.
 * Times are monotonic nanoseconds; single ones far off (the thread was not running) count little. One
 * thread at a time; allocates nothing. */
#ifndef ASHLEY_ENGINE_PACE_H
#define ASHLEY_ENGINE_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"

enum { ASH_PACE_SEQUENCES = 16 }; /* more are kept as if they were so many, and guess nothing */

typedef struct ash_pace_cell {
    double ns;
    uint64_t step; /* when last measured */
    uint32_t count;
} ash_pace_cell;

typedef struct ash_pace {
    ash_pace_cell cells[ASH_PACE_SEQUENCES][ASH_MAX_DRAFT + 1]; /* [sequences - 1][guesses] */
    uint64_t steps;
    double row_ns, place_ns;   /* a prompt's row; more for every 1,024 positions before it */
    double least_row_ns;       /* less is noise */
    double rr, rp, pp, rt, pt; /* fading sums of rows, positions and time that the two are fitted to */
    int beside_rows;           /* of prompts in the last steps beside sequences that decoded; 0: none yet */
} ash_pace;

/* What a step consists of. */
typedef struct ash_pace_step {
    int decoding, guesses; /* sequences that decode, guesses of all of them */
    int prompt_rows;
    int64_t places;        /* sum of the positions of prompt_rows */
} ash_pace_step;

/* row_ns: what a row of a short prompt was measured to take. */
void ash_pace_init(ash_pace *p, int64_t row_ns);
void ash_pace_note(ash_pace *p, const ash_pace_step *step, int64_t ns);
/* A step that only decodes so many, without guesses; 0 before the first. */
int64_t ash_pace_plain_ns(const ash_pace *p, int decoding);
/* How a step of `decoding` sequences and that many guesses compares with one without guesses: 1 is as long,
 * 2 twice. 0 if nothing is known, so that a step without guesses should be made first. */
double ash_pace_guessing(const ash_pace *p, int decoding, int guesses);
/* What that many guesses are thought to cost at most, in steps without guesses: what was not measured yet is
 * thought dear. HUGE_VAL if nothing is known. beside_prompts: a step that computes prompts, too. */
double ash_pace_cost(const ash_pace *p, int decoding, int guesses, bool beside_prompts);
/* What the guesses of a step that was noted cost in the end, in the same unit: as such steps do in the mean,
 * or as this one of `ns` did where that is not known yet. */
double ash_pace_paid(const ash_pace *p, const ash_pace_step *step, int64_t ns);
/* Rows of `prompts` prompts, which go on at a mean position of `place`, that a step of `ns` has time for
 * beside so many that decode: a multiple of `unit`, also 0, or `most`. Beside others no more than twice what
 * such steps had: what a row costs at one position says little of another far from it. */
int ash_pace_rows(const ash_pace *p, int decoding, int64_t ns, int prompts, int64_t place, int unit,
                  int most);
/* The same of a step that nobody decodes in, which only a cancel or another request waits for: what a
 * quarter of a second has time for; where that is less than 32, up to 32 in a second, as few rows share
 * the reading and unpacking of the weights. At least `unit`. */
int ash_pace_rows_alone(const ash_pace *p, int prompts, int64_t place, int unit, int most);

#endif
