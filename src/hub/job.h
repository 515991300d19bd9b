/* Private to src/hub: one running fetch.
 *
 * Two threads. The fetching one (who called ash_hub_fetch) owns connections, locks, journals and
 * what a file still lacks; the hashing one hashes in file order what is in the file, and gives the
 * file its name when it is proved. Bytes that come in file order reach it in the buffers from which
 * they were written (the ring), and then the fetching thread goes no faster than it; all else it
 * reads back. They meet in hub_job.lock. */
#ifndef ASHLEY_HUB_JOB_H
#define ASHLEY_HUB_JOB_H

#include "base/checksum.h"
#include "base/libcrypto.h"
#include "hub/hub_private.h"

typedef enum hub_chunk {
    HUB_CHUNK_MISSING,
    HUB_CHUNK_COMING,  /* a connection has it */
    HUB_CHUNK_WRITTEN, /* by this process */
    HUB_CHUNK_CLAIMED, /* by an earlier one, says the journal: to be summed before it counts */
} hub_chunk;

typedef enum hub_item_state {
    HUB_ITEM_WAITING, /* not begun, or another process has the lock */
    HUB_ITEM_ACTIVE,
    HUB_ITEM_DONE,
} hub_item_state;

/* A file that is not here. */
typedef struct hub_item {
    const ash_hub_file *file;
    const char *pin; /* SHA-256 that the catalogue wants, or NULL */
    uint32_t n_chunks;
    /* under the lock */
    hub_item_state state;
    uint8_t *chunk; /* n_chunks of hub_chunk; while active */
    uint64_t *sums; /* of claimed chunks */
    uint64_t have; /* bytes of its written and claimed chunks; while waiting: as the journal said */
    uint64_t reach;  /* bytes at its front that are in the file, without a gap */
    uint64_t fed;    /* of those, what the hashing thread has hashed or has in hand */
    uint32_t hashed; /* chunks at its front that are hashed */
    bool wrong;      /* hashed, and not what was announced: the fetching thread begins anew */
    char found[65];  /* wrong: the hash of what came */
    /* set by the fetching thread, constant while active */
    int lock_fd, fd, journal;
    /* the hashing thread's while active */
    EVP_MD_CTX *digest, *pin_digest;
    /* the fetching thread's */
    char *address; /* where the bytes are: signed, never shown; NULL: the hub is to be asked */
    char *hop;     /* where the question was redirected to, or NULL */
    bool resolving, no_ranges;
    struct {
        uint64_t at;            /* 0: none */
        ash_checksum_state sum; /* of its chunk up to at */
    } begun; /* where the chunk goes on that a connection gave back, the hash having some of it */
    int running; /* connections that have a part of it */
    hub_trouble trouble;
    int hops, restarts;
    int64_t not_before; /* monotonic ms */
} hub_item;

/* ---- ring.c: pieces on their way to the hash ---- */

enum {
    HUB_PIECE = 256 << 10, /* bytes of one write: libcurl gives 16 KiB at a time, and file systems take more
                              at once for less */
    HUB_PIECES = 16,       /* 2 to 4 ms of hashing: longer than a thread takes to wake */
};

/* Bytes of one chunk that are in the file. */
typedef struct hub_piece {
    hub_item *item;
    uint8_t *data; /* HUB_PIECE bytes, of which n count */
    size_t n;
    uint64_t end; /* where they end in the file */
} hub_piece;

typedef struct hub_ring {
    hub_piece pieces[HUB_PIECES];
    int first, n;
    pthread_cond_t room; /* for the fetching thread */
} hub_ring;

int hub_ring_open(hub_ring *r, ash_err *err) ASH_MUST_CHECK;
void hub_ring_close(hub_ring *r); /* also after open failed */
/* Takes the n bytes of *data, which end at `end` of the file, and puts another buffer in their place.
 * False, and nothing changed: it is full. */
