/* The journal of an unfinished file: what was written is known again; cut or damaged at any byte it
 * only knows less, never something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "../scratch_dir.h"
#include "base/fs.h"
#include "hub/hub_private.h"

enum { CHUNKS = 5 };
static const uint64_t size = (uint64_t)(CHUNKS - 1) * ASH_HUB_CHUNK + 7;
static const uint32_t order[] = {3, 0, 4, 0};

static void write_journal(const char *path)
{
    int fd;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(hub_journal_open(path, size, 0, &fd, &err), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(hub_journal_add(fd, order[i], 1000 + i, &err), 0);
    close(fd);
}

static uint32_t read_journal(const char *path, uint64_t of, uint8_t known[CHUNKS],
                             uint64_t sums[CHUNKS], uint64_t *good)
{
    memset(known, 0, CHUNKS);
    memset(sums, 0, CHUNKS * sizeof *sums);
    int fd = open(path, O_RDONLY);
    uint32_t n = hub_journal_read(fd, of, known, sums, good);
    if (fd >= 0) close(fd);
    return n;
}

static void is_known_again(void **state)
{
    char path[200];
    uint8_t known[CHUNKS];
    uint64_t sums[CHUNKS], good;
    snprintf(path, sizeof path, "%s/j", (char *)*state);
    assert_int_equal(read_journal(path, size, known, sums, &good), 0);
    write_journal(path);
    assert_int_equal(read_journal(path, size, known, sums, &good), 3);
    assert_true(known[0] && !known[1] && !known[2] && known[3] && known[4]);
    assert_true(sums[0] == 1003 && sums[3] == 1000 && sums[4] == 1002); /* the last record counts */
    assert_true(hub_journal_bytes(path, size) == 2 * (uint64_t)ASH_HUB_CHUNK + 7);
    int fd;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(hub_journal_open(path, size, good, &fd, &err), 0);
    assert_int_equal(hub_journal_add(fd, 1, 5, &err), 0);
    close(fd);
    assert_int_equal(read_journal(path, size, known, sums, &good), 4);
    assert_int_equal(read_journal(path, size + 1, known, sums, &good), 0); /* another file */
    assert_int_equal(good, 0);
}

static void cut_and_damaged(void **state)
{
    char path[200];
    uint8_t known[CHUNKS];
    uint64_t sums[CHUNKS], good;
    ash_buf all;
    ash_err err = ASH_ERR_INIT;
    snprintf(path, sizeof path, "%s/j", (char *)*state);
    write_journal(path);
    assert_int_equal(ash_fs_read(path, 4096, &all, &err), 0);
    for (size_t n = 0; n <= all.len; n++) {
        assert_int_equal(ash_fs_replace(path, all.data, n, &err), 0);
        uint32_t got = read_journal(path, size, known, sums, &good);
        size_t records = n < 32 ? 0 : (n - 32) / 24;
        assert_int_equal(got, records < 3 ? records : 3);
        assert_int_equal(good, n < 32 ? 0 : 32 + 24 * records);
    }
    for (size_t i = 0; i < all.len; i++) {
        all.data[i] ^= 0x20;
        assert_int_equal(ash_fs_replace(path, all.data, all.len, &err), 0);
        uint32_t got = read_journal(path, size, known, sums, &good);
        size_t records = i < 32 ? 0 : (i - 32) / 24;
        assert_int_equal(got, records < 3 ? records : 3);
        for (int c = 0; c < CHUNKS; c++)
            if (known[c]) assert_true(sums[c] >= 1000 && sums[c] <= 1003);
        all.data[i] ^= 0x20;
    }
    ash_buf_release(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(is_known_again, scratch_dir_make, scratch_dir_remove),
        cmocka_unit_test_setup_teardown(cut_and_damaged, scratch_dir_make, scratch_dir_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
