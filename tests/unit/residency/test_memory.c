/* What the kernel says of memory: read from made-up machines, plausible on this one, and grown by what this
 * process takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_machine.h"
#include "residency/memory.h"

static void test_available(void **state)
{
    uint64_t free_bytes = ash_memory_available();
    assert_true(free_bytes > 16u << 20);
    assert_true(free_bytes < (uint64_t)1 << 50);
}

static void test_resident_grows(void **state)
{
    ash_memory a, b;
    uint64_t before = ash_memory_resident();
    ash_memory_read("", &a);
    size_t n = 64u << 20;
    volatile char *p = malloc(n);
    assert_non_null((void *)p);
    for (size_t i = 0; i < n; i += 4096) p[i] = 1;
    uint64_t after = ash_memory_resident();
    ash_memory_read("", &b);
    free((void *)p);
    assert_true(before > 0);
    assert_true(after > before + n / 2);
    assert_true(b.own > a.own + n / 2);
    assert_true(b.resident >= b.own);
}

static void test_plain_machine(void **state)
{
    fake_machine f;
    ash_memory m;
    fake_open(&f);
    ash_memory_read(f.root, &m);
    assert_int_equal(m.total, 0);
    assert_true(m.available == UINT64_MAX && m.own == 0 && m.resident == 0 && m.stalled == 0.0);
    fake_memory(&f, 8000, 500, 0.0);
    ash_memory_read(f.root, &m);
    assert_int_equal(m.available, 8000 * 1024);
    assert_int_equal(m.own, 500 * 1024);
    assert_int_equal(m.resident, 500 * 1024);
    assert_int_equal(m.spare, 8000 * 1024);
    fake_write(&f, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\nMapped:    3000 kB\n");
    ash_memory_read(f.root, &m);
    assert_int_equal(m.available, 8000 * 1024);
    assert_int_equal(m.spare, 5000 * 1024);
    assert_int_equal(m.total, 9000 * 1024);
    fake_memory(&f, 8000, 500, 12.5);
    ash_memory_read(f.root, &m);
    assert_true(m.stalled == 12.5);
    fake_close(&f);
}

static void test_groups(void **state)
{
    fake_machine f;
    ash_memory m;
    fake_open(&f);
    fake_memory(&f, 8000, 500, 1.0);
    fake_write(&f, "proc/self/cgroup", "0::/a/b\n");
    fake_write(&f, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n");
    fake_write(&f, "sys/fs/cgroup/a/b/memory.max", "max\n");
    fake_write(&f, "sys/fs/cgroup/a/b/memory.current", "700000\n");
    fake_write(&f, "sys/fs/cgroup/a/b/memory.pressure", "some avg10=90.00\nfull avg10=3.00 avg60=0\n");
    ash_memory_read(f.root, &m);
    assert_int_equal(m.available, 8000 * 1024);
    assert_true(m.stalled == 3.0);
    fake_write(&f, "sys/fs/cgroup/a/memory.max", "1000000\n"); /* a group above has a limit */
    fake_write(&f, "sys/fs/cgroup/a/memory.current", "900000\n");
    fake_write(&f, "sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 200000\nactive_file 50000\n");
    ash_memory_read(f.root, &m);
    assert_int_equal(m.total, 1000000);
    assert_int_equal(m.available, 350000);
    assert_int_equal(m.spare, 350000);
    fake_write(&f, "sys/fs/cgroup/a/memory.stat",
               "anon 1\nfile_mapped 30000\ninactive_file 200000\nactive_file 50000\n");
    ash_memory_read(f.root, &m);
    assert_int_equal(m.available, 350000);
    assert_int_equal(m.spare, 320000);
    fake_write(&f, "sys/fs/cgroup/a/memory.current", "2000000\n");
    ash_memory_read(f.root, &m);
    assert_int_equal(m.available, 0);
    fake_write(&f, "proc/self/cgroup", "3:cpu:/x\n4:hugetlb,memory:/gone\n");
    fake_write(&f, "sys/fs/cgroup/memory/memory.limit_in_bytes", "500000\n"); /* the mount's own root */
    fake_write(&f, "sys/fs/cgroup/memory/memory.usage_in_bytes", "400000\n");
    fake_write(&f, "sys/fs/cgroup/memory/memory.stat", "total_inactive_file 1000\ntotal_active_file 0\n");
    ash_memory_read(f.root, &m);
    assert_int_equal(m.available, 101000);
    assert_int_equal(m.spare, 101000);
    fake_write(&f, "proc/self/cgroup", "0::/../../etc\nrubbish\n9:memory\n");
    fake_write(&f, "proc/pressure/memory", "full avg10=nan\nfull avg10=1e9\nfull");
    ash_memory_read(f.root, &m);
    assert_int_equal(m.available, 8000 * 1024);
    assert_true(m.stalled == 0.0);
    fake_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_available),
        cmocka_unit_test(test_resident_grows),
        cmocka_unit_test(test_plain_machine),
        cmocka_unit_test(test_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
