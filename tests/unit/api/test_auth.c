/* Hosts, origins and keys, beyond what tests/http checks over the wire. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "api/auth.h"

static void test_hosts(void **state)
{
    const char *good[] = {"localhost",       "LocalHost:80", "127.0.0.1",
                          "127.0.0.1:65535", "[::1]",        "[::1]:1"};
    const char *bad[] = {
        "",           "localhost:", "local", "localhost.", "localhost:80x", "localhost:123456",
        "127.0.0.11", "[::1]x",     "::1",   "localhost/", "a@localhost",   " localhost"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(ash_auth_host_is_loopback(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (strcmp(bad[i], "localhost:") !=
            0) /* an empty port is the default one (RFC 3986, 3.2.3) */
            assert_false(ash_auth_host_is_loopback(bad[i]));
}

static void test_origins(void **state)
{
    const char *list[] = {"https://a.example/", "tauri://", "loopback"};
    ash_auth_opts o = {.origins = list, .n_origins = 3};
    assert_true(ash_auth_origin_allowed(&o, "https://a.example"));
    assert_true(ash_auth_origin_allowed(&o, "HTTPS://A.example"));
    assert_true(ash_auth_origin_allowed(&o, "tauri://anything"));
    assert_true(ash_auth_origin_allowed(&o, "http://127.0.0.1:99"));
    assert_false(ash_auth_origin_allowed(&o, "https://a.example:444"));
    assert_false(ash_auth_origin_allowed(&o, "https://a.example.org"));
    assert_false(ash_auth_origin_allowed(&o, "app://x"));
    assert_false(ash_auth_origin_allowed(&o, "null"));
    assert_false(ash_auth_origin_allowed(&o, ""));
    const char *any[] = {"*"};
    o = (ash_auth_opts){.origins = any, .n_origins = 1};
    assert_true(ash_auth_origin_allowed(&o, "https://whatever.example"));
}

static int check(const ash_auth_opts *o, ash_auth_request r, bool is_public)
{
    ash_api_error e = {0};
    int rc = ash_auth_check(o, &r, is_public, &e);
    assert_int_equal(rc, e.status);
    return rc;
}

static void test_open_server_beyond_loopback(void **state)
{
    ash_auth_opts o = {0};
    assert_int_equal(check(&o, (ash_auth_request){.method = "GET", .host = "box.example"}, false),
                     0);
    ash_auth_request same = {
        .method = "POST", .host = "box.example:8080", .origin = "http://box.example:8080"};
    assert_int_equal(check(&o, same, false), 0);
    same.origin = "http://box.example";
    assert_int_equal(check(&o, same, false), 403);
    assert_int_equal(check(&o, same, true),
                     403); /* a forged load is none the better for a public path */
}

static void test_no_host(void **state)
{
    ash_auth_opts o = {.loopback = true};
    assert_int_equal(check(&o, (ash_auth_request){.method = "GET"}, false), 0); /* HTTP/1.0 */
    assert_int_equal(check(&o, (ash_auth_request){.method = "GET", .host = ""}, false), 403);
}

static void test_keys(void **state)
{
    const char *keys[] = {"abcdef", "x"};
    ash_auth_opts o = {.keys = keys, .n_keys = 2, .loopback = true};
    ash_auth_request r = {.method = "POST", .host = "h", .origin = "null"};
    const char *bad[] = {"Bearer abcde", "Bearer abcdefg", "Bearer abcdeg", "Bearerabcdef",
                         "abcdef",       "Bearer",         "Bearer ",       "Bearer abcdef "};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        r.authorization = bad[i];
        assert_int_equal(check(&o, r, false), 401);
        assert_int_equal(check(&o, r, true), 0);
    }
    r.authorization = "Bearer\tx";
    assert_int_equal(check(&o, r, false), 0);
    r.authorization = "Bearer wrong";
    r.api_key = "abcdef";
    assert_int_equal(check(&o, r, false), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_open_server_beyond_loopback),
        cmocka_unit_test(test_no_host),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
