/* Guesses by look-up: where they come from, how far they go, and how likely they are said to be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "engine/draft.h"

enum { MAX = 4096 };

static ash_draft draft_of(uint32_t max_ids)
{
    ash_draft d;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_draft_init(&d, max_ids, &err), 0);
    return d;
}

static void a_passage_is_followed_to_its_end(void **state)
{
    static int32_t ids[MAX];
    for (int i = 0; i < 50; i++) ids[i] = 100 + i;
    ids[50] = 7;
    ash_draft d = draft_of(MAX);
    ash_draft_follow(&d, ids, 51, false);
    assert_true(ash_draft_chance(&d, 0) <= 0); /* nothing stood there before */
    ids[51] = 110, ids[52] = 111;
    ash_draft_follow(&d, ids, 52, true);
    assert_true(ash_draft_chance(&d, 0) <= 0); /* one token is too little */
    ash_draft_follow(&d, ids, 53, true);
    assert_true(ash_draft_chance(&d, 0) > 0);
    assert_true(ash_draft_chance(&d, 8) > ash_draft_chance(&d, 0));
    ash_draft_guess(&d, ids, 15);
    for (int i = 0; i < 15; i++) assert_int_equal(ids[53 + i], 112 + i);
    for (int i = 0; i < 30; i++) ids[53 + i] = 112 + i;
    ash_draft_follow(&d, ids, 83, true);
    ash_draft_guess(&d, ids, 8); /* to the end of the passage and what followed there */
    assert_int_equal(ids[90], 149);
    ids[83] = 9999;
    ash_draft_follow(&d, ids, 84, true);
    assert_true(ash_draft_chance(&d, 0) <= 0);
    ash_draft_release(&d);
}

static void a_guess_goes_on_from_guesses(void **state)
{
    int32_t ids[40] = {1, 2, 3, 1, 2, 3};
    ash_draft d = draft_of(40);
    ash_draft_follow(&d, ids, 6, true);
    ash_draft_guess(&d, ids, 15);
    for (int i = 0; i < 15; i++) assert_int_equal(ids[6 + i], 1 + i % 3);
    ash_draft_release(&d);
}

static void the_latest_place_is_taken(void **state)
{
    int32_t ids[] = {1, 2, 3, 4, 50, 1, 2, 3, 4, 60, 1, 2, 3, 4, 0};
    ash_draft d = draft_of(15);
    ash_draft_follow(&d, ids, 14, true);
    ash_draft_guess(&d, ids, 1);
    assert_int_equal(ids[14], 60);
    ash_draft_release(&d);
}

static void chances_are_learned(void **state)
{
    static int32_t ids[MAX];
    ash_draft d = draft_of(MAX);
    ash_rng r;
    ash_rng_init(&r, 1);
    float before = 0;
    int guesses = 0;
    for (uint32_t n = 0; n < MAX; n++) { /* of eight tokens: pairs come again, but say nothing */
        ids[n] = (int32_t)(ash_rng_u64(&r) % 8);
        ash_draft_follow(&d, ids, n + 1, true);
        float c = ash_draft_chance(&d, 0);
        guesses += c > 0;
        if (!(before > 0))
            before = c;
    }
    assert_true(guesses > MAX / 2);
    assert_true(d.right[2] < 0.4f && d.right[3] < 0.4f); /* one of eight comes true */
    ash_draft_release(&d);
    d = draft_of(MAX);
    for (uint32_t n = 0; n < 60; n++) {
        ids[n] = (int32_t)n % 3;
        ash_draft_follow(&d, ids, n + 1, true);
    }
    assert_true(ash_draft_chance(&d, 0) > 0.95f);
    float sure = d.right[7];
    for (uint32_t n = 60; n < 100; n++) { /* learned from answers only */
        ids[n] = 100 + (int32_t)n;
        ash_draft_follow(&d, ids, n + 1, false);
    }
    assert_true(d.right[7] >= sure);
    ash_draft_release(&d);
}

/* The index may lose places, never give wrong ones: more tokens than entries, two kinds of n-grams. */
static void collisions_do_no_harm(void **state)
{
    enum { LONG_TEXT = 200000 };
    int32_t *ids = calloc(LONG_TEXT + 16, sizeof *ids);
    ash_draft d = draft_of(128);
    ash_rng r;
    ash_rng_init(&r, 2);
    assert_non_null(ids);
    for (uint32_t n = 0; n < LONG_TEXT; n++) {
        ids[n] = (int32_t)(ash_rng_u64(&r) % 40);
        ash_draft_follow(&d, ids, n + 1, true);
        if (!d.place)
            continue;
        assert_true(d.place <= n);
        assert_true(d.agreed >= 2);
        for (uint32_t k = 1; k <= d.agreed; k++) assert_int_equal(ids[d.place - k], ids[n + 1 - k]);
    }
    ash_draft_release(&d);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_passage_is_followed_to_its_end),
                                       cmocka_unit_test(a_guess_goes_on_from_guesses),
                                       cmocka_unit_test(the_latest_place_is_taken),
                                       cmocka_unit_test(chances_are_learned),
                                       cmocka_unit_test(collisions_do_no_harm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
