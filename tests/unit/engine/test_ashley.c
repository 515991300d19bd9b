/* The public header: a program that includes nothing else does what a program wants to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../tiny_model.h"

int public_program(const char *path); /* public.c */

static void works_by_itself(void **state)
{
    tiny_model m = TINY_DEFAULT;
    char path[64];
    m.tokenizer = true;
    m.template = "{{ bos_token }}{% for m in messages %}{{ m.role + m.content }}{% endfor %}{{ eos_token }}";
    assert_true(tiny_file(&m, path));
    int rc = public_program(path);
    unlink(path);
    assert_int_equal(rc, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(works_by_itself)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
