/* What a step takes, from made-up clocks: which guesses pay, how many rows of prompts fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/pace.h"

enum { MS = 1000000 };

static void decode(ash_pace *p, int decoding, int guesses, int64_t ns)
{
    ash_pace_note(p, &(ash_pace_step){.decoding = decoding, .guesses = guesses}, ns);
}

static void near(double x, double y)
{
    assert_true(x > y * 0.99 && x < y * 1.01);
}

static void guessing_is_held_against_plain_steps(void **state)
{
    ash_pace p;
    ash_pace_init(&p, MS);
    assert_true(ash_pace_guessing(&p, 1, 3) <= 0); /* first a step without */
    for (int i = 0; i < 2; i++) decode(&p, 1, 0, 10 * MS);
    near(ash_pace_guessing(&p, 1, 15), 1); /* to find out */
    for (int i = 0; i < 2; i++) decode(&p, 1, 11, 32 * MS);
    near(ash_pace_guessing(&p, 1, 11), 3.2);
    near(ash_pace_guessing(&p, 1, 5), 2); /* on the line between */
    for (int i = 0; i < 2; i++) decode(&p, 1, 3, 10 * MS);
    near(ash_pace_guessing(&p, 1, 3), 1);
    near(ash_pace_guessing(&p, 1, 7), 2.1);
    assert_true(ash_pace_guessing(&p, 2, 3) <= 0); /* other numbers of sequences say nothing */
    assert_true(ash_pace_guessing(&p, ASH_PACE_SEQUENCES + 1, 3) <= 0);
}

static void what_was_not_measured_is_thought_dear(void **state)
{
    ash_pace p;
    ash_pace_init(&p, MS);
    assert_true(ash_pace_cost(&p, 1, 1, false) > 1e9); /* nothing is known */
    for (int i = 0; i < 2; i++) decode(&p, 1, 0, 10 * MS);
    near(ash_pace_cost(&p, 1, 5, false), 1); /* a row that few are of at twice that of a prompt */
    near(ash_pace_cost(&p, 1, 5, true), 0.5);
    for (int i = 0; i < 2; i++) decode(&p, 1, 3, 13 * MS);
    near(ash_pace_cost(&p, 1, 3, false), 0.3);
    near(ash_pace_cost(&p, 1, 4, false), 0.5);
    for (int i = 0; i < 2; i++) decode(&p, 1, 5, 14 * MS);
    near(ash_pace_cost(&p, 1, 4, false), 0.35);
    /* afterwards it is what it took, at most a step each; once known what such steps take */
    ash_pace_step first = {.decoding = 1, .guesses = 2};
    near(ash_pace_paid(&p, &first, 15 * MS), 0.5);
    near(ash_pace_paid(&p, &first, 500 * MS), 2);
    assert_true(ash_pace_paid(&p, &first, 5 * MS) <= 0);
    near(ash_pace_paid(&p, &(ash_pace_step){.decoding = 1, .guesses = 3}, 500 * MS), 0.3);
    near(ash_pace_paid(&p, &(ash_pace_step){.decoding = 1, .guesses = 3, .prompt_rows = 8}, 500 * MS), 0.3);
    assert_true(ash_pace_paid(&p, &(ash_pace_step){.decoding = 1}, 500 * MS) <= 0);
}

static void one_slow_step_counts_little_and_all_is_measured_again(void **state)
{
    ash_pace p;
    ash_pace_init(&p, MS);
    decode(&p, 1, 0, 500 * MS); /* descheduled */
    decode(&p, 1, 0, 10 * MS);
    near((double)ash_pace_plain_ns(&p, 1), 10 * MS);
    decode(&p, 1, 0, 500 * MS);
    assert_true(ash_pace_plain_ns(&p, 1) < 11 * MS);
    for (int i = 0; i < 100; i++) decode(&p, 1, 0, 20 * MS); /* a core was lost */
    near((double)ash_pace_plain_ns(&p, 1), 20 * MS);
    for (int i = 0; i < 300; i++) decode(&p, 1, 7, 20 * MS);
    assert_true(ash_pace_guessing(&p, 1, 7) <= 0); /* the plain step was long ago */
    for (int i = 0; i < 2; i++) decode(&p, 1, 0, 5 * MS);
    near(ash_pace_guessing(&p, 1, 7), 4);
}

