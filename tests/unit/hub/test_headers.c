/* What headers and addresses mean: etags, ranges, links, times to wait; private ranges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>

#include "hub/hub_private.h"

static void take(hub_headers *h, const char *lines)
{
    hub_headers_init(h);
    for (const char *p = lines; *p;) {
        const char *end = strchr(p, '\n');
        size_t n = end ? (size_t)(end - p) + 1 : strlen(p);
        assert_true(hub_headers_line(h, p, n));
        p += n;
    }
}

static void etags(void **state)
{
    hub_headers h;
    take(&h, "HTTP/1.1 302 Found\r\nETag: W/\"abc\"\r\nX-Repo-Commit: 12ab\r\n");
    assert_string_equal(h.etag, "abc");
    assert_false(h.linked_etag);
    assert_string_equal(h.commit, "12ab");
    take(&h, "x-linked-etag:\"def\"\nx-linked-size: 17 \nETAG: \"abc\"\n");
    assert_string_equal(h.etag, "def"); /* whatever comes later */
    assert_true(h.linked_etag && h.has_linked_size);
    assert_int_equal(h.linked_size, 17);
    take(&h, "HTTP/1.1 100 Continue\r\nX-Linked-Etag: \"a\"\r\n\r\nHTTP/1.1 200 OK\r\nETag: b\r\n");
    assert_string_equal(h.etag, "b"); /* the last answer counts */
}

static void ranges(void **state)
{
    hub_headers h;
    take(&h, "Content-Range: bytes 5-9/10\r\n");
    assert_true(h.has_range && h.has_total);
    assert_int_equal(h.first, 5);
    assert_int_equal(h.last, 9);
    assert_int_equal(h.total, 10);
    take(&h, "Content-Range: bytes */10\r\n");
    assert_true(!h.has_range && h.has_total);
    take(&h, "Content-Range: bytes 5-9/*\r\n");
    assert_true(h.has_range && !h.has_total);
    static const char *const bad[] = {"bytes 9-5/10",
                                      "bytes 5-/10",
                                      "bytes -5/10",
                                      "5-9/10",
                                      "bytes 5-9",
                                      "bytes 5-9/x",
                                      "bytes 5-99999999999999999999/10",
                                      "bytes",
                                      "bytes 5",
                                      ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char line[80];
        snprintf(line, sizeof line, "Content-Range: %s\r\n", bad[i]);
        take(&h, line);
        assert_false(h.has_range);
    }
    take(&h, "Content-Range: bytes 0-99/1000\r\nContent-Range: bytes 999 of 3\r\n"); /* not half of each */
    assert_false(h.has_range || h.has_total);
}

static void sizes_that_are_none(void **state)
{
    static const char *const bad[] = {"", "-1", "1x", "18446744073709551616", "1 2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char line[80];
        hub_headers h;
        snprintf(line, sizeof line, "X-Linked-Size: %s\r\n", bad[i]);
        take(&h, line);
        assert_false(h.has_linked_size);
    }
}

static void waiting(void **state)
{
    hub_headers h;
    take(&h, "Retry-After: 7\r\n");
    assert_int_equal(h.retry_after_s, 7);
    take(&h, "Retry-After: 99999999\r\n");
    assert_int_equal(h.retry_after_s, 86400);
    take(&h, "Retry-After: soon\r\n");
    assert_int_equal(h.retry_after_s, -1);
    take(&h, "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n");
    assert_int_equal(h.retry_after_s, 0);
    char line[80];
    time_t later = time(NULL) + 100;
    struct tm tm;
    strftime(line, sizeof line, "Retry-After: %a, %d %b %Y %H:%M:%S GMT\r\n",
             gmtime_r(&later, &tm));
    take(&h, line);
    assert_in_range(h.retry_after_s, 90, 102);
    assert_int_equal(hub_backoff_ms(1, -1), 250);
    assert_int_equal(hub_backoff_ms(3, -1), 1000);
    assert_int_equal(hub_backoff_ms(1000, -1), 8000);
    assert_int_equal(hub_backoff_ms(1, 7), 7000);
    assert_int_equal(hub_backoff_ms(1, HUB_BACKOFF_MOST_S + 1), -1);
}

static void links(void **state)
{
    hub_headers h;
    take(&h, "Link: <https://h/api/models/a/b/tree/c?cursor=x%3D>; rel=\"next\"\r\n");
    assert_string_equal(h.next, "https://h/api/models/a/b/tree/c?cursor=x%3D");
    take(&h, "Link: <https://h/1>; rel=\"first\", <https://h/2>; rel=\"next\"\r\n");
    assert_string_equal(h.next, "https://h/2");
    take(&h, "Link: <https://h/1>; rel=\"prev\"\r\n");
    assert_string_equal(h.next, "");
    take(&h, "Link: <https://h/1; rel=\"next\"\r\n");
    assert_string_equal(h.next, "");
    char line[4000] = "Link: <https://h/";
    memset(line + 17, 'a', 3000);
    memcpy(line + 3017, ">; rel=\"next\"", 14);
    take(&h, line);
    assert_string_equal(h.next, ""); /* over its cap: none, never a cut one */
}

