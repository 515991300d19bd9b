/* Files of keys and values, and their folder: round trip; every byte changed, every cut, every foreign key;
 * writing that is stopped or finds no place; the folder's budget, what is in use and what was left behind. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../scratch_dir.h"
#include "base/buf.h"
#include "base/fs.h"
#include "base/limits.h"
#include "engine/kv_file.h"
#include "engine/kv_folder.h"

enum { TOKENS = 4, BYTES = 96, BLOCKS = 3, IDS = 10 };

static const int32_t prompt[IDS] = {5, 0, 70000, 3, 3, 3, 9, 8, 7, 6};

static ash_kv_head head(void)
{
    return (ash_kv_head){.key = {1, 2, 3}, .block_tokens = TOKENS, .block_bytes = BYTES, .ids = prompt,
                         .n_ids = IDS};
}

static void content(uint8_t data[BLOCKS][BYTES], const void *blocks[BLOCKS])
{
    for (int i = 0; i < BLOCKS; i++) {
        for (int k = 0; k < BYTES; k++) data[i][k] = (uint8_t)(i * 31 + k * 7);
        blocks[i] = data[i];
    }
}

static void write_file(const char *path)
{
    uint8_t data[BLOCKS][BYTES];
    const void *blocks[BLOCKS];
    ash_kv_head h = head();
    ash_err err = ASH_ERR_INIT;
    content(data, blocks);
    if (ash_kv_file_write(path, &h, blocks, NULL, &err))
        fail_msg("%s", err.msg);
}

/* Reads all of it: 0 and the same content, or the error. */
static int read_back(const char *path, const ash_kv_head *h)
{
    uint8_t data[BLOCKS][BYTES], got[BYTES];
    const void *blocks[BLOCKS];
    ash_kv_file f;
    ash_err err = ASH_ERR_INIT;
    content(data, blocks);
    int rc = ash_kv_file_open(path, h, &f, &err);
    for (size_t i = 0; !rc && i < BLOCKS; i++) {
        rc = ash_kv_file_read(&f, i, got, &err);
        if (!rc)
            assert_memory_equal(got, data[i], BYTES);
    }
    ash_kv_file_close(&f);
    ash_kv_file_close(&f);
    assert_true(!rc || err.code == rc);
    return rc;
}

static void is_read_as_written(void **state)
{
    ash_kv_head h = head();
    char *path = ash_fs_join(*state, "a.kv");
    assert_int_equal(read_back(path, &h), ASH_ENOENT);
    write_file(path);
    assert_int_equal(read_back(path, &h), 0);
    write_file(path); /* over it */
    assert_int_equal(read_back(path, &h), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, ash_kv_head_bytes(&h));
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(ash_kv_head_blocks(&h), BLOCKS);
    free(path);
}

/* Without the waiting for the disk of ash_fs_replace. */
static int overwrite(const char *path, const void *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    bool ok = fd >= 0 && write(fd, p, n) == (ssize_t)n;
    close(fd);
    return ok ? 0 : -1;
}

static void every_byte_and_every_cut_is_noticed(void **state)
{
    ash_kv_head h = head();
    ash_buf b;
    char *path = ash_fs_join(*state, "a.kv"), *bad = ash_fs_join(*state, "bad.kv");
    write_file(path);
    assert_int_equal(ash_fs_read(path, 1 << 20, &b, NULL), 0);
    size_t head_end = 64 + 4 * IDS + 8 * (BLOCKS + 1);
    for (size_t i = 0; i < b.len; i++) {
        if (i == head_end)
            i = 4096; /* filling: nobody reads it */
        b.data[i] ^= 0x10;
        assert_int_equal(overwrite(bad, b.data, b.len), 0);
        assert_int_equal(read_back(bad, &h), ASH_EFORMAT);
        b.data[i] ^= 0x10;
    }
    for (size_t n = 0; n < b.len; n += n < head_end + 8 || n > 4090 ? 1 : 97) {
        assert_int_equal(overwrite(bad, b.data, n), 0);
        assert_int_equal(read_back(bad, &h), ASH_EFORMAT);
    }
    ash_buf_addc(&b, 0);
    assert_int_equal(overwrite(bad, b.data, b.len), 0);
    assert_int_equal(read_back(bad, &h), ASH_EFORMAT);
    ash_buf_release(&b);
    assert_int_equal(unlink(bad), 0);
    assert_int_equal(mkdir(bad, 0700), 0);
    assert_int_equal(read_back(bad, &h), ASH_EFORMAT);
    assert_int_equal(rmdir(bad), 0);
    assert_int_equal(mkfifo(bad, 0600), 0);
    assert_int_equal(read_back(bad, &h), ASH_EFORMAT); /* and does not wait */
    free(path);
    free(bad);
}

