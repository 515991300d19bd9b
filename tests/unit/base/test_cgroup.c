/* CPU limits of control groups, in folders made to look like them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../scratch_dir.h"
#include "base/cgroup.h"

static void put(const char *dir, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (char *p = path + strlen(dir) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = 0;
        mkdir(path, 0700);
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int limit(const char *dir)
{
    char groups[512];
    snprintf(groups, sizeof groups, "%s/groups", dir);
    return ash_cgroup_cpus(groups, dir);
}

static void test_v2(void **state)
{
    const char *dir = *state;
    assert_int_equal(limit(dir), 0); /* no file at all */
    put(dir, "groups", "0::/a/b\n");
    assert_int_equal(limit(dir), 0);
    put(dir, "a/b/cpu.max", "max 100000\n");
    assert_int_equal(limit(dir), 0);
    put(dir, "a/cpu.max", "350000 100000\n"); /* a group above */
    assert_int_equal(limit(dir), 4);
    put(dir, "a/b/cpu.max", "100000 100000\n");
    assert_int_equal(limit(dir), 1);
    put(dir, "a/b/cpu.max", "900000 100000\n"); /* more than the group above has */
    assert_int_equal(limit(dir), 4);
    put(dir, "cpu.max", "150000 100000\n"); /* a container's own root */
    assert_int_equal(limit(dir), 2);
    put(dir, "groups", "0::/not/shown/here\n");
    assert_int_equal(limit(dir), 2);
}

static void test_v1(void **state)
{
    const char *dir = *state;
    put(dir, "groups", "3:memory:/m\n2:cpu,cpuacct:/c/d\n1:name=systemd:/x\n");
    put(dir, "cpu/c/d/cpu.cfs_quota_us", "-1\n");
    put(dir, "cpu/c/d/cpu.cfs_period_us", "100000\n");
    assert_int_equal(limit(dir), 0);
    put(dir, "cpu/c/d/cpu.cfs_quota_us", "250000\n");
    assert_int_equal(limit(dir), 3);
    put(dir, "cpu/c/cpu.cfs_quota_us", "100000\n");
    put(dir, "cpu/c/cpu.cfs_period_us", "100000\n");
    assert_int_equal(limit(dir), 1);
}

static void test_rubbish(void **state)
{
    const char *dir = *state;
    put(dir, "groups", "\n:\n::\nno colons\n0::/../../etc\n0::/a");
    put(dir, "a/cpu.max", "100000 0\n");
    assert_int_equal(limit(dir), 0);
    put(dir, "a/cpu.max", "9223372036854775807 1\n");
    assert_int_equal(limit(dir), 0);
    put(dir, "a/cpu.max", "");
    assert_int_equal(limit(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_v2, scratch_dir_make, scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_v1, scratch_dir_make, scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_rubbish, scratch_dir_make, scratch_dir_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