/* Rows take 0.5 ms and 0.1 ms more for each thousand positions, beside steps of 5 ms. */
static void prompts_at_far_positions_get_fewer_rows(void **state)
{
    ash_pace p;
    ash_pace_init(&p, MS);
    for (int i = 0; i < 20; i++) decode(&p, 4, 0, 5 * MS);
    for (int place = 0; place < 8192; place += 64) {
        int64_t places = 64ll * place + 64 * 63 / 2;
        ash_pace_note(&p, &(ash_pace_step){.decoding = 4, .prompt_rows = 64, .places = places},
                      5 * MS + 64 * MS / 2 + places * MS / 10240);
    }
    assert_int_equal(ash_pace_rows(&p, 4, 45 * MS, 1, 0, 16, 512), 64);
    assert_int_equal(ash_pace_rows(&p, 4, 45 * MS, 1, 8192, 16, 512), 16);
    assert_int_equal(ash_pace_rows(&p, 4, 45 * MS, 1, 40960, 4, 512), 8);
    assert_int_equal(ash_pace_rows(&p, 0, 250 * MS, 1, 0, 16, 128), 128);
    assert_int_equal(ash_pace_rows(&p, 4, 1, 1, 0, 16, 128), 0);
}

/* Rows once thought dear are found to be cheap, though few of them are run. */
static void a_bad_estimate_mends_itself(void **state)
{
    ash_pace p;
    ash_pace_init(&p, 8 * MS);
    for (int i = 0; i < 20; i++) decode(&p, 1, 0, 9 * MS); /* more than what is true later on */
    assert_int_equal(ash_pace_rows(&p, 1, 45 * MS, 1, 0, 16, 512), 0);
    for (int i = 0; i < 60; i++)
        ash_pace_note(&p, &(ash_pace_step){.decoding = 1, .prompt_rows = 4, .places = 4 * 4 * i + 6},
                      5 * MS + 4 * MS / 2);
    int rows = 0;
    for (int i = 0; i < 3; i++) { /* step by step */
        rows = ash_pace_rows(&p, 1, 45 * MS, 1, 0, 16, 512);
        ash_pace_note(&p, &(ash_pace_step){.decoding = 1, .prompt_rows = rows, .places = rows * rows / 2},
                      5 * MS + rows * MS / 2);
    }
    assert_true(rows >= 48);
}

/* After a long prompt the fit may give all its cost to the positions: the next one, at its start, does not
 * get all the rows that this promises. */
static void rows_beside_others_grow_step_by_step(void **state)
{
    ash_pace p;
    ash_pace_init(&p, MS);
    for (int i = 0; i < 2; i++) decode(&p, 1, 0, 4 * MS);
    for (int i = 0; i < 100; i++) {
        const ash_pace_step far = {.decoding = 1, .prompt_rows = 16, .places = 16 * 4000};
        ash_pace_note(&p, &far, 36 * MS);
    }
    p.row_ns = p.least_row_ns; /* as noise may fit it */
    assert_int_equal(ash_pace_rows(&p, 1, 34 * MS, 1, 0, 8, 512), 32);
    assert_int_equal(ash_pace_rows(&p, 1, 34 * MS, 1, 0, 24, 512), 24);
    assert_true(ash_pace_rows(&p, 0, 34 * MS, 1, 0, 8, 512) > 64); /* nobody waits */
    const ash_pace_step start = {.decoding = 1, .prompt_rows = 32, .places = 32 * 16};
    ash_pace_note(&p, &start, 20 * MS);
    assert_true(ash_pace_rows(&p, 1, 1000 * MS, 1, 0, 8, 512) <= 64);
}

/* Steps of prompts alone, by what a row takes. */
static void alone_few_rows_may_take_longer(void **state)
{
    static const struct {
        int ms, most, rows;
    } cases[] = {{1, 512, 248}, {1, 128, 128}, {5, 512, 48}, {7, 512, 32}, {23, 512, 32},
                 {23, 16, 16},  {45, 512, 16}, {400, 512, 8}, {400, 4, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ash_pace p;
        ash_pace_init(&p, cases[i].ms * MS);
        assert_int_equal(ash_pace_rows_alone(&p, 1, 0, 8, cases[i].most), cases[i].rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guessing_is_held_against_plain_steps),
        cmocka_unit_test(what_was_not_measured_is_thought_dear),
        cmocka_unit_test(one_slow_step_counts_little_and_all_is_measured_again),
        cmocka_unit_test(prompts_at_far_positions_get_fewer_rows),
        cmocka_unit_test(a_bad_estimate_mends_itself),
        cmocka_unit_test(rows_beside_others_grow_step_by_step),
        cmocka_unit_test(alone_few_rows_may_take_longer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