static void a_file_that_shrinks_while_open_is_noticed(void **state)
{
    ash_kv_head h = head();
    char *path = ash_fs_join(*state, "a.kv");
    uint8_t got[BYTES];
    ash_kv_file f;
    write_file(path);
    assert_int_equal(ash_kv_file_open(path, &h, &f, NULL), 0);
    assert_int_equal(truncate(path, 4096 + BYTES + 1), 0);
    assert_int_equal(ash_kv_file_read(&f, 0, got, NULL), 0);
    assert_int_equal(ash_kv_file_read(&f, 1, got, NULL), ASH_EIO);
    ash_kv_file_close(&f);
    free(path);
}

static void other_keys_and_prompts_are_foreign(void **state)
{
    char *path = ash_fs_join(*state, "a.kv");
    int32_t ids[IDS + 1] = {0};
    write_file(path);
    for (int i = 0; i < ASH_KV_KEY; i++) {
        ash_kv_head h = head();
        h.key[i] ^= 1;
        assert_int_equal(read_back(path, &h), ASH_EFORMAT);
    }
    ash_kv_head h = head();
    h.ids = ids;
    memcpy(ids, prompt, sizeof prompt);
    assert_int_equal(read_back(path, &h), 0);
    for (int i = 0; i < IDS; i++) {
        ids[i]++;
        assert_int_equal(read_back(path, &h), ASH_EFORMAT);
        ids[i]--;
    }
    h.n_ids = IDS - 1;
    assert_int_equal(read_back(path, &h), ASH_EFORMAT);
    h.n_ids = IDS + 1;
    assert_int_equal(read_back(path, &h), ASH_EFORMAT);
    h = head();
    h.block_bytes = BYTES - 8;
    assert_int_equal(read_back(path, &h), ASH_EFORMAT);
    h = head();
    h.block_tokens = TOKENS + 1;
    assert_int_equal(read_back(path, &h), ASH_EFORMAT);
    h.n_ids = 0;
    assert_int_equal(read_back(path, &h), ASH_ELIMIT);
    h.n_ids = ASH_MAX_KV_FILE_IDS + 1;
    assert_int_equal(read_back(path, &h), ASH_ELIMIT);
    h = head();
    h.block_bytes = UINT64_MAX;
    assert_int_equal(read_back(path, &h), ASH_ELIMIT);
    free(path);
}

static void nothing_half_written_is_left(void **state)
{
    uint8_t data[BLOCKS][BYTES];
    const void *blocks[BLOCKS];
    ash_kv_head h = head();
    ash_err err = ASH_ERR_INIT;
    atomic_bool stop = true;
    content(data, blocks);
    char *path = ash_fs_join(*state, "a.kv"), *nowhere = ash_fs_join(*state, "none/a.kv");
    assert_int_equal(ash_kv_file_write(path, &h, blocks, &stop, &err), ASH_ECANCELED);
    assert_int_equal(ash_kv_file_write(nowhere, &h, blocks, NULL, &err), ASH_ENOENT);
    h.block_bytes = 0;
    assert_int_equal(ash_kv_file_write(path, &h, blocks, NULL, &err), ASH_ELIMIT);
    assert_int_equal(rmdir(*state), 0); /* it is empty */
    assert_int_equal(mkdir(*state, 0700), 0);
    free(path);
    free(nowhere);
}

/* ---- the folder ----------------------------------------------------------------------------- */

enum { FILE_BYTES = 8192 };

static void make(const char *dir, const char *name, int age)
{
    char *path = ash_fs_join(dir, name), zeros[FILE_BYTES] = {1};
    assert_int_equal(ash_fs_replace(path, zeros, sizeof zeros, NULL), 0);
    struct timespec t[2];
    clock_gettime(CLOCK_REALTIME, &t[0]);
    t[0].tv_sec -= age;
    t[1] = t[0];
    assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
    free(path);
}

static bool has(const char *dir, const char *name)
{
    char *path = ash_fs_join(dir, name);
    bool yes = ash_fs_is_file(path);
    free(path);
    return yes;
}

