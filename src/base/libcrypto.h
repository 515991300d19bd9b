/* libcrypto's digests (OpenSSL, EVP_DigestInit(3)), opened at the first hash: a start that hashes
 * nothing does without its megabytes. */
#ifndef ASHLEY_BASE_LIBCRYPTO_H
#define ASHLEY_BASE_LIBCRYPTO_H

#include <openssl/evp.h>

#include "base/err.h"

typedef struct ash_libcrypto {
    EVP_MD_CTX *(*ctx_new)(void);
    void (*ctx_free)(EVP_MD_CTX *c);
    const EVP_MD *(*sha1)(void);
    const EVP_MD *(*sha256)(void);
    int (*init)(EVP_MD_CTX *c, const EVP_MD *type, ENGINE *engine);
    int (*update)(EVP_MD_CTX *c, const void *p, size_t n);
    int (*final)(EVP_MD_CTX *c, unsigned char *sum, unsigned *n);
} ash_libcrypto;

/* Fills the caller's table. ASH_ENOENT if the library is not there. Any thread. */
int ash_libcrypto_open(ash_libcrypto *lib, ash_err *err) ASH_MUST_CHECK;

#endif
