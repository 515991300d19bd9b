/* The provider that answers from an upstream OpenAI-compatible server over libcurl. */
#ifndef ASHLEY_PROVIDER_OPENAI_H
#define ASHLEY_PROVIDER_OPENAI_H

#include "provider/provider.h"

typedef struct ash_openai_opts {
    const char *name;     /* "openai": what X-Ashley-Served-By says */
    const char *base_url; /* "https://.../v1"; a trailing slash is fine */
    const char *api_key;  /* may be NULL for servers without one; never shown */
    const char *proxy, *no_proxy; /* NULL = none */
} ash_openai_opts;

/* Starts its transfer thread; strings are copied. ASH_EINVAL for a base_url that is no http(s) URL. */
int ash_openai_open(const ash_openai_opts *opts, ash_provider **out, ash_err *err) ASH_MUST_CHECK;

#endif
