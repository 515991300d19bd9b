/* Room that is reserved ahead: one block of it, all of it usable, no more than the cap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"

enum { MIB = 1 << 20 };

static void reserved_room_is_one_block(void **state)
{
    ash_arena a;
    ash_arena_init(&a, 64 * MIB);
    ash_arena_reserve(&a, 5 * MIB);
    assert_true(a.held >= 5 * MIB);
    size_t held = a.held;
    char *first = ash_arena_alloc(&a, 3 * MIB), *second = ash_arena_calloc(&a, 2 * MIB, 1);
    assert_non_null(first);
    assert_ptr_equal(second, first + 3 * MIB);
    assert_int_equal((uintptr_t)first % 16, 0);
    assert_int_equal(a.held, held);
    memset(first, 1, 3 * MIB);
    memset(second, 1, 2 * MIB);
    char *third = ash_arena_strdup(&a, "what does not fit is found elsewhere");
    assert_non_null(third);
    assert_true(third < first || third >= second + 2 * MIB);
    assert_int_equal(first[3 * MIB - 1], 1);
    assert_int_equal(second[2 * MIB - 1], 1);
    ash_arena_release(&a);
    assert_int_equal(a.held, 0);
    assert_non_null(ash_arena_alloc(&a, 100));
    ash_arena_release(&a);
}

static void a_small_or_forbidden_reserve_takes_nothing(void **state)
{
    ash_arena a;
    ash_arena_init(&a, 8 * MIB);
    ash_arena_reserve(&a, 0);
    ash_arena_reserve(&a, 2 * MIB - 16);
    ash_arena_reserve(&a, 8 * MIB); /* with its head it is over the cap */
    ash_arena_reserve(&a, SIZE_MAX);
    assert_int_equal(a.held, 0);
    ash_arena_reserve(&a, 5 * MIB);
    assert_null(ash_arena_alloc(&a, 6 * MIB));
    assert_non_null(ash_arena_alloc(&a, 5 * MIB));
    ash_arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reserved_room_is_one_block),
        cmocka_unit_test(a_small_or_forbidden_reserve_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
