/* A hub cache is counted as it is, and loses what is taken out of it and nothing else; a process
 * killed at any step of a removal leaves a cache that is whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../scratch_dir.h"
#include "hub/survey.h"

#define ONE "1111111111111111111111111111111111111111"
#define TWO "2222222222222222222222222222222222222222"
#define BLOB(c) c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c
#define REPO "models--org--name"

/* The step at which the process ends; 0: never. */
static int steps_left;

int __real_unlinkat(int at, const char *name, int flags);
int __wrap_unlinkat(int at, const char *name, int flags);
int __real_renameat(int from, const char *old, int to, const char *name);
int __wrap_renameat(int from, const char *old, int to, const char *name);

int __wrap_unlinkat(int at, const char *name, int flags)
{
    if (steps_left && !--steps_left) _exit(9);
    return __real_unlinkat(at, name, flags);
}

int __wrap_renameat(int from, const char *old, int to, const char *name)
{
    if (steps_left && !--steps_left) _exit(9);
    return __real_renameat(from, old, to, name);
}

static void put(const char *cache, const char *path, const char *text)
{
    char at[512];
    snprintf(at, sizeof at, "%s/%s", cache, path);
    for (char *p = at + strlen(cache) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        assert_true(!mkdir(at, 0755) || errno == EEXIST);
        *p = '/';
    }
    FILE *f = fopen(at, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void put_link(const char *cache, const char *path, const char *to)
{
    char at[512];
    put(cache, path, "");
    snprintf(at, sizeof at, "%s/%s", cache, path);
    assert_int_equal(unlink(at), 0);
    assert_int_equal(symlink(to, at), 0);
}

static bool there(const char *cache, const char *path)
{
    char at[512];
    struct stat st;
    snprintf(at, sizeof at, "%s/%s", cache, path);
    return !lstat(at, &st);
}

/* Two revisions that share a blob (a); the second has two GGUF files and a configuration. */
static void make_cache(const char *c)
{
    put(c, REPO "/blobs/" BLOB("a"), "shared configuration");
    put(c, REPO "/blobs/" BLOB("b"), "weights of the first");
    put(c, REPO "/blobs/" BLOB("c"), "weights of the second, Q4_0");
    put(c, REPO "/blobs/" BLOB("d"), "weights of the second, Q8_0");
    put_link(c, REPO "/snapshots/" ONE "/config.json", "../../blobs/" BLOB("a"));
    put_link(c, REPO "/snapshots/" ONE "/model.safetensors", "../../blobs/" BLOB("b"));
    put_link(c, REPO "/snapshots/" TWO "/config.json", "../../blobs/" BLOB("a"));
    put_link(c, REPO "/snapshots/" TWO "/deep/m.Q4_0.gguf", "../../../blobs/" BLOB("c"));
    put_link(c, REPO "/snapshots/" TWO "/m.Q8_0.gguf", "../../blobs/" BLOB("d"));
    put(c, REPO "/refs/main", TWO);
    put(c, REPO "/refs/pr/1", ONE);
    put(c, ".locks/" REPO "/" BLOB("c") ".lock", "");
    put(c, "models--org--other/blobs/" BLOB("a"), "of another");
    put_link(c, "models--org--other/snapshots/" ONE "/m.gguf", "../../blobs/" BLOB("a"));
    put(c, "models--org--other/refs/main", ONE);
}

static const ash_hub_use *survey(const char *c, ash_hub_survey *s, const char *repo)
{
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_hub_survey_read(c, s, &err), 0);
    return ash_hub_survey_find(s, repo);
}

static void expect_whole(const char *c)
{
    ash_hub_survey s;
    survey(c, &s, "");
    for (size_t i = 0; i < s.n; i++) {
        assert_int_equal(s.v[i].n_broken, 0);
        assert_int_equal(s.v[i].n_lost_refs, 0);
    }
    ash_hub_survey_release(&s);
}

static bool wants(void *user, const char *rel)
{
    return !fnmatch(user, rel, 0);
}

static int take(const char *c, const char *commit, const char *pattern, bool dry,
                ash_hub_removal *out)
{
    ash_err err = ASH_ERR_INIT;
    return ash_hub_remove(c, "org/name", commit, pattern ? wants : NULL, (void *)pattern, dry, out,
                          &err);
}

static void test_counts(void **state)
{
    const char *c = *state;
    ash_hub_survey s;
    make_cache(c);
    put(c, REPO "/blobs/" BLOB("e"), "nobody's");
    put(c, REPO "/blobs/" BLOB("f") ".01234567.incomplete", "half");
    put(c, REPO "/refs/lost", "3333333333333333333333333333333333333333");
    put_link(c, REPO "/snapshots/" ONE "/gone.bin", "../../blobs/" BLOB("9"));
    put(c, "not-a-model/x", "");
    const ash_hub_use *u = survey(c, &s, "org/name");
    assert_int_equal(s.n, 2);
    assert_non_null(u);
    assert_string_equal(u->folder, REPO);
    assert_int_equal(u->n_snapshots, 2);
    assert_int_equal(u->n_files, 6);
    assert_int_equal(u->n_broken, 1);
    assert_string_equal(u->broken, ONE "/gone.bin");
    assert_int_equal(u->n_orphans, 1);
    assert_int_equal(u->n_partial, 1);
    assert_true(u->partial_bytes > 0 && u->orphan_bytes > 0 &&
                u->bytes >= u->partial_bytes + u->orphan_bytes);
    assert_true(u->partial_s > 1000000000);
    assert_int_equal(u->n_lost_refs, 1);
    assert_null(ash_hub_survey_find(&s, "org/nothing"));
    ash_hub_survey_release(&s);
    survey("/nowhere/at/all", &s, "");
    assert_int_equal(s.n, 0);
    ash_hub_survey_release(&s);
}

static void test_one_of_two_snapshots(void **state)
{
    const char *c = *state;
    ash_hub_removal dry, done;
    make_cache(c);
    assert_int_equal(take(c, ONE, NULL, true, &dry), 0);
    assert_true(there(c, REPO "/snapshots/" ONE) && there(c, REPO "/refs/pr/1"));
    assert_int_equal(take(c, ONE, NULL, false, &done), 0);
    assert_memory_equal(&dry, &done, sizeof dry);
    assert_int_equal(done.n_files, 2);
    assert_int_equal(done.n_blobs, 1);
    assert_true(!done.whole && done.bytes > 0);
    assert_false(there(c, REPO "/snapshots/" ONE));
    assert_false(there(c, REPO "/refs/pr/1"));
    assert_false(there(c, REPO "/blobs/" BLOB("b")));
    assert_true(there(c, REPO "/blobs/" BLOB("a"))); /* the other one uses it */
    assert_true(there(c, REPO "/refs/main") && there(c, REPO "/snapshots/" TWO "/m.Q8_0.gguf"));
    expect_whole(c);
    assert_int_equal(take(c, ONE, NULL, false, &done), ASH_ENOENT);
}

static void test_one_file_of_a_snapshot(void **state)
{
    const char *c = *state;
    ash_hub_removal dry, done;
    make_cache(c);
    assert_int_equal(take(c, TWO, "*Q4_0*", true, &dry), 0);
    assert_int_equal(take(c, TWO, "*Q4_0*", false, &done), 0);
    assert_memory_equal(&dry, &done, sizeof dry);
    assert_int_equal(done.n_files, 1);
    assert_int_equal(done.n_blobs, 1);
    assert_false(there(c, REPO "/blobs/" BLOB("c")));
    assert_true(there(c, REPO "/blobs/" BLOB("d")) && there(c, REPO "/refs/main"));
    expect_whole(c);
    /* with the last weights the rest of the snapshot goes */
    assert_int_equal(take(c, TWO, "*Q8_0*", false, &done), 0);
    assert_int_equal(done.n_files, 2);
    assert_false(there(c, REPO "/snapshots/" TWO) || there(c, REPO "/refs/main"));
    assert_true(there(c, REPO "/blobs/" BLOB("a")) && !done.whole);
    expect_whole(c);
    /* and with the last snapshot the repository */
    assert_int_equal(take(c, ONE, "model*", false, &done), 0);
    assert_true(done.whole && !there(c, REPO));
    assert_true(there(c, "models--org--other/refs/main"));
    expect_whole(c);
}

static void test_whole_repository(void **state)
{
    const char *c = *state;
    ash_hub_removal dry, done;
    make_cache(c);
    assert_int_equal(take(c, NULL, NULL, true, &dry), 0);
    assert_true(dry.whole && dry.n_blobs == 4 && dry.n_files == 5);
    assert_int_equal(take(c, NULL, NULL, false, &done), 0);
    assert_memory_equal(&dry, &done, sizeof dry);
    assert_false(there(c, REPO));
    expect_whole(c);
    assert_int_equal(take(c, NULL, NULL, false, &done), ASH_ENOENT);
}

static void test_a_fetch_keeps_its_repository(void **state)
{
    const char *c = *state;
    char lock[512];
    ash_hub_removal done;
    make_cache(c);
    snprintf(lock, sizeof lock, "%s/.locks/" REPO "/" BLOB("c") ".lock", c);
    int fd = open(lock, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(take(c, ONE, NULL, false, &done), ASH_EAGAIN);
    assert_int_equal(take(c, NULL, NULL, false, &done), ASH_EAGAIN);
    assert_true(there(c, REPO "/snapshots/" ONE "/config.json"));
    close(fd);
    assert_int_equal(take(c, NULL, NULL, false, &done), 0);
}

/* A link to a folder leads nowhere: what is behind it is neither counted nor removed. */
static void test_links_are_not_followed(void **state)
{
    const char *c = *state;
    char target[512];
    ash_hub_removal done;
    ash_hub_survey s;
    make_cache(c);
    put(c, "elsewhere/precious.gguf", "not of the cache");
    snprintf(target, sizeof target, "%s/elsewhere", c);
    put_link(c, REPO "/snapshots/" ONE "/folder", target);
    put_link(c, "models--org--link", target);
    assert_null(survey(c, &s, "org/link"));
    ash_hub_survey_release(&s);
    assert_int_equal(take(c, ONE, NULL, false, &done), 0);
    assert_int_equal(take(c, NULL, NULL, false, &done), 0);
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_hub_remove(c, "org/link", NULL, NULL, NULL, false, &done, &err),
                     ASH_ENOENT);
    assert_true(there(c, "elsewhere/precious.gguf"));
    assert_int_equal(ash_hub_remove(c, "../elsewhere", NULL, NULL, NULL, false, &done, &err),
                     ASH_ENOENT);
    assert_int_equal(ash_hub_remove(c, "a/b/c", NULL, NULL, NULL, false, &done, &err), ASH_EINVAL);
    assert_true(there(c, "elsewhere/precious.gguf"));
}

/* True if the process ended by itself, not at step n. */
static bool dies_at(const char *c, const char *commit, const char *pattern, int n)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        ash_hub_removal done;
        steps_left = n;
        _exit(take(c, commit, pattern, false, &done) ? 1 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 9));
    return WEXITSTATUS(status) == 0;
}

