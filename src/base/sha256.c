/* Owns the digest context. Refuses nothing. One thread each. */
#include "base/sha256.h"

#include <stdlib.h>

#include "base/libcrypto.h"

struct ash_sha256 {
    ash_libcrypto lib;
    EVP_MD_CTX *c;
    bool failed;
};

int ash_sha256_open(ash_sha256 **out, ash_err *err)
{
    *out = NULL;
    ash_sha256 *h = calloc(1, sizeof *h);
    if (!h) return ash_err_nomem(err, "a hash");
    int rc = ash_libcrypto_open(&h->lib, err);
    if (!rc) {
        h->c = h->lib.ctx_new();
        rc = ash_sha256_reset(h, err);
    }
    if (rc) {
        ash_sha256_close(h);
        return rc;
    }
    *out = h;
    return 0;
}

int ash_sha256_reset(ash_sha256 *h, ash_err *err)
{
    h->failed = !h->c || h->lib.init(h->c, h->lib.sha256(), NULL) != 1;
    return h->failed ? ash_err_nomem(err, "a hash") : 0;
}

void ash_sha256_add(ash_sha256 *h, const void *p, size_t n)
{
    if (!h->failed && n) h->failed = h->lib.update(h->c, p, n) != 1;
}

int ash_sha256_sum(ash_sha256 *h, uint8_t out[ASH_SHA256_BYTES], ash_err *err)
{
    bool ok = !h->failed && h->lib.final(h->c, out, NULL) == 1;
    return ok ? 0 : ash_err_nomem(err, "a hash");
}

void ash_sha256_close(ash_sha256 *h)
{
    if (!h) return;
    if (h->c) h->lib.ctx_free(h->c);
    free(h);
}

char *ash_sha256_hex(const uint8_t sum[ASH_SHA256_BYTES], char out[2 * ASH_SHA256_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < ASH_SHA256_BYTES; i++) {
        out[2 * i] = digits[sum[i] >> 4];
        out[2 * i + 1] = digits[sum[i] & 15];
    }
    out[2 * ASH_SHA256_BYTES] = 0;
    return out;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool ash_sha256_parse(const char *s, uint8_t out[ASH_SHA256_BYTES])
{
    for (int i = 0; i < ASH_SHA256_BYTES; i++) {
        int high = digit(s[2 * i]), low = high < 0 ? -1 : digit(s[2 * i + 1]);
        if (low < 0) return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
