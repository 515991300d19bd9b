/* Owns the table of libcrypto's functions, of the version whose headers it was built with. Any thread. */
#include "base/libcrypto.h"

#include "base/library.h"

#define TEXT(x) #x
#define LIBCRYPTO(version) "libcrypto.so." TEXT(version)

int ash_libcrypto_open(ash_libcrypto *lib, ash_err *err)
{
    static const ash_symbol symbols[] = {
        {"EVP_MD_CTX_new", offsetof(ash_libcrypto, ctx_new)},
        {"EVP_MD_CTX_free", offsetof(ash_libcrypto, ctx_free)},
        {"EVP_sha1", offsetof(ash_libcrypto, sha1)},
        {"EVP_sha256", offsetof(ash_libcrypto, sha256)},
        {"EVP_DigestInit_ex", offsetof(ash_libcrypto, init)},
        {"EVP_DigestUpdate", offsetof(ash_libcrypto, update)},
        {"EVP_DigestFinal_ex", offsetof(ash_libcrypto, final)},
    };
    return ash_library_open(LIBCRYPTO(OPENSSL_SHLIB_VERSION), symbols,
                            sizeof symbols / sizeof *symbols, lib, err);
}
