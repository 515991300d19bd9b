/* Owns the rules of where bytes may come from: origins, private ranges, redirects. Refuses, as
 * hub.h says, what would lead the program to a machine that the configuration did not name. Any
 * thread. */
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "hub/hub_private.h"

bool hub_origin_eq(const hub_origin *a, const hub_origin *b)
{
    return a->tls == b->tls && !strcmp(a->host, b->host) && !strcmp(a->port, b->port);
}

/* ---- private ranges (RFC 6890 and its registries) ---- */

typedef struct range4 {
    uint32_t net;
    int bits;
} range4;

static bool private4(uint32_t ip)
{
    static const range4 ranges[] = {
        {0x00000000, 8},  /* this network */
        {0x0A000000, 8},  /* RFC 1918 */
        {0x64400000, 10}, /* shared, RFC 6598 */
        {0x7F000000, 8},  /* loopback */
        {0xA9FE0000, 16}, /* link-local: clouds answer with credentials there */
        {0xAC100000, 12}, /* RFC 1918 */
        {0xC0000000, 24}, /* protocol assignments */
        {0xC0A80000, 16}, /* RFC 1918 */
        {0xC6120000, 15}, /* benchmarks */
        {0xE0000000, 3},  /* multicast, reserved, broadcast */
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if ((ip ^ ranges[i].net) >> (32 - ranges[i].bits) == 0) return true;
    return false;
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool private6(const uint8_t a[16])
{
    static const uint8_t zero[12] = {0}, mapped[12] = {[10] = 0xFF, [11] = 0xFF};
    static const uint8_t nat64[12] = {0x00, 0x64, 0xFF, 0x9B};
    if (!memcmp(a, zero, 12) || !memcmp(a, mapped, 12)) return private4(be32(a + 12)); /* ::1 too */
    if (!memcmp(a, nat64, 12)) return private4(be32(a + 12));
    if (a[0] == 0x20 && a[1] == 0x02) return private4(be32(a + 2));                /* 6to4 */
    if (a[0] == 0x00 && a[1] == 0x64 && a[2] == 0xFF && a[3] == 0x9B) return true; /* local NAT64 */
    return (a[0] & 0xFE) == 0xFC || (a[0] == 0xFE && a[1] >= 0x80) || a[0] == 0xFF;
}

bool hub_address_private(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof in);
        return private4(ntohl(in.sin_addr.s_addr));
    }
    if (a->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, a, sizeof in6);
        return private6(in6.sin6_addr.s6_addr);
    }
    return true; /* no address of the internet */
}

bool hub_host_private(const char *host)
{
    struct in_addr in;
    struct in6_addr in6;
    size_t n = strlen(host);
    if (inet_pton(AF_INET, host, &in) == 1) return private4(ntohl(in.s_addr));
    if (strchr(host, ':')) return inet_pton(AF_INET6, host, &in6) != 1 || private6(in6.s6_addr);
    if (n && host[n - 1] == '.') n--;
    return (n == 9 && !strncasecmp(host, "localhost", 9)) ||
           (n > 10 && !strncasecmp(host + n - 10, ".localhost", 10));
}

/* ---- URLs ---- */

static bool part(const ash_curl *curl, CURLU *u, CURLUPart which, unsigned flags, char *out,
                 size_t room)
{
    char *text = NULL;
    bool ok = curl->url_get(u, which, &text, flags) == CURLUE_OK && text && strlen(text) < room;
    if (ok) memcpy(out, text, strlen(text) + 1);
    if (text) curl->free(text);
    return ok;
}

int hub_origin_of(const ash_curl *curl, const char *url, hub_origin *out, ash_err *err)
{
    char scheme[8], host[sizeof out->host], user[2];
    memset(out, 0, sizeof *out);
    CURLU *u = curl->url();
    if (!u) return ash_err_nomem(err, "an address");
    bool ok = curl->url_set(u, CURLUPART_URL, url, CURLU_DISALLOW_USER) == CURLUE_OK &&
              part(curl, u, CURLUPART_SCHEME, 0, scheme, sizeof scheme) &&
              part(curl, u, CURLUPART_HOST, 0, host, sizeof host) &&
              part(curl, u, CURLUPART_PORT, CURLU_DEFAULT_PORT, out->port, sizeof out->port) &&
              !part(curl, u, CURLUPART_USER, 0, user, sizeof user);
    curl->url_cleanup(u);
    if (!ok || (strcmp(scheme, "https") && strcmp(scheme, "http")))
        return ash_err_set(err, ASH_EFORMAT, "it is no address of http or https");
    out->tls = scheme[4] == 's';
    size_t n = strlen(host);
    bool brackets = n >= 2 && host[0] == '[' && host[n - 1] == ']';
    if (brackets) host[n - 1] = 0;
    const char *from = host + brackets;
    for (size_t i = 0; from[i]; i++) out->host[i] = (char)tolower((unsigned char)from[i]);
    return *out->host ? 0 : ash_err_set(err, ASH_EFORMAT, "it is no address of http or https");
}

void hub_escape(ash_buf *out, const char *text, bool slashes)
{
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-._~", c) || (slashes && c == '/');
        if (plain)
            ash_buf_addc(out, (char)c);
        else
            ash_buf_printf(out, "%%%02X", c);
    }
}

/* ---- rules ---- */

int hub_address_check(ash_hub *h, const char *url, hub_origin *origin, ash_err *err)
{
    int rc = hub_origin_of(&h->curl, url, origin, err);
    if (rc) return ash_err_prefix(err, "the hub redirects, but");
    if (hub_origin_eq(origin, &h->origin)) return 0;
    if (!origin->tls && !h->plain)
        return ash_err_set(err, ASH_ENET,
                           "the hub redirects from https to http, at %.200s: refused",
                           origin->host);
    if (hub_host_private(origin->host) && !atomic_load(&h->private_ok))
        return ash_err_set(
            err, ASH_ENET,
            "the hub redirects to the private address %.200s: refused (only an endpoint that is "
            "at one itself may)",
            origin->host);
    return 0;
}

curl_socket_t hub_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    hub_connect *c = user;
    bool proxied =
        c->hub->proxy != NULL; /* then this is the proxy's address, which the user chose */
    if (!proxied && hub_address_private(&address->addr)) {
        if (c->endpoint) {
            atomic_store(&c->hub->private_ok, true);
        } else if (!atomic_load(&c->hub->private_ok)) {
            c->refused = true;
            return CURL_SOCKET_BAD;
        }
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}
