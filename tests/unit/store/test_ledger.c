/* The ledger keeps what it is told, and believes nothing else. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../scratch_dir.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/rng.h"
#include "store/ledger.h"
#include "store/sqlite.h"

static const ash_ledger_key KEY = {"m", "/models/m.gguf:100:5", "avx512,2,f16,", 4096};
static const ash_ledger_row ROW = {.weight_bytes = 1000,
                                   .kv_bytes = 200,
                                   .scratch_bytes = 30,
                                   .draft_bytes = 4,
                                   .file_bytes = 900,
                                   .grown_bytes = 1100,
                                   .load_ms = 450.0,
                                   .stage_ms = {0.0, 1.0, 2.0, 400.0, 40.0, 7.0}};

static ash_ledger *begin(const char *dir)
{
    ash_ledger *l;
    assert_int_equal(ash_ledger_open(dir, &l, NULL), 0);
    return l;
}

static void db_path(const char *dir, const char *end, char out[256])
{
    snprintf(out, 256, "%s/ledger.db%s", dir, end);
}

static void run_sql(const char *dir, const char *sql)
{
    char path[256];
    ash_sqlite s;
    sqlite3 *db;
    db_path(dir, "", path);
    assert_int_equal(ash_sqlite_open(&s, NULL), 0);
    assert_int_equal(s.open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL),
                     SQLITE_OK);
    int rc = s.exec(db, sql, NULL, NULL, NULL);
    if (rc) fail_msg("%s: %s", sql, s.errmsg(db));
    s.close_v2(db);
}

static void expect_row(ash_ledger *l, const ash_ledger_row *want, uint64_t loads)
{
    ash_ledger_row r;
    assert_true(ash_ledger_find(l, &KEY, &r));
    assert_int_equal(r.weight_bytes, want->weight_bytes);
    assert_int_equal(r.kv_bytes, want->kv_bytes);
    assert_int_equal(r.scratch_bytes, want->scratch_bytes);
    assert_int_equal(r.draft_bytes, want->draft_bytes);
    assert_int_equal(r.file_bytes, want->file_bytes);
    assert_int_equal(r.grown_bytes, want->grown_bytes);
    assert_true(r.load_ms == want->load_ms);
    for (int i = 0; i < ASH_LEDGER_STAGES; i++) assert_true(r.stage_ms[i] == want->stage_ms[i]);
    assert_int_equal(r.loads, loads);
}

static void expect_none(ash_ledger *l)
{
    ash_ledger_row r = {.loads = 9};
    assert_false(ash_ledger_find(l, &KEY, &r));
    assert_int_equal(r.loads, 0);
}

/* A ledger that was unusable is set aside, and a new one works. */
static void expect_set_aside(const char *dir)
{
    char path[256];
    ash_ledger *l = begin(dir);
    expect_none(l);
    assert_true(ash_ledger_put(l, &KEY, &ROW));
    expect_row(l, &ROW, 1);
    ash_ledger_close(l);
    db_path(dir, ".damaged", path);
    assert_true(ash_fs_is_file(path));
}

static void test_keeps_what_it_is_told(void **state)
{
    char nested[256];
    snprintf(nested, sizeof nested, "%s/a/b", (const char *)*state);
    ash_ledger *l = begin(nested), *other;
    expect_none(l);
    assert_true(ash_ledger_put(l, &KEY, &ROW));
    expect_row(l, &ROW, 1);
    other = begin(nested); /* as another process */
    expect_row(other, &ROW, 1);
    ash_ledger_row next = ROW;
    next.grown_bytes = 0; /* not measured this time */
    next.load_ms = 350.0;
    assert_true(ash_ledger_put(other, &KEY, &next));
    next.grown_bytes = ROW.grown_bytes;
    expect_row(l, &next, 2);
    ash_ledger_close(l);
    ash_ledger_close(other);
    l = begin(nested);
    expect_row(l, &next, 2);
    ash_ledger_key k = KEY;
    ash_ledger_row r;
    k.ctx++;
    assert_false(ash_ledger_find(l, &k, &r));
    k = KEY;
    k.variant = "scalar";
    assert_false(ash_ledger_find(l, &k, &r));
    k = KEY;
    k.revision = "'; DROP TABLE model; --";
    assert_true(ash_ledger_put(l, &k, &ROW));
    expect_row(l, &next, 2);
    ash_ledger_close(l);
}

static void test_deleted_while_open(void **state)
{
    char path[256];
    ash_ledger *l = begin(*state);
    assert_true(ash_ledger_put(l, &KEY, &ROW));
    db_path(*state, "", path);
    assert_int_equal(unlink(path), 0);
    expect_none(l);
    assert_true(ash_ledger_put(l, &KEY, &ROW));
    expect_row(l, &ROW, 1);
    ash_ledger_close(l);
}

