/* Private to src/hub: what its parts share. Names here begin with hub_. */
#ifndef ASHLEY_HUB_PRIVATE_H
#define ASHLEY_HUB_PRIVATE_H

#include <pthread.h>
#include <sys/socket.h>

#include "base/arena.h"
#include "base/curl.h"
#include "base/limits.h"
#include "hub/hub.h"

enum { HUB_PATH = 4096, HUB_COMMIT = 40, HUB_BACKOFF_MOST_S = 300 };

/* ---- address.c: where bytes may come from ---- */

typedef struct hub_origin {
    bool tls;
    char host[256]; /* lower case; an IPv6 address without brackets */
    char port[6];
} hub_origin;

bool hub_origin_eq(const hub_origin *a, const hub_origin *b);
/* Loopback, RFC 1918 and 6598, link-local, unique local, multicast, reserved, and what embeds one
 * of them (mapped, NAT64, 6to4). Pure. */
bool hub_address_private(const struct sockaddr *a);
/* The same of a host's name, as far as a name alone tells: a literal address, localhost. Pure. */
bool hub_host_private(const char *host);
/* Takes a URL apart, as libcurl will when it connects. ASH_EFORMAT if it is none, has a user's name
 * in it, or is neither http nor https. Messages do not show it: it may be signed. */
int hub_origin_of(const ash_curl *curl, const char *url, hub_origin *out,
                  ash_err *err) ASH_MUST_CHECK;
/* Appends text with all but unreserved characters, and '/' where `slashes`, as %XX. */
void hub_escape(ash_buf *out, const char *text, bool slashes);

/* One connection's rules; what CURLOPT_OPENSOCKETDATA gets. */
typedef struct hub_connect {
    ash_hub *hub;
    bool endpoint; /* it is to the configured endpoint itself */
    bool refused;  /* out: an address was refused */
} hub_connect;

/* Whether a redirect may lead to url, given the rules of hub.h; `origin` is that of url. */
int hub_address_check(ash_hub *h, const char *url, hub_origin *origin, ash_err *err) ASH_MUST_CHECK;
/* CURLOPT_OPENSOCKETFUNCTION: the rules again, on the address that is really connected to. */
curl_socket_t hub_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address);

/* ---- headers.c: what an answer's headers say ---- */

typedef struct hub_headers {
    char etag[100]; /* of X-Linked-Etag, else ETag; without W/ and quotes; "" if there is none */
    bool linked_etag;
    char commit[64];      /* X-Repo-Commit */
    char error_code[48];  /* X-Error-Code */
    char error_text[200]; /* X-Error-Message, printable ASCII */
    char next[2048]; /* Link rel="next": a URL as sent; "" if there is none or it is too long */
    bool has_linked_size, has_range, has_total;
    uint64_t linked_size;        /* X-Linked-Size */
    uint64_t first, last, total; /* Content-Range */
    int retry_after_s;           /* -1: none; a date counts from now */
    size_t bytes;                /* of header lines so far */
} hub_headers;

void hub_headers_init(hub_headers *h);
/* One line as libcurl gives it; a status line starts anew. False: over ASH_MAX_HUB_HEADERS. Pure
 * but for the clock, which a Retry-After with a date needs. */
bool hub_headers_line(hub_headers *h, const char *line, size_t n);

/* ---- client.c: requests ---- */

struct ash_hub {
    char *cache_dir, *endpoint; /* endpoint without a slash at its end */
    char *authorization;        /* "Authorization: Bearer ...", or NULL */
    char *proxy, *no_proxy;     /* or NULL */
    bool offline, plain;        /* plain: the endpoint is http */
    int connections;
    int64_t patience_ms;
    int64_t connect_ms, stall_ms;
    atomic_bool private_ok; /* the endpoint itself is at a private address */
    pthread_mutex_t lock;
    bool open;         /* lock: curl and origin are set */
    ash_curl curl;     /* constant once open */
    hub_origin origin; /* of the endpoint */
};

/* Opens libcurl, once. Everything below needs it. */
int hub_ready(ash_hub *h, ash_err *err) ASH_MUST_CHECK;

