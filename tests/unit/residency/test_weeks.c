/* Four weeks of five kinds of traffic: less loading than least-recently-used, and not far from the best in
 * hindsight.
 *
 *     test_weeks                            runs, and prints the table
 *     test_weeks --write docs/RESIDENCY.md  puts the table between its two marks there */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "weeks.h"

static const char *const marks[] = {"<!-- weeks -->\n", "<!-- /weeks -->\n"};

typedef struct row {
    char name[64];
    size_t requests;
    double hindsight_s;
    weeks_result ours, lru;
} row;

static void run_shape(int shape, row *out)
{
    weeks_traffic t = weeks_make(shape, 1);
    snprintf(out->name, sizeof out->name, "%s", t.name);
    out->requests = t.n_requests;
    out->hindsight_s = weeks_hindsight(&t);
    out->ours = weeks_run(&t, weeks_ours);
    out->lru = weeks_run(&t, weeks_lru);
    free(t.requests);
}

static void write_table(ash_buf *out)
{
    ash_buf_printf(out, "| traffic of four weeks | requests | best in hindsight, s | this policy, s (loads) "
                        "| LRU, s (loads) | mean wait, s: this, LRU "
                        "| 99 %% wait, s: this, LRU |\n"
                        "| --- | --- | --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < WEEKS_SHAPES; i++) {
        row r;
        run_shape(i, &r);
        ash_buf_printf(out, "| %s | %zu | %.0f | %.0f (%zu) | %.0f (%zu) | %.2f, %.2f | %.0f, %.0f |\n",
                       r.name, r.requests, r.hindsight_s, r.ours.load_s, r.ours.loads, r.lru.load_s,
                       r.lru.loads, r.ours.mean_wait_s, r.lru.mean_wait_s, r.ours.p99_s, r.lru.p99_s);
    }
}

static int put_into(const char *path)
{
    ash_buf text, table, all;
    ash_err err = ASH_ERR_INIT;
    ash_buf_init(&table, 1 << 16);
    ash_buf_init(&all, 1 << 20);
    write_table(&table);
    int rc = ash_fs_read(path, 1 << 20, &text, &err);
    size_t from = 0, to = 0;
    for (size_t i = 0; !rc && i < text.len; i++) {
        if (text.len - i >= strlen(marks[0]) && !memcmp(text.data + i, marks[0], strlen(marks[0])))
            from = i + strlen(marks[0]);
        if (text.len - i >= strlen(marks[1]) && !memcmp(text.data + i, marks[1], strlen(marks[1]))) to = i;
    }
    if (!rc && (!from || to < from)) rc = ash_err_set(&err, ASH_EFORMAT, "%s has no marks", path);
    if (!rc) {
        ash_buf_add(&all, text.data, from);
        ash_buf_add(&all, table.data, table.len);
        ash_buf_add(&all, text.data + to, text.len - to);
        rc = ash_fs_replace(path, all.data, all.len, &err);
    }
    if (rc) fprintf(stderr, "%s\n", err.msg);
    ash_buf_release(&text);
    ash_buf_release(&table);
    ash_buf_release(&all);
    return rc ? 1 : 0;
}

static void test_less_loading_than_lru(void **state)
{
    for (int i = 0; i < WEEKS_SHAPES; i++)
        for (uint64_t seed = 1; seed <= 3; seed++) {
            weeks_traffic t = weeks_make(i, seed);
            weeks_result ours = weeks_run(&t, weeks_ours), lru = weeks_run(&t, weeks_lru);
            if (ours.load_s >= lru.load_s)
                fail_msg("%s, seed %d: %.0f s, LRU %.0f s", t.name, (int)seed, ours.load_s, lru.load_s);
            assert_int_equal(ours.worst_over, 0);
            assert_int_equal(ours.unanswered, 0);
            free(t.requests);
        }
}

static void test_near_the_best_in_hindsight(void **state)
{
    for (int i = 0; i < WEEKS_SHAPES; i++) {
        row r;
        run_shape(i, &r);
        if (r.ours.load_s > 1.45 * r.hindsight_s)
            fail_msg("%s: %.0f s, best %.0f s", r.name, r.ours.load_s, r.hindsight_s);
        assert_true(i == 2 || r.ours.load_s >= r.hindsight_s); /* only grouping can be better */
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--write")) return put_into(argv[2]);
    ash_buf table;
    ash_buf_init(&table, 1 << 16);
    write_table(&table);
    printf("%.*s", (int)table.len, (const char *)table.data);
    ash_buf_release(&table);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_less_loading_than_lru),
        cmocka_unit_test(test_near_the_best_in_hindsight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
