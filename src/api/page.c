/* Owns the page and its files: caching by ETag, and inflating for the rare client without gzip. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "api/assets.h"
#include "api/call.h"

enum { MAX_ASSET = 8 << 20 };

static bool accepts_gzip(const ash_exchange *x)
{
    const char *accept = ash_exchange_header(x, "Accept-Encoding");
    const char *at = accept ? strstr(accept, "gzip") : NULL;
    if (!at) return false;
    at += strspn(at + 4, " ") + 4;
    return strncmp(at, ";q=0", 4) != 0 || strtod(at + 3, NULL) > 0;
}

static int inflate_asset(const ash_asset *a, ash_buf *out)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)a->data, .avail_in = (uInt)a->size};
    if (inflateInit2(&z, 15 + 16) != Z_OK) return ASH_ENOMEM;
    int rc = Z_OK;
    while (rc == Z_OK) {
        char *to = ash_buf_reserve(out, 64 << 10);
        if (!to) break;
        z.next_out = (Bytef *)to;
        z.avail_out = 64 << 10;
        rc = inflate(&z, Z_NO_FLUSH);
        out->len += (64u << 10) - z.avail_out;
    }
    inflateEnd(&z);
    return rc == Z_STREAM_END ? 0 : ASH_ENOMEM;
}

static void page_headers(ash_exchange *x, const ash_asset *a)
{
    ash_exchange_add_header(x, "Content-Security-Policy", ASH_ASSET_CSP);
    ash_exchange_add_header(x, "X-Content-Type-Options", "nosniff");
    ash_exchange_add_header(x, "Referrer-Policy", "no-referrer");
    ash_exchange_add_header(x, "Cross-Origin-Opener-Policy", "same-origin");
    ash_exchange_add_header(x, "ETag", a->etag);
    ash_exchange_add_header(x, "Cache-Control", "no-cache"); /* ask, and get 304 */
    ash_exchange_add_header(x, "Vary", "Accept-Encoding, Accept");
}

static void send_asset(ash_call *c, const ash_asset *a)
{
    page_headers(c->x, a);
    const char *has = ash_exchange_header(c->x, "If-None-Match");
    if (has && (strstr(has, a->etag) || !strcmp(has, "*"))) {
        ash_exchange_respond(c->x, 304, NULL, NULL);
        return;
    }
    if (!a->gzip || accepts_gzip(c->x)) {
        if (a->gzip) ash_exchange_add_header(c->x, "Content-Encoding", "gzip");
        ash_exchange_respond_static(c->x, 200, a->content_type, a->data, a->size);
        return;
    }
    ash_buf plain;
    ash_buf_init(&plain, MAX_ASSET);
    if (inflate_asset(a, &plain))
        ash_call_value(c, 200, NULL);
    else
        ash_exchange_respond(c->x, 200, a->content_type, &plain);
    ash_buf_release(&plain);
}

void ash_page_root(ash_call *c)
{
    static const char text[] = "Ollama is running";
    const char *accept = ash_exchange_header(c->x, "Accept");
    const ash_asset *page = accept && strstr(accept, "text/html") ? ash_asset_find("/") : NULL;
    if (page) {
        send_asset(c, page);
        return;
    }
    ash_exchange_add_header(c->x, "Vary", "Accept");
    ash_exchange_respond_static(c->x, 200, "text/plain; charset=utf-8", text, sizeof text - 1);
}

void ash_page_asset(ash_call *c)
{
    const ash_asset *a = ash_asset_find(ash_exchange_path(c->x));
    if (a) {
        send_asset(c, a);
        return;
    }
    ash_api_error e;
    ash_errors_set(&e, 404, "not_found", NULL, "there is no such file");
    ash_call_error(c, &e);
}