static void test_killed_at_every_step(void **state)
{
    static const struct {
        const char *commit, *pattern;
    } cases[] = {{ONE, NULL}, {TWO, "*Q4_0*"}, {TWO, NULL}, {NULL, NULL}};
    char command[512];
    for (size_t i = 0; i < 4; i++) {
        bool ended = false;
        int steps = 0;
        while (!ended) {
            snprintf(command, sizeof command, "%s/%zu-%d", (const char *)*state, i, ++steps);
            assert_int_equal(mkdir(command, 0755), 0);
            make_cache(command);
            ended = dies_at(command, cases[i].commit, cases[i].pattern, steps);
            expect_whole(command);
            ash_hub_removal done;
            int rc = take(command, cases[i].commit, cases[i].pattern, false,
                          &done); /* and once more, to the end */
            assert_true(rc == 0 || rc == ASH_ENOENT);
            ash_hub_clean(command);
            ash_hub_survey s;
            const ash_hub_use *u = survey(command, &s, "org/name");
            assert_int_equal(s.n_removed, 0);
            assert_true(!cases[i].commit == !u);
            ash_hub_survey_release(&s);
            expect_whole(command);
        }
        assert_true(steps > 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counts, scratch_dir_make, scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_one_of_two_snapshots, scratch_dir_make,
                                        scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_one_file_of_a_snapshot, scratch_dir_make,
                                        scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_whole_repository, scratch_dir_make,
                                        scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_a_fetch_keeps_its_repository, scratch_dir_make,
                                        scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_links_are_not_followed, scratch_dir_make,
                                        scratch_dir_remove),
        cmocka_unit_test_setup_teardown(test_killed_at_every_step, scratch_dir_make,
                                        scratch_dir_remove)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
