/* The embedded page: complete, sorted (the search depends on it), well typed, really gzip. */
#include "api/assets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_page_is_there(void **state)
{
    const ash_asset *page = ash_asset_find("/");
    assert_non_null(page);
    assert_string_equal(page->content_type, "text/html; charset=utf-8");
    const ash_asset *script = ash_asset_find("/assets/main.js");
    assert_non_null(script);
    assert_string_equal(script->content_type, "text/javascript; charset=utf-8");
    assert_non_null(ash_asset_find("/assets/style.css"));
    assert_non_null(ash_asset_find("/assets/highlighter.js"));
    assert_non_null(ash_asset_find("/assets/licenses.txt"));
}

static void test_only_exact_paths(void **state)
{
    static const char *const paths[] = {"",
                                        "/assets",
                                        "/assets/",
                                        "/assets/main.j",
                                        "/assets/main.js/",
                                        "/assets/../assets/main.js",
                                        "assets/main.js",
                                        "/index.html"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) assert_null(ash_asset_find(paths[i]));
}

static void test_every_asset(void **state)
{
    size_t total = 0;
    assert_true(ash_n_assets >= 6);
    for (size_t i = 0; i < ash_n_assets; i++) {
        const ash_asset *a = &ash_assets[i];
        if (i > 0) assert_true(strcmp(ash_assets[i - 1].path, a->path) < 0);
        assert_ptr_equal(ash_asset_find(a->path), a);
        assert_true(a->gzip && a->size > 18);
        assert_int_equal(a->data[0], 0x1f);
        assert_int_equal(a->data[1], 0x8b);
        assert_int_equal(strlen(a->etag), 18);
        assert_true(a->etag[0] == '"' && a->etag[17] == '"');
        if (strcmp(a->path, "/assets/licenses.txt")) total += a->size;
    }
    assert_true(total <= 80000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_is_there),
        cmocka_unit_test(test_only_exact_paths),
        cmocka_unit_test(test_every_asset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