/* One request of one easy handle, with the options that all have. The token goes with it only to
 * the endpoint's origin. `connect` and `list` (freed by the caller with slist_free_all) live as
 * long as the request. */
int hub_request_setup(ash_hub *h, CURL *easy, const char *url, hub_connect *connect,
                      struct curl_slist **list, ash_err *err) ASH_MUST_CHECK;

/* A whole answer, for small things. */
typedef struct hub_answer {
    long status;
    hub_headers headers;
    ash_buf body;
} hub_answer;

typedef struct hub_question {
    const char *url;
    const char *what;          /* for messages: "the files of org/repo" */
    size_t max;                /* most bytes of the body; over it: ASH_ELIMIT */
    uint64_t offset;           /* with length: a range */
    size_t length;             /* 0: all */
    bool anywhere;             /* redirects may lead to other hosts */
    const atomic_bool *cancel; /* or NULL */
    const ash_hub_watch *told; /* who is told of trouble and waits longer, or NULL */
} hub_question;

/* Asks until there is an answer that is no passing failure, or too many were. Follows redirects.
 * The answer's status is 2xx on success; else the error is that of hub_status_error. Release the
 * body, also on failure. */
int hub_ask(ash_hub *h, const hub_question *q, const char *repo, const char *revision,
            hub_answer *out, ash_err *err) ASH_MUST_CHECK;
/* What a status other than 2xx means, for people and as code; path may be NULL. Returns the code.
 */
int hub_status_error(const ash_hub *h, long status, const hub_headers *headers, const char *repo,
                     const char *revision, const char *path, ash_err *err);
/* What a transfer without an answer means. */
int hub_transfer_error(const ash_hub *h, CURL *easy, CURLcode code, const hub_connect *connect,
                       const char *what, ash_err *err);
bool hub_status_passes(long status); /* 408, 425, 429, 5xx: worth another try */
/* Wait before try number `failed` (1, 2, ...); -1 if the hub wants more than HUB_BACKOFF_MOST_S. */
int64_t hub_backoff_ms(int failed, int retry_after_s);
/* Failures in a row that may pass. */
typedef struct hub_trouble {
    int tries;      /* 0: none */
    int64_t since;  /* monotonic ms, of the first */
} hub_trouble;
/* Notes one more: how many ms to wait before the next try; -1: that is enough. */
int64_t hub_trouble_add(const ash_hub *h, hub_trouble *t, int retry_after_s, bool patient);
/* Sleeps; false if cancelled meanwhile. */
bool hub_sleep(int64_t ms, const atomic_bool *cancel);
static inline bool hub_cancelled(const atomic_bool *cancel)
{
    return cancel && atomic_load(cancel);
}
/* ENDPOINT/ORG/NAME/resolve/COMMIT/PATH into out (initialised here; to be released). */
int hub_resolve_url(const ash_hub *h, const ash_hub_tree *t, const char *path, ash_buf *out,
                    ash_err *err) ASH_MUST_CHECK;

/* ---- tree.c ---- */

/* A list while it is made. */
typedef struct hub_list {
    ash_hub_tree tree; /* first: what callers hold */
    ash_arena arena;
    ash_hub_file *files;
    size_t cap;
} hub_list;

int hub_list_open(const char *repo, const char *revision, hub_list **out,
                  ash_err *err) ASH_MUST_CHECK;
/* Adds a file; copies. ASH_EFORMAT for a path that is not plain or a hash that is none. */
int hub_list_add(hub_list *l, const char *path, uint64_t size, const char *sha256, const char *git,
                 ash_err *err) ASH_MUST_CHECK;
/* Sorts; ASH_EFORMAT if a name comes twice. */
int hub_list_finish(hub_list *l, ash_err *err) ASH_MUST_CHECK;
/* One page of the hub's listing (JSON). Pure. */
int hub_list_page(hub_list *l, const char *p, size_t n, ash_err *err) ASH_MUST_CHECK;
/* trees/COMMIT.json of the cache (JSON), as the Python client keeps it. Pure. */
int hub_list_kept(hub_list *l, const char *p, size_t n, ash_err *err) ASH_MUST_CHECK;
bool hub_path_ok(const char *path);
bool hub_hex(const char *s, size_t n); /* exactly n lower-case hex digits */