static void test_rubbish_is_set_aside(void **state)
{
    char path[256], text[4000];
    db_path(*state, "", path);
    memset(text, 'x', sizeof text);
    assert_int_equal(ash_fs_replace(path, text, sizeof text, NULL), 0);
    expect_set_aside(*state);
}

static void test_another_programs_file_is_set_aside(void **state)
{
    run_sql(*state, "CREATE TABLE model(x)");
    expect_set_aside(*state);
    run_sql(*state, "PRAGMA user_version=77");
    expect_set_aside(*state);
}

static void test_another_users_file_is_set_aside(void **state)
{
    char path[256];
    if (geteuid()) skip(); /* only root gives files away */
    ash_ledger *l = begin(*state);
    assert_true(ash_ledger_put(l, &KEY, &ROW));
    ash_ledger_close(l);
    db_path(*state, "", path);
    assert_int_equal(chown(path, 12345, 12345), 0);
    expect_set_aside(*state);
}

static void test_foreign_tables_are_set_aside(void **state)
{
    ash_ledger *l = begin(*state);
    assert_true(ash_ledger_put(l, &KEY, &ROW));
    ash_ledger_close(l);
    run_sql(*state, "DROP TABLE model; CREATE VIEW model AS WITH RECURSIVE n(id) AS (SELECT 1 "
                    "UNION ALL SELECT id+1 "
                    "FROM n) SELECT * FROM n"); /* would never end */
    expect_set_aside(*state);
    run_sql(*state, "DROP TABLE model; CREATE TABLE model(id, seq)");
    expect_set_aside(*state);
    run_sql(*state, "CREATE TRIGGER t AFTER INSERT ON model BEGIN DELETE FROM model; END");
    expect_set_aside(*state);
}

static void test_figures_that_cannot_be_are_left_alone(void **state)
{
    static const char *const wrong[] = {
        "weights=-1", "kv=1<<60", "grown='lots'||char(0)||-5", "load_ms=-1.0", "pack_ms=9e999",
        "file=-9e18", "loads=-3"};
    ash_ledger *l = begin(*state);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char sql[128];
        assert_true(ash_ledger_put(l, &KEY, &ROW));
        snprintf(sql, sizeof sql, "UPDATE model SET %s", wrong[i]);
        run_sql(*state, sql);
        if (i != 2) expect_none(l); /* a text is read as 0: not measured */
        run_sql(*state, "DELETE FROM model");
    }
    ash_ledger_close(l);
}

static void test_rates(void **state)
{
    static const char *const wrong[] = {"-1", "0", "9e999", "'fast'", "NULL", "1e16"};
    double v = 7.0;
    ash_ledger *l = begin(*state);
    assert_false(ash_ledger_rate(l, "disk", &v));
    assert_true(v == 0.0);
    assert_true(ash_ledger_put_rate(l, "disk", 1e9));
    assert_true(ash_ledger_put_rate(l, "disk", 2e9)); /* half of either */
    assert_true(ash_ledger_rate(l, "disk", &v) && v == 1.5e9);
    assert_false(ash_ledger_rate(l, "fetch", &v));
    assert_false(ash_ledger_put_rate(l, "disk", 0.0) || ash_ledger_put_rate(l, "disk", -5.0) ||
                 ash_ledger_put_rate(l, "disk", 1e30) || ash_ledger_put_rate(l, "disk", 0.0 / 0.0));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "UPDATE rate SET value=%s", wrong[i]);
        run_sql(*state, sql);
        assert_false(ash_ledger_rate(l, "disk", &v));
        assert_true(ash_ledger_put_rate(l, "disk", 3e9)); /* and what cannot be is not averaged */
        assert_true(ash_ledger_rate(l, "disk", &v) && v == 3e9);
    }
    run_sql(*state, "DROP TABLE rate; CREATE TABLE rate(x)");
    ash_ledger_close(l);
    l = begin(*state);
    assert_false(ash_ledger_rate(l, "disk", &v));
    assert_true(ash_ledger_put_rate(l, "disk", 3e9)); /* set aside, and begun anew */
    assert_true(ash_ledger_rate(l, "disk", &v) && v == 3e9);
    ash_ledger_close(l);
}

static void expect_found(ash_ledger *l, size_t n, const ash_ledger_found *want)
{
    ash_ledger_found v[ASH_LEDGER_ROOMS];
    assert_int_equal(ash_ledger_found_of(l, "m", "r1", v), n);
    for (size_t i = 0; i < n; i++)
        if (fabs(v[i].room - want[i].room) > 1e-12 || fabs(v[i].found - want[i].found) > 1e-12)
            fail_msg("%g in %g, wanted %g in %g", v[i].found, v[i].room, want[i].found, want[i].room);
}

