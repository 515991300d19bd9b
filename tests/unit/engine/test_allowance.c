/* What guessing may lose, by simulation with made-up costs: guesses are made whenever the accounts cover one,
 * the worst there is for texts in which they never come true. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/allowance.h"

enum { FOREVER = 1 << 20 };

typedef struct server {
    ash_allowance all;
    double took, would; /* all texts, in steps without guesses */
    uint32_t random;
} server;

static uint32_t draw(server *s)
{
    s->random = s->random * 1664525u + 1013904223u;
    return s->random >> 16;
}

/* A text of n tokens that may have `room`, of whose guesses those before `right_until` come true; each costs
 * `cost` steps. Returns how much longer than n steps it took. */
static double run_text(server *s, int n, uint32_t room, int right_until, double cost)
{
    ash_text_allowance t = {0};
    double took = 0;
    for (int i = 0; i < n;) {
        bool guesses = ash_allowance_left(&s->all, &t, room - (uint32_t)i, true) >= cost;
        bool right = guesses && i < right_until && i + 1 < n;
        ash_allowance_earn(&s->all, &t);
        if (guesses)
            ash_allowance_pay(&s->all, &t, cost, right);
        took += guesses ? 1 + cost : 1;
        s->took += guesses ? 1 + cost : 1;
        i += 1 + right;
        s->would += 1 + right;
        assert_true(s->took <= s->would * 1.015 + 1e-6);
    }
    return took - n;
}

static void guesses_that_never_come_true_cost_their_share(void **state)
{
    server s = {.random = 1};
    for (int i = 0; i < 2000; i++) {
        int n = 1 + (int)(draw(&s) % 300);
        double cost = 0.01 + draw(&s) % 50 * 0.01;
        bool to_its_end = draw(&s) % 2;
        double lost = run_text(&s, n, to_its_end ? (uint32_t)n : FOREVER, 0, cost);
        assert_true(lost <= n * 0.015 + !to_its_end + 1e-6);
    }
    assert_true(s.took > s.would * 1.002); /* and they were made */
}

static void gains_of_others_are_lent_within_bounds(void **state)
{
    server s = {.random = 2};
    double most = 0;
    for (int i = 0; i < 2000; i++) {
        int n = 1 + (int)(draw(&s) % 300), until = draw(&s) % 2 ? n : 0;
        double cost = 0.05 + draw(&s) % 50 * 0.01;
        /* to its end: no more than the share; ended before: a step more */
        if (draw(&s) % 2)
            assert_true(run_text(&s, n, (uint32_t)n, until, cost) <= n * 0.015 + 1e-6);
        else {
            double lost = run_text(&s, n, FOREVER, until, cost);
            assert_true(lost <= n * 0.015 + 1 + 1e-6);
            most = lost > most ? lost : most;
        }
    }
    assert_true(most > 0.5); /* loans were taken */
}

static void a_text_that_turns_loses_no_more_than_it_gained(void **state)
{
    server s = {.random = 3};
    for (int i = 0; i < 500; i++) {
        int n = 20 + (int)(draw(&s) % 300);
        assert_true(run_text(&s, n, (uint32_t)n, n / 2, 0.3) <= n * 0.015 + 1e-6);
    }
    assert_true(s.took < s.would * 0.9);
}

static void what_pays_begins_at_once_after_another_did(void **state)
{
    server s = {.random = 4};
    assert_true(run_text(&s, 200, 200, 200, 0.3) < -30);
    assert_true(run_text(&s, 64, 64, 64, 0.3) < -20);
}

/* Several texts at once share a step's cost; more than it was thought to be is paid before the next. */
static void what_was_dearer_is_paid_first(void **state)
{
    ash_allowance all = {0};
    ash_text_allowance t = {0};
    for (int i = 0; i < 20; i++) ash_allowance_earn(&all, &t);
    assert_true(ash_allowance_left(&all, &t, 100, true) > 0.29);
    ash_allowance_pay(&all, &t, 0.9, 0);
    for (int i = 0; i < 39; i++) {
        ash_allowance_earn(&all, &t);
        assert_true(ash_allowance_left(&all, &t, 100, true) <= 0);
    }
    for (int i = 0; i < 2; i++) ash_allowance_earn(&all, &t);
    assert_true(ash_allowance_left(&all, &t, 100, true) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_that_never_come_true_cost_their_share),
        cmocka_unit_test(gains_of_others_are_lent_within_bounds),
        cmocka_unit_test(a_text_that_turns_loses_no_more_than_it_gained),
        cmocka_unit_test(what_pays_begins_at_once_after_another_did),
        cmocka_unit_test(what_was_dearer_is_paid_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