/* ---- cache.c ---- */

/* A path into out[HUB_PATH]; ASH_ELIMIT if it is too long. */
int hub_path(char out[HUB_PATH], ash_err *err, const char *fmt, ...)
    ASH_PRINTF(3, 4) ASH_MUST_CHECK;
int hub_cache_repo(const ash_hub *h, const char *repo, char out[HUB_PATH],
                   ash_err *err) ASH_MUST_CHECK;
/* The name of a file's blob; NULL if its hash is not known. */
const char *hub_blob_name(const ash_hub_file *f);
/* Whether the snapshot has the file, whole and under its hash. */
bool hub_cache_linked(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f);
/* Whether its blob is here, whole. */
bool hub_cache_blob(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f);
/* n bytes of it from offset on, into out. */
int hub_cache_peek(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f, uint64_t offset,
                   size_t n, ash_buf *out, ash_err *err) ASH_MUST_CHECK;
/* Puts the blob into the snapshot: a relative link, or a copy where links are refused. */
int hub_cache_link(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f,
                   ash_err *err) ASH_MUST_CHECK;
/* The folders that fetching needs, CACHEDIR.TAG too. */
int hub_cache_prepare(const ash_hub *h, const ash_hub_tree *t, ash_err *err) ASH_MUST_CHECK;
/* refs/REVISION, when it is a name. */
int hub_cache_ref(const ash_hub *h, const ash_hub_tree *t, ash_err *err) ASH_MUST_CHECK;
/* The commit that the cache has for a revision; false if none. */
bool hub_cache_commit(const ash_hub *h, const char *repo, const char *revision,
                      char out[HUB_COMMIT + 1]);
/* Adds what the snapshot of l->tree.commit holds. */
int hub_cache_walk(const ash_hub *h, hub_list *l, ash_err *err) ASH_MUST_CHECK;
/* The lock file of a blob, as the Python client takes it: *fd, or ASH_EAGAIN while another has it.
 */
int hub_cache_lock(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f, int *fd,
                   ash_err *err) ASH_MUST_CHECK;
/* blobs/NAME, the unfinished file beside it and that one's journal. */
enum { HUB_BLOB, HUB_PARTIAL, HUB_JOURNAL };
int hub_cache_file(const ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f, int which,
                   char out[HUB_PATH], ash_err *err) ASH_MUST_CHECK;
int hub_sync_folder(const char *file,
                    ash_err *err) ASH_MUST_CHECK; /* of the folder that holds it */
/* An error of the system on a path, from errno. */
int hub_os_error(ash_err *err, const char *verb, const char *path);

/* ---- journal.c ---- */

uint32_t hub_chunks(uint64_t size);
static inline uint64_t hub_chunk_end(uint64_t size, uint32_t chunk)
{
    uint64_t end = ((uint64_t)chunk + 1) * ASH_HUB_CHUNK;
    return end < size ? end : size;
}

/* The chunks that a journal calls written: known[i] != 0, with sums[i]; both have hub_chunks(size)
 * cells, which the caller has zeroed. Returns their number; 0 too for a journal that is missing,
 * damaged or of another size. *good (may be NULL): bytes of it that may stay. Stops at the first
 * record that is damaged. */
uint32_t hub_journal_read(int fd, uint64_t size, uint8_t *known, uint64_t *sums, uint64_t *good);
/* Opens for appending, cut to `good` bytes (0: begun anew). */
int hub_journal_open(const char *path, uint64_t size, uint64_t good, int *fd,
                     ash_err *err) ASH_MUST_CHECK;
/* One record, in one write. */
int hub_journal_add(int fd, uint32_t chunk, uint64_t sum, ash_err *err) ASH_MUST_CHECK;
/* The bytes of the chunks that the journal at path knows; 0 if there is none. */
uint64_t hub_journal_bytes(const char *path, uint64_t size);

#endif
