/* The cache on disk: names, links, locks, references; what was put there by hand is not believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "../scratch_dir.h"
#include "base/fs.h"
#include "lists.h"

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static ash_hub *open_in(const char *dir)
{
    ash_hub *h;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_hub_open(&(ash_hub_opts){.cache_dir = dir}, &h, &err), 0);
    return h;
}

static void put(const char *path, const char *text, size_t n)
{
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_fs_replace(path, text, n, &err), 0);
}

static void links(void **state)
{
    ash_hub *h = open_in(*state);
    ash_hub_tree *t = lists_make(NAMES("a/b/c.json"));
    const ash_hub_file *f = &t->files[0];
    char blob[HUB_PATH], path[HUB_PATH], target[200], content[100] = {0};
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(hub_cache_prepare(h, t, &err), 0);
    assert_false(hub_cache_blob(h, t, f));
    assert_int_equal(hub_cache_file(h, t, f, HUB_BLOB, blob, &err), 0);
    put(blob, content, 99);
    assert_false(hub_cache_blob(h, t, f)); /* cut */
    put(blob, content, 100);
    assert_true(hub_cache_blob(h, t, f));
    assert_false(hub_cache_linked(h, t, f));
    assert_int_equal(hub_cache_link(h, t, f, &err), 0);
    assert_true(hub_cache_linked(h, t, f));
    snprintf(path, sizeof path, "%s/models--org--repo/snapshots/" LISTS_GIT "/a/b/c.json", (char *)*state);
    ssize_t n = readlink(path, target, sizeof target - 1);
    assert_true(n > 0);
    target[n] = 0;
    assert_string_equal(target, "../../../../blobs/" LISTS_GIT);
    /* one that leads elsewhere, to a file of the right size, is put anew */
    assert_int_equal(unlink(path), 0);
    char other[HUB_PATH + 8];
    snprintf(other, sizeof other, "%s.other", blob);
    put(other, content, 100);
    assert_int_equal(symlink(other, path), 0);
    assert_false(hub_cache_linked(h, t, f));
    assert_int_equal(hub_cache_link(h, t, f, &err), 0);
    assert_true(hub_cache_linked(h, t, f));
    assert_int_equal(unlink(path), 0);
    put(path, content, 100); /* a copy, where links are refused */
    assert_true(hub_cache_linked(h, t, f));
    ash_hub_tree_close(t);
    ash_hub_close(h);
}

static void locks(void **state)
{
    ash_hub *h = open_in(*state);
    ash_hub_tree *t = lists_make(NAMES("a.json", "b.bin*"));
    ash_err err = ASH_ERR_INIT;
    int one, two, other;
    char path[HUB_PATH];
    assert_int_equal(hub_cache_prepare(h, t, &err), 0);
    assert_int_equal(hub_cache_lock(h, t, &t->files[0], &one, &err), 0);
    assert_int_equal(hub_cache_lock(h, t, &t->files[0], &two, &err), ASH_EAGAIN);
    assert_int_equal(hub_cache_lock(h, t, &t->files[1], &other, &err), 0);
    close(other);
    close(one);
    assert_int_equal(hub_cache_lock(h, t, &t->files[0], &two, &err), 0);
    snprintf(path, sizeof path, "%s/.locks/models--org--repo/" LISTS_GIT ".lock", (char *)*state);
    assert_int_equal(unlink(path), 0); /* by somebody: the next one gets a lock of the new file */
    assert_int_equal(hub_cache_lock(h, t, &t->files[0], &one, &err), 0);
    close(one);
    close(two);
    ash_hub_tree_close(t);
    ash_hub_close(h);
}

static void references(void **state)
{
    ash_hub *h = open_in(*state);
    ash_hub_tree *t = lists_make(NAMES("a.json")), *found;
    ash_err err = ASH_ERR_INIT;
    char commit[HUB_COMMIT + 1], path[HUB_PATH];
    assert_false(hub_cache_commit(h, "org/repo", "main", commit));
    assert_int_equal(hub_cache_prepare(h, t, &err), 0);
    assert_int_equal(hub_cache_ref(h, t, &err), 0);
    assert_true(hub_cache_commit(h, "org/repo", "main", commit));
    assert_string_equal(commit, LISTS_GIT);
    assert_true(hub_cache_commit(h, "org/repo", LISTS_GIT, commit));
    snprintf(path, sizeof path, "%s/models--org--repo/refs/main", (char *)*state);
    static const char *const bad[] = {"", "rubbish", "../../../etc", LISTS_GIT "0", LISTS_GIT "/.."};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put(path, bad[i], strlen(bad[i]));
        assert_false(hub_cache_commit(h, "org/repo", "main", commit));
    }
    put(path, LISTS_GIT "\n", 41);
    h->offline = true;
    snprintf(path, sizeof path, "%s/models--org--repo/snapshots/" LISTS_GIT "/x", (char *)*state);
    put(path, "12345", 5);
    assert_int_equal(ash_hub_list(h, "org/repo", "main", NULL, &found, &err), 0);
    assert_true(found->from_cache && !found->whole && found->n_files == 1);
    assert_int_equal(found->files[0].size, 5);
    ash_hub_tree_close(found);
    assert_int_equal(ash_hub_list(h, "org/other", "main", NULL, &found, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "HF_HUB_OFFLINE"));
    ash_hub_tree_close(t);
    ash_hub_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(links, scratch_dir_make, scratch_dir_remove),
        cmocka_unit_test_setup_teardown(locks, scratch_dir_make, scratch_dir_remove),
        cmocka_unit_test_setup_teardown(references, scratch_dir_make, scratch_dir_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