bool hub_ring_put(hub_ring *r, hub_item *it, uint8_t **data, size_t n, uint64_t end);
/* The piece to hash next; stays where it is until popped. NULL: there is none. */
const hub_piece *hub_ring_first(const hub_ring *r);
void hub_ring_pop(hub_ring *r);
/* If it is full: waits, at most ms, until a fourth of it is free. Gives the lock away meanwhile. */
void hub_ring_await(hub_ring *r, pthread_mutex_t *lock, int ms);

typedef struct hub_job hub_job;

typedef struct hub_connection {
    hub_job *job;
    CURL *easy;
    hub_item *item; /* whose bytes it has to bring; NULL: idle */
    bool running;   /* in the multi handle */
    bool asking;    /* for the address, not for bytes */
    bool hubs_own; /* the request goes to the hub, not to where it redirected: a refusal is meant */
    bool looked, content;   /* the answer's head was judged; its body is the file's */
    bool whole;             /* of the whole file, from byte 0 */
    uint64_t at;            /* byte of the file that comes next */
    uint64_t pos, end;      /* what is still wanted */
    uint64_t began;         /* pos when the request began */
    ash_checksum_state sum; /* of pos's chunk up to pos */
    uint8_t *gathered;      /* bytes before pos that are not in the file yet: never of two chunks */
    size_t n_gathered;
    hub_connect connect;
    hub_headers headers;
    struct curl_slist *list;
    int rc; /* why a callback ended it; ASH_EAGAIN: the part is given back */
    ash_err err;
} hub_connection;

struct hub_job {
    ash_hub *hub;
    const ash_hub_plan *plan;
    const ash_hub_watch *watch;
    hub_item *items;
    size_t n_items;
    hub_connection connections[ASH_MAX_HUB_CONNECTIONS];
    CURLM *multi;
    ash_libcrypto crypto;
    pthread_mutex_t lock;
    pthread_cond_t work; /* for the hashing thread */
    hub_ring ring;       /* lock */
    bool finishing;      /* lock: the hashing thread waits for the disk */
    pthread_t hasher;
    bool hashing; /* the thread runs */
    bool stop;    /* lock */
    int rc;       /* lock: the first failure */
    ash_err err;  /* lock */
    /* the fetching thread's */
    uint64_t received; /* bytes from the network */
    int wanted;        /* connections */
    int tries;         /* that failed in a row since anything came, of one file */
    char trouble[480]; /* what the last of them failed of */
    struct {
        int64_t at, hold_until; /* ms */
        int64_t idle_ns;        /* since `at`: nothing came from any connection */
        uint64_t received;
        double best; /* bytes a second when a connection was last added */
        double rate; /* smoothed, shown */
    } pace;
};

/* The first failure counts. Any thread; takes the lock. */
void hub_job_fail(hub_job *j, const ash_err *err);

/* Carries it->reach on over chunks that are in the file. Lock held. */
void hub_item_reach(hub_item *it);

/* ---- download.c: the fetching thread's ---- */

/* Gives parts of active files to idle connections, up to j->wanted, and starts what waits for its
 * time. */
void hub_download_start(hub_job *j);
/* Moves bytes and judges what ended. */
void hub_download_step(hub_job *j, int wait_ms);
int hub_download_open(hub_job *j, ash_err *err) ASH_MUST_CHECK;
void hub_download_close(hub_job *j);
/* Takes all connections off a file. */
void hub_download_drop(hub_job *j, hub_item *it);

/* ---- verify.c: the hashing thread's ---- */

int hub_verify_start(hub_job *j, ash_err *err) ASH_MUST_CHECK;
void hub_verify_stop(hub_job *j); /* waits for it */
/* Begins the hashes of a file anew. */
int hub_verify_begin(hub_job *j, hub_item *it, ash_err *err) ASH_MUST_CHECK;
void hub_verify_end(hub_job *j, hub_item *it);

#endif