static bool put_found(ash_ledger *l, const char *revision, double room, double found)
{
    return ash_ledger_put_found(l, "m", revision, &(ash_ledger_found){room, found});
}

static void test_what_experts_found(void **state)
{
    static const char *const wrong[] = {"found=-0.1", "found=9e999", "room=1.5", "found='most'", "room=NULL"};
    ash_ledger *l = begin(*state);
    expect_found(l, 0, NULL);
    assert_true(put_found(l, "r1", 0.5, 0.9) && put_found(l, "r1", 0.25, 0.75));
    assert_true(put_found(l, "r2", 0.1, 0.1));
    expect_found(l, 2, (ash_ledger_found[]){{0.25, 0.75}, {0.5, 0.9}});
    assert_true(put_found(l, "r1", 0.26, 0.85)); /* the same 1/64: half of either */
    expect_found(l, 2, (ash_ledger_found[]){{0.255, 0.8}, {0.5, 0.9}});
    assert_false(put_found(l, "r1", -0.1, 0.5) || put_found(l, "r1", 1.1, 0.5) ||
                 put_found(l, "r1", 0.5, -0.1) || put_found(l, "r1", 0.5, 1.1) ||
                 put_found(l, "r1", 0.5, 0.0 / 0.0) || put_found(l, "r1", 0.0 / 0.0, 0.5));
    assert_true(put_found(l, "r1", 1.0, 1.0) && put_found(l, "r1", 0.0, 0.0));
    run_sql(*state, "DELETE FROM experts WHERE part IN (0, 63)");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char sql[80];
        snprintf(sql, sizeof sql, "UPDATE experts SET %s WHERE part=32", wrong[i]);
        run_sql(*state, sql);
        expect_found(l, 1, (ash_ledger_found[]){{0.255, 0.8}});
        assert_true(put_found(l, "r1", 0.5, 0.7)); /* and what cannot be is not averaged */
        expect_found(l, 2, (ash_ledger_found[]){{0.255, 0.8}, {0.5, 0.7}});
    }
    run_sql(*state, "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i+1 FROM n WHERE i < 300) "
                    "INSERT INTO experts SELECT 'm', 'r1', i, i/1000.0, 0.5, 1 FROM n");
    ash_ledger_found v[ASH_LEDGER_ROOMS];
    assert_int_equal(ash_ledger_found_of(l, "m", "r1", v), ASH_LEDGER_ROOMS);
    ash_ledger_close(l);
}

static void test_experts_of_a_ledger_without_them(void **state)
{
    ash_ledger *l = begin(*state);
    assert_true(ash_ledger_put(l, &KEY, &ROW));
    ash_ledger_close(l);
    run_sql(*state, "DROP TABLE experts"); /* as the version before made it */
    l = begin(*state);
    expect_row(l, &ROW, 1);
    assert_true(put_found(l, "r1", 0.5, 0.9));
    ash_ledger_close(l);
    run_sql(*state, "DROP TABLE experts; CREATE TABLE experts(x, seq)");
    l = begin(*state);
    expect_found(l, 0, NULL);
    assert_true(put_found(l, "r1", 0.5, 0.9)); /* set aside, and begun anew */
    expect_found(l, 1, (ash_ledger_found[]){{0.5, 0.9}});
    ash_ledger_close(l);
    char path[256];
    db_path(*state, ".damaged", path);
    assert_true(ash_fs_is_file(path));
}

/* A ledger of the version before has no rates; its rows stay. */
static void test_a_ledger_without_rates_gets_them(void **state)
{
    double v;
    ash_ledger *l = begin(*state);
    assert_true(ash_ledger_put(l, &KEY, &ROW));
    ash_ledger_close(l);
    run_sql(*state, "DROP TABLE rate");
    l = begin(*state);
    expect_row(l, &ROW, 1);
    assert_true(ash_ledger_put_rate(l, "disk", 1e9) && ash_ledger_rate(l, "disk", &v));
    ash_ledger_close(l);
}

