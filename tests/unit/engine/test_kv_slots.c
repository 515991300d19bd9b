/* The file of slots: what is put is got, also after a restart; the oldest is written over; every spoilt
 * byte of head, table and data is noticed; other keys, other processes and no room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../scratch_dir.h"
#include "base/fs.h"
#include "base/limits.h"
#include "engine/kv_slots.h"

enum { BYTES = 5000, TOKENS = 4, STRIDE = 8192 };
static const uint64_t data_at = 4096 + 64ull * ASH_MAX_KV_SLOTS;

static ash_kv_slots_opts opts(const char *dir, uint64_t slots)
{
    return (ash_kv_slots_opts){.dir = dir, .share = 4 * (data_at + slots * STRIDE), .key = {9},
                               .block_bytes = BYTES, .block_tokens = TOKENS};
}

static ash_kv_slots *open_slots(const char *dir, uint64_t slots)
{
    ash_kv_slots_opts o = opts(dir, slots);
    ash_kv_slots *s;
    ash_err err = ASH_ERR_INIT;
    if (ash_kv_slots_open(&o, &s, &err))
        fail_msg("%s", err.msg);
    return s;
}

static void pause_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void block_of(int i, uint8_t data[BYTES])
{
    for (int k = 0; k < BYTES; k++) data[k] = (uint8_t)(i * 17 + k * 3 + k / 256);
}

static void name_of(ash_kv_slots *s, int i, uint8_t name[ASH_KV_NAME])
{
    const int32_t ids[TOKENS] = {i, 2, 3, 4};
    ash_kv_slots_name(s, NULL, ids, name);
}

static void put(ash_kv_slots *s, int i)
{
    uint8_t data[BYTES], name[ASH_KV_NAME];
    bool ok;
    block_of(i, data);
    name_of(s, i, name);
    while (!ash_kv_slots_put(s, name, data)) {
        assert_false(ash_kv_slots_poll(s, &ok)); /* makes place; tells of gets only */
        pause_ms(1);
    }
    memset(data, 0, sizeof data); /* it was copied */
}

/* 1: got and right; 0: not there; -1: found to be spoilt. */
static int get(ash_kv_slots *s, int i)
{
    uint8_t want[BYTES], got[BYTES], name[ASH_KV_NAME];
    bool ok;
    name_of(s, i, name);
    if (!ash_kv_slots_has(s, name) || !ash_kv_slots_get(s, name, got))
        return 0;
    while (!ash_kv_slots_poll(s, &ok)) pause_ms(1);
    block_of(i, want);
    if (!ok) {
        assert_false(ash_kv_slots_has(s, name));
        return -1;
    }
    assert_memory_equal(got, want, BYTES);
    return 1;
}

static void file_path(const char *dir, char path[512])
{
    DIR *d = opendir(dir);
    path[0] = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (strstr(e->d_name, ".slots"))
            snprintf(path, 512, "%s/%.200s", dir, e->d_name);
    closedir(d);
    assert_true(path[0]);
}

static void flip(const char *path, uint64_t at)
{
    uint8_t b;
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &b, 1, (off_t)at), 1);
    b ^= 4;
    assert_int_equal(pwrite(fd, &b, 1, (off_t)at), 1);
    close(fd);
}

static void what_is_put_is_got_over_restarts(void **state)
{
    ash_kv_slots *s = open_slots(*state, 12);
    assert_int_equal(get(s, 0), 0);
    for (int i = 0; i < 10; i++) put(s, i);
    for (int i = 0; i < 10; i++) assert_int_equal(get(s, i), 1);
    ash_kv_slots_close(s);
    s = open_slots(*state, 12);
    for (int i = 0; i < 10; i++) assert_int_equal(get(s, i), 1);
    for (int i = 10; i < 15; i++) put(s, i); /* goes on where the ring was: 0, 1, 2 make room */
    for (int i = 0; i < 15; i++) assert_int_equal(get(s, i), i >= 3);
    ash_kv_slots_close(s);
    s = open_slots(*state, 8); /* a smaller budget: the slots behind are gone */
    for (int i = 0; i < 15; i++) assert_int_equal(get(s, i), (i >= 3 && i < 8) || i >= 12);
    ash_kv_slots_close(s);
}

static void a_name_has_one_block(void **state)
{
    uint8_t name[ASH_KV_NAME];
    ash_kv_slots *s = open_slots(*state, 8);
    put(s, 1);
    name_of(s, 1, name);
    assert_true(ash_kv_slots_is_fresh(s, name));
    for (int i = 2; i < 6; i++) put(s, i);
    assert_false(ash_kv_slots_is_fresh(s, name)); /* half the ring is newer */
    put(s, 1);
    assert_true(ash_kv_slots_is_fresh(s, name));
    for (int i = 6; i < 9; i++) put(s, i); /* over the first 1 too: the second stays */
    assert_int_equal(get(s, 1), 1);
    ash_kv_slots_close(s);
    s = open_slots(*state, 8);
    assert_int_equal(get(s, 1), 1);
    ash_kv_slots_close(s);
}

