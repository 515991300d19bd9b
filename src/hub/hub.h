/* Models from the Hugging Face hub, into the cache that the Python client uses too.
 *
 *   list -> choose -> (look) -> fetch
 *
 * `list` pins a revision to its commit and reads the names, sizes and hashes of all files; `choose`
 * takes those that a model needs; `look` says what of them is here; `fetch` brings the rest and
 * returns the folder. Without network, or with `offline`, the same four calls answer from the cache
 * alone.
 *
 * Bytes are hashed while they come (SHA-256 of large files, git's SHA-1 of small ones) against what
 * the hub announced; a file has its name in the cache only after that, so what does not match is
 * never used. What was proved stays on disk whatever ends a fetch, `kill -9` too: the next one, of
 * any process, goes on there and brings at most one chunk of ASH_HUB_CHUNK bytes per connection
 * again. Processes agree by the lock files of the Python client: one file is fetched once, whoever
 * asks.
 *
 * The token goes to the endpoint's own scheme, host and port, and nowhere else. A redirect to an
 * address of a private range (loopback, RFC 1918, link-local, ...) is refused unless the endpoint
 * itself is at one, and so is one from https to http.
 *
 * A client may be used by any number of threads at once, each with its own call; a call blocks its
 * thread (fetch has a second one while it runs). libcurl and libcrypto are opened with the first
 * call that needs them. Errors: ASH_EAUTH (gated, private, a wrong token; what to do), ASH_ENOENT
 * (no such repository, revision or file), ASH_ENET, ASH_ETIMEDOUT, ASH_EFORMAT (what came is not
 * what was announced, or no listing), ASH_ELIMIT, ASH_ENOSPC, ASH_EIO, ASH_ECANCELED, ASH_ENOMEM,
 * ASH_EINVAL. No message holds the token or a signed address.
 *
 * Source: huggingface_hub: file_download.py, hf_api.py, _snapshot_download.py (protocol, cache
 * layout).
 */
#ifndef ASHLEY_HUB_HUB_H
#define ASHLEY_HUB_HUB_H

#include <stdatomic.h>

#include "base/buf.h"

#define ASH_HUB_CHUNK (4u << 20) /* bytes that are proved, or fetched again, together */

typedef struct ash_hub ash_hub;

typedef struct ash_hub_opts {
    const char *cache_dir; /* $HF_HUB_CACHE, resolved; made when the first file is fetched */
    const char
        *endpoint; /* NULL: https://huggingface.co; http:// or https://, with or without a path */
    const char *token;    /* NULL or "": none */
    const char *proxy;    /* HTTPS_PROXY, for https addresses; NULL: none */
    const char *no_proxy; /* NO_PROXY; NULL: none */
    bool offline;         /* never uses the network */
    int connections;      /* most at once in one fetch, 1 to 16; 0: 8 */
    int64_t connect_ms;   /* 0: 10 s */
    int64_t stall_ms;     /* without bytes for so long a connection is given up; 0: 20 s */
    int64_t patience_ms;  /* how long what may pass is tried again, without progress in between, while
                             somebody is told so; 0: three times stall_ms. In any case five times */
} ash_hub_opts;

/* Copies all. Makes no folder and no connection. ASH_EINVAL for an endpoint that is no http(s)
 * address. */
int ash_hub_open(const ash_hub_opts *opts, ash_hub **out, ash_err *err) ASH_MUST_CHECK;
void ash_hub_close(ash_hub *h); /* no call may run; NULL is fine */

/* The token as the Python client finds it without HF_TOKEN: the content of a file, without blanks
 * around it. *out is the caller's, NULL with 0 if there is no such file. */
int ash_hub_read_token(const char *path, char **out, ash_err *err) ASH_MUST_CHECK;

/* "ORG/NAME" or "NAME": parts of [A-Za-z0-9._-], at most 96 bytes, no "--", no "..", not ending in
 * ".git". */
bool ash_hub_repo_ok(const char *repo);

/* ---- listing ---- */

typedef struct ash_hub_file {
    const char
        *path; /* relative, plain: no "..", no empty part, no backslash or control character */
    uint64_t size;
    const char *sha256; /* of a large file (LFS, Xet): 64 hex digits; NULL: a small one */
    const char *git; /* git's SHA-1, 40 hex digits: of a small file's content; NULL if not known */
} ash_hub_file;

typedef struct ash_hub_tree {
    const char *repo, *revision; /* as asked */
    const char *commit;          /* 40 hex digits */
    const ash_hub_file *files;   /* by path */
    size_t n_files;
    bool from_cache; /* not asked: offline, or the hub could not be reached */
    const char *why; /* from_cache: why, for people */
    bool whole;      /* the list is of all files, not only of those in the cache */
} ash_hub_tree;

typedef struct ash_hub_watch ash_hub_watch; /* below */

/* revision: branch, tag or commit; NULL is "main". Blocks for two or more round trips; cancelled by the watch
 * (may be NULL) it ends in under a second. If the hub cannot be reached and the cache holds that
 * revision, the cache answers, after some 4 s; else who has a progress callback is told of trouble, and waits
 * longer. *out is the caller's. */
int ash_hub_list(ash_hub *h, const char *repo, const char *revision, const ash_hub_watch *watch,
                 ash_hub_tree **out, ash_err *err) ASH_MUST_CHECK;
void ash_hub_tree_close(ash_hub_tree *t); /* NULL is fine */
const ash_hub_file *ash_hub_tree_find(const ash_hub_tree *t,
                                      const char *path); /* NULL if there is none */

/* n bytes of one file from offset on (less where it ends), for headers: at most ASH_MAX_HUB_PEEK.
 * From the cache if it is there. `out` is initialised here; the caller releases it, also on
 * failure. The bytes are not hashed. */