/* Whatever becomes of the file: no crash, and it works again. */
static void test_damaged_bytes(void **state)
{
    char path[256];
    ash_buf whole;
    ash_rng r;
    ash_rng_init(&r, 3);
    ash_ledger *l = begin(*state);
    assert_true(ash_ledger_put(l, &KEY, &ROW));
    ash_ledger_close(l); /* the last one moves the WAL into the file */
    db_path(*state, "", path);
    assert_int_equal(ash_fs_read(path, 1 << 20, &whole, NULL), 0);
    for (int i = 0; i < 150; i++) {
        uint8_t *p = malloc(whole.len);
        memcpy(p, whole.data, whole.len);
        size_t n = i % 3 ? whole.len : (size_t)(ash_rng_u64(&r) % whole.len);
        for (int k = 0; k < 1 + i / 10; k++)
            p[ash_rng_u64(&r) % whole.len] = (uint8_t)ash_rng_u64(&r);
        assert_int_equal(ash_fs_replace(path, p, n, NULL), 0);
        free(p);
        ash_ledger_row found;
        l = begin(*state);
        ash_ledger_find(l, &KEY, &found);
        ash_ledger_put(l, &KEY, &ROW);
        ash_ledger_close(l);
    }
    ash_buf_release(&whole);
    assert_int_equal(unlink(path), 0);
    l = begin(*state);
    assert_true(ash_ledger_put(l, &KEY, &ROW));
    ash_ledger_close(l);
}

static void test_a_folder_that_cannot_be_written(void **state)
{
    char file[256], dir[300];
    snprintf(file, sizeof file, "%s/file", (const char *)*state);
    snprintf(dir, sizeof dir, "%s/state", file);
    assert_int_equal(ash_fs_replace(file, "x", 1, NULL), 0);
    ash_ledger *l = begin(dir);
    expect_none(l);
    assert_false(ash_ledger_put(l, &KEY, &ROW));
    ash_ledger_close(l);
}

static void test_old_rows_go(void **state)
{
    char name[32];
    ash_ledger_key k = KEY;
    ash_ledger_row r;
    ash_ledger *l = begin(*state);
    k.model = name;
    for (int i = 0; i < ASH_LEDGER_ROWS + 10; i++) {
        snprintf(name, sizeof name, "m%d", i % 10 == 9 ? 9 : i); /* m9 is written again and again */
        assert_true(ash_ledger_put(l, &k, &ROW));
    }
    snprintf(name, sizeof name, "m0");
    assert_false(ash_ledger_find(l, &k, &r));
    snprintf(name, sizeof name, "m9");
    assert_true(ash_ledger_find(l, &k, &r));
    snprintf(name, sizeof name, "m%d", ASH_LEDGER_ROWS);
    assert_true(ash_ledger_find(l, &k, &r));
    ash_ledger_close(l);
}

static void write_until_killed(const char *dir)
{
    ash_ledger *l = begin(dir);
    ash_ledger_row row = ROW;
    for (uint64_t i = 0;; i++) {
        row.weight_bytes = row.scratch_bytes = i % 1000 + 1;
        ash_ledger_put(l, &KEY, &row);
    }
}

static void test_killed_at_any_instant(void **state)
{
    ash_rng r;
    char path[256];
    uint64_t before = 0;
    ash_ledger_row mine = ROW;
    mine.scratch_bytes = mine.weight_bytes;
    ash_rng_init(&r, 11);
    db_path(*state, ".damaged", path);
    for (int i = 0; i < 25; i++) {
        pid_t pid = fork();
        if (!pid) write_until_killed(*state);
        usleep(2000 + (useconds_t)(ash_rng_u64(&r) % 20000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        ash_ledger_row row;
        ash_ledger *l = begin(*state);
        if (ash_ledger_find(l, &KEY, &row)) {
            assert_int_equal(row.weight_bytes, row.scratch_bytes);
            assert_true(row.loads >= before);
            before = row.loads;
        }
        assert_true(ash_ledger_put(l, &KEY, &mine));
        ash_ledger_close(l);
    }
    assert_true(before > 25);
    assert_false(ash_fs_is_file(path));
}

int main(void)
{
    ash_log_set_level(ASH_LOG_NONE);
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_dir_make, scratch_dir_remove)
    const struct CMUnitTest tests[] = {
        TEST(test_keeps_what_it_is_told),
        TEST(test_deleted_while_open),
        TEST(test_rubbish_is_set_aside),
        TEST(test_another_programs_file_is_set_aside),
        TEST(test_another_users_file_is_set_aside),
        TEST(test_foreign_tables_are_set_aside),
        TEST(test_figures_that_cannot_be_are_left_alone),
        TEST(test_rates),
        TEST(test_what_experts_found),
        TEST(test_experts_of_a_ledger_without_them),
        TEST(test_a_ledger_without_rates_gets_them),
        TEST(test_damaged_bytes),
        TEST(test_a_folder_that_cannot_be_written),
        TEST(test_old_rows_go),
        TEST(test_killed_at_any_instant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
