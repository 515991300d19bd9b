/* What was decided of downloads is kept; a damaged file is as none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../scratch_dir.h"
#include "base/fs.h"
#include "base/limits.h"
#include "store/downloads.h"

static void expect(const char *dir, ash_downloads_list list, const char *want)
{
    json_t *v;
    assert_int_equal(ash_downloads_read(dir, list, &v, NULL), 0);
    char *text = json_dumps(v, JSON_COMPACT);
    assert_string_equal(text, want);
    free(text);
    json_decref(v);
}

static void write_file(const char *dir, const char *text, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/downloads.json", dir);
    assert_int_equal(ash_fs_replace(path, text, n, NULL), 0);
}

static void test_ids_come_and_go(void **state)
{
    char dir[256];
    snprintf(dir, sizeof dir, "%s/made/when/needed", (char *)*state);
    expect(dir, ASH_DOWNLOADS_PAUSED, "[]");
    assert_int_equal(ash_downloads_set(dir, ASH_DOWNLOADS_PAUSED, "a", true, NULL), 0);
    assert_int_equal(ash_downloads_set(dir, ASH_DOWNLOADS_PAUSED, "b/c:Q4_\"0\"", true, NULL), 0);
    assert_int_equal(ash_downloads_set(dir, ASH_DOWNLOADS_PAUSED, "a", true, NULL), 0);
    assert_int_equal(ash_downloads_set(dir, ASH_DOWNLOADS_ADDED, "d", true, NULL), 0);
    expect(dir, ASH_DOWNLOADS_PAUSED, "[\"b/c:Q4_\\\"0\\\"\",\"a\"]");
    expect(dir, ASH_DOWNLOADS_ADDED, "[\"d\"]");
    assert_int_equal(ash_downloads_set(dir, ASH_DOWNLOADS_PAUSED, "a", false, NULL), 0);
    assert_int_equal(ash_downloads_set(dir, ASH_DOWNLOADS_PAUSED, "none", false, NULL), 0);
    expect(dir, ASH_DOWNLOADS_PAUSED, "[\"b/c:Q4_\\\"0\\\"\"]");
    expect(dir, ASH_DOWNLOADS_ADDED, "[\"d\"]");
}

static void test_damaged_files(void **state)
{
    static const char *const texts[] = {"", "{", "[]", "\"paused\"", "{\"paused\":", "\xff\xfe"};
    const char *dir = *state;
    json_t *v;
    ash_err err = ASH_ERR_INIT;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_file(dir, texts[i], strlen(texts[i]));
        assert_int_not_equal(ash_downloads_read(dir, ASH_DOWNLOADS_PAUSED, &v, &err), 0);
        assert_non_null(strstr(err.msg, "downloads.json"));
        assert_int_equal(json_array_size(v), 0);
        json_decref(v);
        assert_int_equal(ash_downloads_set(dir, ASH_DOWNLOADS_PAUSED, "a", i % 2, NULL), 0);
        expect(dir, ASH_DOWNLOADS_PAUSED, i % 2 ? "[\"a\"]" : "[]");
    }
    static const char odd[] = "{\"paused\":[1,null,\"\",\"a\\u0000b\",[\"c\"],\"ok\"],\"added\":7}";
    write_file(dir, odd, sizeof odd - 1);
    expect(dir, ASH_DOWNLOADS_PAUSED, "[\"ok\"]");
    expect(dir, ASH_DOWNLOADS_ADDED, "[]");
}

static void test_caps(void **state)
{
    const char *dir = *state;
    ash_buf text;
    json_t *v;
    ash_buf_init(&text, 2 * ASH_MAX_DOWNLOADS_FILE);
    ash_buf_adds(&text, "{\"paused\":[\"0\"");
    for (int i = 1; i < 2 * ASH_MAX_DOWNLOADS; i++) ash_buf_printf(&text, ",\"%d\"", i);
    ash_buf_adds(&text, "]}");
    write_file(dir, text.data, text.len);
    assert_int_equal(ash_downloads_read(dir, ASH_DOWNLOADS_PAUSED, &v, NULL), 0);
    assert_int_equal(json_array_size(v), ASH_MAX_DOWNLOADS);
    json_decref(v);
    assert_int_equal(ash_downloads_set(dir, ASH_DOWNLOADS_PAUSED, "one more", true, NULL), ASH_ELIMIT);
    assert_int_equal(ash_downloads_set(dir, ASH_DOWNLOADS_PAUSED, "3", false, NULL), 0);
    assert_int_equal(ash_downloads_set(dir, ASH_DOWNLOADS_PAUSED, "one more", true, NULL), 0);
    while (text.len <= ASH_MAX_DOWNLOADS_FILE) ash_buf_addc(&text, ' ');
    write_file(dir, text.data, text.len);
    assert_int_equal(ash_downloads_read(dir, ASH_DOWNLOADS_PAUSED, &v, NULL), ASH_ELIMIT);
    json_decref(v);
    ash_buf_release(&text);
}

static void test_processes_take_turns(void **state)
{
    enum { N = 4, EACH = 20 };
    const char *dir = *state;
    char id[32];
    for (int p = 0; p < N; p++) {
        if (fork()) continue;
        int bad = 0;
        for (int i = 0; i < EACH; i++) {
            snprintf(id, sizeof id, "%d-%d", p, i);
            bad |= ash_downloads_set(dir, ASH_DOWNLOADS_ADDED, id, true, NULL);
        }
        _exit(bad ? 1 : 0);
    }
    for (int p = 0, status; p < N; p++) {
        wait(&status);
        assert_int_equal(status, 0);
    }
    json_t *v;
    assert_int_equal(ash_downloads_read(dir, ASH_DOWNLOADS_ADDED, &v, NULL), 0);
    assert_int_equal(json_array_size(v), N * EACH);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ids_come_and_go, scratch_dir_make, scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_damaged_files, scratch_dir_make, scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_caps, scratch_dir_make, scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_processes_take_turns, scratch_dir_make, scratch_dir_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
