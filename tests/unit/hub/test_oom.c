/* Each allocation of reading a list and of choosing from it fails in turn: a message, no leak, no crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lists.h"

#include "oom.h"

static int read_and_choose(void *arg, ash_err *err)
{
    static const char page[] =
        "[{\"type\":\"file\",\"oid\":\"" LISTS_GIT "\",\"size\":12,\"path\":\"config.json\"},"
        "{\"type\":\"file\",\"oid\":\"" LISTS_GIT "\",\"size\":9,\"path\":\"model.safetensors\","
        "\"lfs\":{\"oid\":\"" LISTS_SHA256 "\",\"size\":9}}]";
    hub_list *l;
    ash_hub_plan *p = NULL;
    int rc = hub_list_open("org/repo", "main", &l, err);
    if (rc) return rc;
    rc = hub_list_page(l, page, sizeof page - 1, err);
    if (!rc) rc = hub_list_finish(l, err);
    if (!rc) rc = ash_hub_choose(&l->tree, &(ash_hub_want){0}, &p, err);
    if (!rc) assert_int_equal(p->n_files, 2);
    ash_hub_plan_close(p);
    ash_hub_tree_close(&l->tree);
    return rc;
}

static int open_client(void *arg, ash_err *err)
{
    ash_hub *h;
    ash_hub_opts o = {.cache_dir = "/nowhere", .token = "hf_x", .proxy = "http://p", .no_proxy = "a"};
    int rc = ash_hub_open(&o, &h, err);
    ash_hub_close(h);
    return rc;
}

static void each_allocation_may_fail(void **state)
{
    oom_init();
    assert_true(oom_run(read_and_choose, NULL) >= 6);
    assert_true(oom_run(open_client, NULL) >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
