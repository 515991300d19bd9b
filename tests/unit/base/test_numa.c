/* The machine's nodes: made-up ones through hwloc, a kernel that tells of one or of more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/numa.h"

/* A folder as /sys/devices/system/node whose has_cpu is `list`; NULL: there is none. */
static void make_sysfs(char dir[64], const char *list)
{
    char path[128];
    snprintf(dir, 64, "/tmp/ashley-numa-XXXXXX");
    assert_non_null(mkdtemp(dir));
    if (!list)
        return;
    snprintf(path, sizeof path, "%s/has_cpu", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(list, f);
    fclose(f);
}

static void remove_sysfs(const char *dir)
{
    char path[128];
    snprintf(path, sizeof path, "%s/has_cpu", dir);
    unlink(path);
    rmdir(dir);
}

static bool hwloc_is_open(void)
{
    void *h = dlopen("libhwloc.so.15", RTLD_NOW | RTLD_NOLOAD);
    if (h)
        dlclose(h);
    return h;
}

/* Runs first: later tests open the library. */
static void test_one_node_opens_no_library(void **state)
{
    static const char *const lists[] = {NULL, "", "\n", "0\n", "12\n"};
    for (int i = 0; i < 5; i++) {
        char dir[64];
        ash_numa n;
        ash_err err = ASH_ERR_INIT;
        make_sysfs(dir, lists[i]);
        assert_int_equal(ash_numa_read(dir, NULL, &n, &err), 0);
        assert_int_equal(n.nodes, 1);
        assert_false(hwloc_is_open());
        remove_sysfs(dir);
    }
}

/* The kernel tells of two; hwloc, which reads the real one, has the last word. */
static void test_more_nodes_open_it(void **state)
{
    char dir[64];
    ash_numa n;
    ash_err err = ASH_ERR_INIT;
    make_sysfs(dir, "0-1\n");
    assert_int_equal(ash_numa_read(dir, NULL, &n, &err), 0);
    assert_true(hwloc_is_open());
    assert_true(n.nodes >= 1 && n.nodes <= ASH_MAX_NODES);
    remove_sysfs(dir);
}

static void test_made_up_nodes(void **state)
{
    ash_numa n;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_numa_read("/none", "numa:2 core:2 pu:1", &n, &err), 0);
    assert_int_equal(n.nodes, 2);
    assert_false(n.real);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(CPU_COUNT(&n.cpus[k]), 2);
        assert_int_equal(n.id[k], k);
        assert_true(CPU_ISSET(2 * k, &n.cpus[k]) && CPU_ISSET(2 * k + 1, &n.cpus[k]));
    }
    assert_int_equal(ash_numa_read("/none", "numa:8 core:3 pu:2", &n, &err), 0);
    assert_int_equal(n.nodes, 8);
    assert_int_equal(CPU_COUNT(&n.cpus[7]), 6);
    assert_int_equal(ash_numa_read("/none", "core:4 pu:1", &n, &err), 0);
    assert_int_equal(n.nodes, 1);
}

/* Two memories beside the same CPUs are one node. */
static void test_memories_of_the_same_cpus(void **state)
{
    ash_numa n;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_numa_read("/none", "pack:2 [numa] [numa] core:2 pu:1", &n, &err), 0);
    assert_int_equal(n.nodes, 2);
    assert_int_equal(CPU_COUNT(&n.cpus[0]), 2);
    assert_int_equal(CPU_COUNT(&n.cpus[1]), 2);
}

static void test_refuses(void **state)
{
    ash_numa n;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_numa_read("/none", "no such thing", &n, &err), ASH_EINVAL);
    assert_non_null(strstr(err.msg, "'no such thing'"));
    assert_int_equal(n.nodes, 1);
    assert_int_equal(ash_numa_read("/none", "numa:65 pu:1", &n, &err), ASH_ELIMIT);
    assert_int_equal(n.nodes, 1);
    assert_int_equal(ash_numa_read("/none", "numa:64 pu:1", &n, &err), 0);
    assert_int_equal(n.nodes, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_node_opens_no_library), cmocka_unit_test(test_more_nodes_open_it),
        cmocka_unit_test(test_made_up_nodes),             cmocka_unit_test(test_memories_of_the_same_cpus),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
