/* What the tests of the kernels use of cmocka, for builds where the library for the processor is not
 * installed. A failed assertion ends its test, as there; what the test holds then is not freed. */
#ifndef ASHLEY_TESTS_CROSS_CMOCKA_H
#define ASHLEY_TESTS_CROSS_CMOCKA_H

#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

enum { SHIM_FAILED = 1, SHIM_SKIPPED };

static jmp_buf shim_end; /* of the running test, on its own thread */

__attribute__((noreturn)) static inline void shim_leave(int how)
{
    longjmp(shim_end, how);
}

#define cmocka_unit_test(f) {#f, f}

#define fail_msg(...)                                                                                 \
    do {                                                                                              \
        printf("%s:%d: ", __FILE__, __LINE__);                                                        \
        printf(__VA_ARGS__);                                                                          \
        printf("\n");                                                                                 \
        shim_leave(SHIM_FAILED);                                                                      \
    } while (0)
#define skip() shim_leave(SHIM_SKIPPED)
#define assert_true(x)                                                                                \
    do {                                                                                              \
        if (!(x))                                                                                     \
            fail_msg("%s is not so", #x);                                                             \
    } while (0)
#define assert_false(x) assert_true(!(x))
#define assert_null(x) assert_true((x) == NULL)
#define assert_non_null(x) assert_true((x) != NULL)
#define assert_ptr_equal(a, b) assert_true((a) == (b))
#define assert_ptr_not_equal(a, b) assert_true((a) != (b))
#define assert_int_equal(a, b) assert_true((long long)(a) == (long long)(b))
#define assert_int_not_equal(a, b) assert_true((long long)(a) != (long long)(b))
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)

/* 0, SHIM_FAILED or SHIM_SKIPPED. */
static inline int shim_one(void (*run)(void **state))
{
    void *state = NULL;
    int how = setjmp(shim_end);
    if (how == 0)
        run(&state);
    return how;
}

static inline int shim_run(const struct CMUnitTest *tests, size_t n)
{
    size_t count[3] = {0};
    for (size_t i = 0; i < n; i++) {
        printf("[ RUN      ] %s\n", tests[i].name);
        fflush(stdout);
        int how = shim_one(tests[i].run);
        if (how == SHIM_FAILED)
            printf("%s failed\n", tests[i].name);
        count[how]++;
    }
    printf("[  PASSED  ] %zu test(s).\n", count[0]);
    if (count[SHIM_SKIPPED])
        printf("[  SKIPPED ] %zu test(s)\n", count[SHIM_SKIPPED]);
    if (count[SHIM_FAILED])
        printf("[  FAILED  ] %zu test(s)\n", count[SHIM_FAILED]);
    return (int)count[SHIM_FAILED];
}
#define cmocka_run_group_tests(tests, setup, teardown) shim_run(tests, sizeof(tests) / sizeof *(tests))

#endif
