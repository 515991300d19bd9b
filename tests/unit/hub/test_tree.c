/* Listings: what is read of them, and what is refused: paths that leave the folder, hashes that are
 * none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lists.h"

static int page(const char *json, ash_hub_tree **out, ash_err *err)
{
    hub_list *l;
    assert_int_equal(hub_list_open("org/repo", NULL, &l, err), 0);
    int rc = hub_list_page(l, json, strlen(json), err);
    if (!rc) rc = hub_list_finish(l, err);
    if (rc)
        ash_hub_tree_close(&l->tree);
    else
        *out = &l->tree;
    return rc;
}

static void a_page(void **state)
{
    ash_hub_tree *t;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(
        page("[{\"type\":\"directory\",\"oid\":\"x\",\"size\":0,\"path\":\"../x\"},"
             "{\"type\":\"file\",\"oid\":\"" LISTS_GIT "\",\"size\":12,\"path\":\"b/c d.json\"},"
             "{\"type\":\"file\",\"oid\":\"" LISTS_GIT "\",\"size\":135,\"path\":\"a.safetensors\","
             "\"lfs\":{\"oid\":\"" LISTS_SHA256 "\",\"size\":5000000000,\"pointerSize\":135},"
             "\"xetHash\":\"0\"}]",
             &t, &err),
        0);
    assert_int_equal(t->n_files, 2);
    assert_string_equal(t->files[0].path, "a.safetensors");
    assert_true(t->files[0].size == 5000000000u);
    assert_string_equal(t->files[0].sha256, LISTS_SHA256);
    assert_null(t->files[0].git); /* that is the pointer's */
    const ash_hub_file *f = ash_hub_tree_find(t, "b/c d.json");
    assert_non_null(f);
    assert_string_equal(f->git, LISTS_GIT);
    assert_null(f->sha256);
    assert_null(ash_hub_tree_find(t, "b"));
    ash_hub_tree_close(t);
}

static void refused(const char *json, int code, const char *word)
{
    ash_hub_tree *t;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(page(json, &t, &err), code);
    if (!strstr(err.msg, word)) fail_msg("'%s' is not in '%s'", word, err.msg);
}

static void bad_pages(void **state)
{
    static const char *const paths[] = {"../x",    "/etc/passwd", "a/../b",   "a//b",   "a/",
                                        ".",       "./a",         "a/..",     "",       "a\\\\b",
                                        "..\\\\b", "a\\u0001",    "a\\u007f", "C:\\\\x"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char json[300];
        snprintf(json, sizeof json,
                 "[{\"type\":\"file\",\"oid\":\"" LISTS_GIT "\",\"size\":1,\"path\":\"%s\"}]",
                 paths[i]);
        refused(json, ASH_EFORMAT, "no plain path");
    }
    refused("{}", ASH_EFORMAT, "array");
    refused("[1]", ASH_EFORMAT, "number");
    refused("[{\"type\":\"file\",\"oid\":\"" LISTS_GIT "\",\"size\":-1,\"path\":\"a\"}]",
            ASH_EFORMAT, "type");
    refused("[{\"type\":\"file\",\"oid\":\"" LISTS_GIT "\",\"path\":\"a\"}]", ASH_EFORMAT, "size");
    refused("[{\"type\":\"file\",\"size\":1,\"path\":\"a\"}]", ASH_EFORMAT, "oid");
    refused("[{\"type\":\"file\",\"oid\":\"../../x\",\"size\":1,\"path\":\"a\"}]", ASH_EFORMAT,
            "hash");
    refused("[{\"type\":\"file\",\"oid\":\"" LISTS_GIT
            "\",\"size\":1,\"path\":\"a\",\"lfs\":{\"size\":1}}]",
            ASH_EFORMAT, "oid");
    refused("[{\"type\":\"file\",\"oid\":\"" LISTS_GIT
            "\",\"size\":1,\"path\":\"a\",\"lfs\":{\"oid\":\"A\",\"size\":1}}]",
            ASH_EFORMAT, "hash");
    refused("[{\"type\":\"file\",\"oid\":\"" LISTS_GIT "\",\"size\":9000000000000,\"path\":\"a\"}]",
            ASH_ELIMIT, "bytes");
    refused("[{\"type\":\"file\",\"oid\":\"" LISTS_GIT "\",\"size\":1,\"path\":\"a\"},"
            "{\"type\":\"file\",\"oid\":\"" LISTS_GIT "\",\"size\":2,\"path\":\"a\"}]",
            ASH_EFORMAT, "twice");
}

static void a_kept_list(void **state)
{
    static const char json[] =
        "{\"format_version\":1,\"files\":{\"a\":{\"size\":3,\"blob_id\":\"" LISTS_GIT "\"},"
        "\"b\":{\"size\":4,\"blob_id\":\"" LISTS_GIT "\",\"lfs_sha256\":\"" LISTS_SHA256
        "\",\"lfs_size\":4,\"xet_hash\":\"" LISTS_SHA256 "\"}}}";
    hub_list *l;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(hub_list_open("repo", "v1/x", &l, &err), 0);
    assert_int_equal(hub_list_kept(l, json, sizeof json - 1, &err), 0);
    assert_int_equal(l->tree.n_files, 2);
    assert_string_equal(l->tree.files[1].sha256, LISTS_SHA256);
    static const char later[] = "{\"format_version\":2,\"files\":{}}";
    assert_true(hub_list_kept(l, later, sizeof later - 1, &err) < 0);
    ash_hub_tree_close(&l->tree);
}

static void names(void **state)
{
    static const char *const good[] = {"gpt2", "org/name", "a/b", "Org-1/n_a.me-2", "_a/b_"};
    static const char *const bad[] = {"",       "/",     "a/",           "/a",    "a/b/c", "a--b/c",
                                      "a..b/c", "../c",  "a/b.git",      "-a/b",  "a/.b",  "a/b-",
                                      "a b/c",  "a/b\n", "models--a--b", "a:b/c", "a/b?x"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(ash_hub_repo_ok(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(ash_hub_repo_ok(bad[i]));
    hub_list *l;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(hub_list_open("a/b", "../../x", &l, &err), ASH_EINVAL);
    assert_int_equal(hub_list_open("a/b", "/x", &l, &err), ASH_EINVAL);
    assert_int_equal(hub_list_open("../b", "main", &l, &err), ASH_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page),
        cmocka_unit_test(bad_pages),
        cmocka_unit_test(a_kept_list),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