static void what_people_see_is_plain(void **state)
{
    hub_headers h;
    take(&h, "X-Error-Code: GatedRepo\r\nX-Error-Message: a\x1b[2Jb\xff\r\n");
    assert_string_equal(h.error_code, "GatedRepo");
    assert_string_equal(h.error_text, "a?[2Jb?");
}

static void headers_have_a_cap(void **state)
{
    hub_headers h;
    char line[1024];
    size_t n = 0;
    hub_headers_init(&h);
    memset(line, 'a', sizeof line);
    line[1] = ':';
    while (hub_headers_line(&h, line, sizeof line)) {
        if (n % 10 == 0) assert_true(hub_headers_line(&h, "HTTP/1.1 100 Continue\r\n", 23));
        n++;
    }
    assert_in_range(n, 50, 64);
}

static bool is_private(const char *text)
{
    struct sockaddr_storage a = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&a;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a;
    if (inet_pton(AF_INET, text, &in->sin_addr) == 1)
        a.ss_family = AF_INET;
    else {
        assert_int_equal(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
        a.ss_family = AF_INET6;
    }
    return hub_address_private((struct sockaddr *)&a);
}

static void private_ranges(void **state)
{
    static const char *const closed[] = {"0.0.0.0",
                                         "10.0.0.1",
                                         "100.64.0.1",
                                         "100.127.255.255",
                                         "127.0.0.1",
                                         "127.255.255.255",
                                         "169.254.169.254",
                                         "172.16.0.1",
                                         "172.31.255.255",
                                         "192.0.0.1",
                                         "192.168.1.1",
                                         "198.18.0.1",
                                         "224.0.0.1",
                                         "255.255.255.255",
                                         "::",
                                         "::1",
                                         "fc00::1",
                                         "fd12::1",
                                         "fe80::1",
                                         "ff02::1",
                                         "::ffff:10.0.0.1",
                                         "64:ff9b::7f00:1",
                                         "2002:0a00:1::",
                                         "64:ff9b:1::1",
                                         "::127.0.0.1"};
    static const char *const open[] = {
        "1.1.1.1",     "9.255.255.255",  "11.0.0.0",         "100.63.255.255",
        "100.128.0.0", "172.15.0.1",     "172.32.0.1",       "192.0.1.1",
        "192.169.0.1", "198.20.0.1",     "223.255.255.255",  "2606:4700::1111",
        "2a00::1",     "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:0808:808::"};
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) assert_true(is_private(closed[i]));
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) assert_false(is_private(open[i]));
    struct sockaddr local = {.sa_family = AF_UNIX};
    assert_true(hub_address_private(&local));
    assert_true(hub_host_private("localhost") && hub_host_private("LocalHost.") &&
                hub_host_private("a.localhost"));
    assert_true(hub_host_private("127.0.0.1") && hub_host_private("fe80::1") &&
                hub_host_private("fe80::1%eth0"));
    assert_false(hub_host_private("localhost.example") || hub_host_private("notlocalhost") ||
                 hub_host_private("huggingface.co") || hub_host_private("8.8.8.8"));
}

static void origins(void **state)
{
    ash_curl curl;
    hub_origin a, b;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_curl_open(&curl, &err), 0);
    assert_int_equal(hub_origin_of(&curl, "https://Hub.example/x?y#z", &a, &err), 0);
    assert_int_equal(hub_origin_of(&curl, "https://hub.example:443/other", &b, &err), 0);
    assert_true(hub_origin_eq(&a, &b));
    static const char *const others[] = {"http://hub.example/",      "https://hub.example:444/",
                                         "https://hub.example.org/", "https://hub.example.",
                                         "https://xhub.example/",    "https://[::1]/"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_int_equal(hub_origin_of(&curl, others[i], &b, &err), 0);
        assert_false(hub_origin_eq(&a, &b));
    }
    assert_string_equal(b.host, "::1");
    static const char *const bad[] = {
        "ftp://hub.example/", "file:///etc/passwd", "https://",        "hub",
        "https://u@h/",       "https://u:p@h/",     "javascript:x//h", "https://h:99999/"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(hub_origin_of(&curl, bad[i], &b, &err), ASH_EFORMAT);
    /* forms that other parsers read as names */
    assert_int_equal(hub_origin_of(&curl, "http://0x7f.1/", &b, &err), 0);
    assert_true(hub_host_private(b.host));
    assert_int_equal(hub_origin_of(&curl, "http://2130706433/", &b, &err), 0);
    assert_true(hub_host_private(b.host));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(etags),
        cmocka_unit_test(ranges),
        cmocka_unit_test(sizes_that_are_none),
        cmocka_unit_test(waiting),
        cmocka_unit_test(links),
        cmocka_unit_test(what_people_see_is_plain),
        cmocka_unit_test(headers_have_a_cap),
        cmocka_unit_test(private_ranges),
        cmocka_unit_test(origins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