int ash_hub_peek(ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f, uint64_t offset,
                 size_t n, const atomic_bool *cancel, ash_buf *out, ash_err *err) ASH_MUST_CHECK;

/* ---- choosing ---- */

typedef struct ash_hub_pin {
    const char *file;   /* a name, or a pattern (fnmatch) */
    const char *sha256; /* 64 hex digits, lower case */
} ash_hub_pin;

typedef struct ash_hub_want {
    const char *format; /* "gptq" "gguf" "safetensors" "pytorch" "auto"; NULL: "auto" */
    const char *const *files; /* patterns of the path (fnmatch, case ignored); none: by format */
    size_t n_files;
    const char *quant;       /* of a GGUF: "Q4_K_M", case ignored; NULL: none */
    const ash_hub_pin *pins; /* what the catalogue says of the content */
    size_t n_pins;
} ash_hub_want;

/* Borrows the tree and the pins' hashes. */
typedef struct ash_hub_plan {
    const ash_hub_tree *tree;
    const ash_hub_file **files; /* small ones first; never two formats of the same weights */
    const char **pins;          /* the sha256 that files[i] must have, or NULL */
    size_t n_files;
    uint64_t bytes;      /* of all files */
    const char *weights; /* what ash_checkpoint_open takes, relative to the snapshot: the GGUF (its
                            first part); NULL: the snapshot's folder */
} ash_hub_plan;

/* By format: weights as format/checkpoint.h chooses them in a folder (safetensors before PyTorch
 * before GGUF, all shards of the set), configuration, tokenizer and template; a GGUF: one file or
 * one split set, by `quant`, the only one, or Q4_K_M; nothing from sub-folders but GGUF files.
 * Pure. ASH_ENOENT if nothing is meant, or several GGUF files (named); ASH_EFORMAT if shards are
 * missing, or a pin is not what the hub announces. */
int ash_hub_choose(const ash_hub_tree *t, const ash_hub_want *want, ash_hub_plan **out,
                   ash_err *err) ASH_MUST_CHECK;
void ash_hub_plan_close(ash_hub_plan *p); /* NULL is fine */

/* ---- what is here ---- */

typedef struct ash_hub_here {
    size_t n_files; /* of the plan that are in the cache, whole */
    uint64_t bytes; /* of these */
    uint64_t partial;   /* bytes that an unfinished fetch of the others left, says its journal */
    uint64_t missing;   /* bytes of the plan that are neither: what a fetch brings */
    uint64_t free_disk; /* bytes free where the cache is (or will be) */
} ash_hub_here;

/* Reads folders and journals only. Whole means: the size is right under the announced name. */
int ash_hub_look(const ash_hub *h, const ash_hub_plan *p, ash_hub_here *out,
                 ash_err *err) ASH_MUST_CHECK;

/* ---- fetching ---- */

typedef enum ash_hub_stage {
    ASH_HUB_FETCHING,
    ASH_HUB_VERIFYING, /* all bytes are here; the last are hashed and brought to the disk */
    ASH_HUB_WAITING,   /* another process fetches what is left */
} ash_hub_stage;

typedef struct ash_hub_progress {
    ash_hub_stage stage;
    /* Of the plan; what was here counts as done. Done is less than before only if something on disk
     * or from the hub turned out to be wrong. */
    uint64_t bytes_done, bytes_total;
    uint64_t bytes_verified;   /* hashed, or here from the start */
    uint64_t bytes_per_second; /* over the last seconds, from the network */
    int64_t eta_ms;            /* to the last byte at that rate; -1: not known */
    size_t files_done, files_total;
    int connections;
    const char *file; /* one that is being fetched; borrowed for the call; may be NULL */
    /* NULL, or what the last try failed of, where nothing came since; borrowed for the call */
    const char *trouble;
    int tries;        /* that failed in a row */
    int64_t retry_ms; /* until the next */
} ash_hub_progress;

struct ash_hub_watch {
    /* NULL: none. At most some 10 times a second, on the thread of the call; must be quick. */
    void (*progress)(void *user, const ash_hub_progress *p);
    void *user;
    const atomic_bool *cancel; /* NULL: cannot be. Ends in under a second, keeps what is proved */
};

/* Brings what is missing; *snapshot is the folder .../snapshots/COMMIT, the caller's to free(). The
 * revision's name (refs/) points to the commit only when all files are there. With all files here
 * nothing is written but that name. Memory: under 32 MiB, whatever the size. ASH_ENOSPC, before a
 * byte moves, if the disk has no room for all of it and a reserve. */
int ash_hub_fetch(ash_hub *h, const ash_hub_plan *p, const ash_hub_watch *watch, char **snapshot,
                  ash_err *err) ASH_MUST_CHECK;

/* ---- proving what is here ---- */

typedef struct ash_hub_proof {
    size_t n_hashed;
    uint64_t bytes; /* hashed */
    size_t n_wrong; /* files that were damaged, and were taken out of the cache */
} ash_hub_proof;

/* Hashes what the cache has of the plan: all of it, or only what is suspect, because it was written
 * after it was given its name (costs nothing where nothing is). What is not what its name says is
 * logged and taken out of the cache, so that ash_hub_fetch brings it; who has it open keeps what he
 * has. Where the list is from the cache, it stays instead, and the call fails with ASH_EFORMAT.
 * Blocks for about a second a GB of what is hashed; *watch as in ash_hub_fetch. Files whose hash is
 * not known are passed over, and so are those that another process is fetching. */
int ash_hub_prove(const ash_hub *h, const ash_hub_plan *p, bool all, const ash_hub_watch *watch,
                  ash_hub_proof *out, ash_err *err) ASH_MUST_CHECK;

#endif