static void names_are_of_all_before(void **state)
{
    static const int32_t a[TOKENS] = {1, 2, 3, 4}, b[TOKENS] = {1, 2, 3, 5};
    uint8_t n[4][ASH_KV_NAME];
    ash_kv_slots *s = open_slots(*state, 8);
    ash_kv_slots_name(s, NULL, a, n[0]);
    ash_kv_slots_name(s, NULL, b, n[1]);
    ash_kv_slots_name(s, n[0], b, n[2]);
    memcpy(n[3], n[1], ASH_KV_NAME);
    ash_kv_slots_name(s, n[3], b, n[3]); /* in place */
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++) assert_memory_not_equal(n[i], n[k], ASH_KV_NAME);
    ash_kv_slots_close(s);
}

static void every_spoilt_byte_is_noticed(void **state)
{
    char path[512];
    ash_kv_slots *s = open_slots(*state, 8);
    for (int i = 0; i < 3; i++) put(s, i);
    assert_int_equal(get(s, 2), 1);
    ash_kv_slots_close(s);
    file_path(*state, path);
    for (int at = 0; at < 64; at++) { /* of an entry: the slot is empty or foreign, others stay */
        flip(path, 4096 + 64 + at);
        s = open_slots(*state, 8);
        assert_int_equal(get(s, 0), 1);
        assert_int_equal(get(s, 1), 0);
        ash_kv_slots_close(s);
        flip(path, 4096 + 64 + at);
    }
    for (int at = 0; at < BYTES; at += at < 16 || at > BYTES - 16 ? 1 : 499) {
        flip(path, data_at + STRIDE + at);
        s = open_slots(*state, 8);
        assert_int_equal(get(s, 1), -1);
        assert_int_equal(get(s, 1), 0);
        assert_int_equal(get(s, 2), 1);
        ash_kv_slots_close(s);
        flip(path, data_at + STRIDE + at);
    }
    assert_int_equal(truncate(path, data_at + STRIDE + 100), 0);
    s = open_slots(*state, 8);
    assert_int_equal(get(s, 0), 1);
    assert_int_equal(get(s, 1), -1);
    ash_kv_slots_close(s);
    assert_int_equal(truncate(path, 4096 + 2 * 64 + 10), 0);
    s = open_slots(*state, 8);
    assert_int_equal(get(s, 2), 0);
    ash_kv_slots_close(s);
}

static void another_head_begins_anew(void **state)
{
    char path[512];
    for (int at = 0; at < 64; at += 3) {
        ash_kv_slots *s = open_slots(*state, 8);
        put(s, 1);
        assert_int_equal(get(s, 1), 1);
        ash_kv_slots_close(s);
        file_path(*state, path);
        flip(path, at);
        s = open_slots(*state, 8);
        assert_int_equal(get(s, 1), 0);
        ash_kv_slots_close(s);
    }
}

static void a_file_that_shrinks_meanwhile_is_noticed(void **state)
{
    char path[512];
    ash_kv_slots *s = open_slots(*state, 8);
    put(s, 1);
    put(s, 2);
    assert_int_equal(get(s, 2), 1);
    file_path(*state, path);
    assert_int_equal(truncate(path, data_at + 10), 0);
    assert_int_equal(get(s, 1), -1);
    put(s, 3);
    assert_int_equal(get(s, 3), 1);
    ash_kv_slots_close(s);
}

static void one_process_at_a_time_and_within_the_share(void **state)
{
    ash_err err = ASH_ERR_INIT;
    ash_kv_slots_opts o = opts(*state, 8), other = opts(*state, 8), tight = opts(*state, 7);
    ash_kv_slots *s = open_slots(*state, 8), *t;
    assert_int_equal(ash_kv_slots_open(&o, &t, &err), ASH_EAGAIN);
    assert_null(t);
    other.key[0]++;
    assert_int_equal(ash_kv_slots_open(&other, &t, &err), 0); /* another model */
    put(t, 1);
    assert_int_equal(get(t, 1), 1);
    assert_int_equal(get(s, 1), 0);
    ash_kv_slots_close(t);
    ash_kv_slots_close(s);
    tight.key[0] = 77;
    assert_int_equal(ash_kv_slots_open(&tight, &t, &err), ASH_ENOSPC);
    o.block_bytes = 0;
    assert_int_equal(ash_kv_slots_open(&o, &t, &err), ASH_EINVAL);
    o = opts("/nowhere/at/all", 8);
    assert_int_equal(ash_kv_slots_open(&o, &t, &err), ASH_EIO);
}

static void too_much_at_once_is_refused(void **state)
{
    uint8_t data[BYTES] = {0}, name[ASH_KV_NAME], to[64][BYTES];
    bool ok;
    ash_kv_slots *s = open_slots(*state, 8);
    put(s, 1);
    name_of(s, 1, name);
    int n = 0, done = 0;
    while (n < 64 && ash_kv_slots_get(s, name, to[n])) n++;
    assert_true(n > 1 && n < 64);
    assert_false(ash_kv_slots_put(s, name, data));
    while (done < n) done += ash_kv_slots_poll(s, &ok);
    assert_true(ash_kv_slots_get(s, name, to[0]));
    ash_kv_slots_close(s); /* with a reading under way */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_dir_make, scratch_dir_remove)
    const struct CMUnitTest tests[] = {
        TEST(what_is_put_is_got_over_restarts),
        TEST(a_name_has_one_block),
        TEST(names_are_of_all_before),
        TEST(every_spoilt_byte_is_noticed),
        TEST(another_head_begins_anew),
        TEST(a_file_that_shrinks_meanwhile_is_noticed),
        TEST(one_process_at_a_time_and_within_the_share),
        TEST(too_much_at_once_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
