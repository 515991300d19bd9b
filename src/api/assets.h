/* The page's files, embedded at build by web/bundle.py. Read-only data of the program: any thread,
 * no errors, nothing to release. */
#ifndef ASHLEY_API_ASSETS_H
#define ASHLEY_API_ASSETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* To be sent with every asset. No inline script or style, nothing from elsewhere, no framing. */
#define ASH_ASSET_CSP                                                                              \
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "              \
    "connect-src 'self'; font-src 'self'; form-action 'none'; base-uri 'none'; "                   \
    "frame-ancestors 'none'"

typedef struct ash_asset {
    const char *path;         /* "/" for the page itself, else "/assets/..." */
    const char *content_type; /* "text/javascript; charset=utf-8", ... */
    const char *etag;         /* with its quotes; the same content has the same one for ever */
    const uint8_t *data;      /* [size] */
    size_t size;
    bool gzip;                /* data is gzip: send Content-Encoding, or inflate it for a client
                               * that does not accept it */
} ash_asset;

/* All assets, sorted by path in byte order. */
extern const ash_asset ash_assets[];
extern const size_t ash_n_assets;

/* The asset at exactly this path, or NULL. */
const ash_asset *ash_asset_find(const char *path);

#endif