static void the_longest_unused_make_room(void **state)
{
    ash_err err = ASH_ERR_INIT;
    char *dir;
    assert_int_equal(ash_kv_folder_open(*state, &dir, &err), 0);
    make(dir, "new.kv", 1);
    make(dir, "old.kv", 3);
    make(dir, "older.slots", 4);
    make(dir, "used.slots", 5);
    make(dir, "strange", 9);
    make(dir, ".kv", 9);
    make(dir, "x.kv.tmp.abcdef", 0);
    char *used = ash_fs_join(dir, "used.slots");
    int fd = open(used, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);

    assert_int_equal(ash_kv_folder_make_room(dir, 6 * FILE_BYTES, FILE_BYTES, false, &err), 0);
    assert_false(has(dir, "x.kv.tmp.abcdef")); /* nobody writes it any more */
    assert_true(has(dir, "older.slots"));
    assert_int_equal(ash_kv_folder_make_room(dir, 4 * FILE_BYTES, FILE_BYTES, true, &err), 0);
    assert_int_equal(ash_kv_folder_make_room(dir, 3 * FILE_BYTES, FILE_BYTES, true, &err), ASH_ENOSPC);
    assert_false(has(dir, "older.slots"));
    assert_true(has(dir, "used.slots") && has(dir, "old.kv") && has(dir, "new.kv"));
    assert_int_equal(ash_kv_folder_make_room(dir, FILE_BYTES, 2 * FILE_BYTES, false, &err), ASH_ENOSPC);
    assert_true(has(dir, "old.kv"));
    assert_int_equal(ash_kv_folder_make_room(dir, 3 * FILE_BYTES, FILE_BYTES, false, &err), 0);
    assert_false(has(dir, "old.kv"));
    assert_true(has(dir, "new.kv"));
    assert_int_equal(ash_kv_folder_make_room(dir, FILE_BYTES, FILE_BYTES, false, &err), ASH_ENOSPC);
    assert_true(has(dir, "used.slots") && has(dir, "strange") && has(dir, ".kv"));
    close(fd);
    assert_int_equal(ash_kv_folder_make_room(dir, FILE_BYTES, FILE_BYTES, false, &err), 0);
    assert_false(has(dir, "used.slots"));
    assert_int_equal(ash_kv_folder_share(dir, 400), 100);
    free(used);
    free(dir);
}

static void a_file_being_written_is_not_left_over(void **state)
{
    char *dir;
    assert_int_equal(ash_kv_folder_open(*state, &dir, NULL), 0);
    make(dir, "x.kv.tmp.abcdef", 0);
    char *path = ash_fs_join(dir, "x.kv.tmp.abcdef");
    int fd = open(path, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(ash_kv_folder_make_room(dir, 1 << 20, 1, false, NULL), 0);
    assert_true(has(dir, "x.kv.tmp.abcdef"));
    close(fd);
    free(path);
    free(dir);
}

typedef struct cleaning {
    const char *dir;
    atomic_bool stop;
} cleaning;

static void *clean(void *arg)
{
    cleaning *c = arg;
    ash_err err = ASH_ERR_INIT;
    while (!atomic_load(&c->stop))
        if (ash_kv_folder_make_room(c->dir, 1 << 20, 0, false, &err)) return NULL;
    return NULL;
}

/* Another engine makes room at whatever moment: also between a new file's name and its lock. */
static void cleaning_meanwhile_takes_no_new_file(void **state)
{
    char *path = ash_fs_join(*state, "a.kv");
    ash_kv_head h = head();
    cleaning c = {.dir = *state};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, clean, &c), 0);
    for (int i = 0; i < 1000; i++) write_file(path);
    atomic_store(&c.stop, true);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    assert_int_equal(read_back(path, &h), 0);
    free(path);
}

static void another_users_file_is_refused(void **state)
{
    if (geteuid()) skip(); /* only root gives files away */
    const ash_kv_head h = head();
    char *path = ash_fs_join(*state, "a.kv");
    write_file(path);
    assert_int_equal(read_back(path, &h), 0);
    assert_int_equal(chown(path, 12345, 12345), 0);
    assert_int_equal(read_back(path, &h), ASH_EFORMAT);
    free(path);
}

static void a_folder_that_cannot_be_is_told(void **state)
{
    ash_err err = ASH_ERR_INIT;
    char *dir, *file = ash_fs_join(*state, "file");
    assert_int_equal(ash_fs_replace(file, "x", 1, NULL), 0);
    assert_true(ash_kv_folder_open(file, &dir, &err) < 0);
    assert_null(dir);
    assert_int_equal(ash_kv_folder_make_room(file, 10, 1, false, &err), ASH_EIO);
    assert_int_equal(ash_kv_folder_share(file, 0), 0);
    free(file);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_dir_make, scratch_dir_remove)
    const struct CMUnitTest tests[] = {
        TEST(is_read_as_written),
        TEST(every_byte_and_every_cut_is_noticed),
        TEST(a_file_that_shrinks_while_open_is_noticed),
        TEST(other_keys_and_prompts_are_foreign),
        TEST(nothing_half_written_is_left),
        TEST(the_longest_unused_make_room),
        TEST(a_file_being_written_is_not_left_over),
        TEST(cleaning_meanwhile_takes_no_new_file),
        TEST(another_users_file_is_refused),
        TEST(a_folder_that_cannot_be_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
