/* The catalogue (`pytorch_models.json`): the models that have a name here, and where each one's
 * files are on this machine or why they are not.
 *
 * One bad entry never stops the rest: it stays in the list with `bad` saying why. A file that is no
 * JSON at all is an error naming file, line and column. Entries are constant; names may be added
 * (resolve, reference) while other threads read. Any thread. */
#ifndef ASHLEY_CONFIG_CATALOGUE_H
#define ASHLEY_CONFIG_CATALOGUE_H

#include "base/json.h"
#include "base/policy.h"

typedef struct ash_catalogue ash_catalogue;

typedef struct ash_catalogue_hash {
    const char *file;   /* name or pattern member of `files` */
    const char *sha256; /* 64 lower-case hex digits */
} ash_catalogue_hash;

/* Strings live as long as the catalogue; NULL where the entry has none. */
typedef struct ash_catalogue_entry {
    const char *id;
    const char *bad;           /* why the entry cannot be used; then only id is sure */
    const char *repo, *revision;
    const char *format;        /* "gptq" "gguf" "safetensors" "pytorch" "auto" */
    const char *const *files;  /* n_files patterns (fnmatch) */
    size_t n_files;
    const char *size;          /* "small" "medium" "large" */
    const char *description, *warning;
    const char *template_text; /* override: Jinja text, @file already read */
    uint32_t context;          /* 0: the model's own */
    const char *kv;            /* "f16" "q8": how keys and values are kept */
    const char *draft;         /* the model that guesses how texts go on: an id, or what may be named */
    uint64_t memory, disk;     /* declared bytes, 0: not said */
    ash_fallback fallback;     /* UNSET: the server's */
    int64_t queue_ms, load_ms, first_token_ms, idle_ms; /* time budgets: 0: the server's, -1: none */
    bool has_keep_alive;
    int64_t keep_alive_ms; /* -1: for ever; without has_keep_alive ASHLEY_KEEP_ALIVE */
    const ash_catalogue_hash *sha256;
    size_t n_sha256;
    const char *path;          /* "path": a file or folder; relative ones start at the catalogue's
                                  folder */
    const json_t *json;        /* the entry as written, unknown fields kept; NULL for a resolved name */
    bool resolved;             /* made by ash_catalogue_resolve, not from the file */
} ash_catalogue_entry;

typedef struct ash_catalogue_opts {
    const char *path;    /* the file */
    bool optional;       /* a missing file is an empty catalogue */
    const char *hub_dir; /* the Hugging Face cache to look into, or NULL; copied */
} ash_catalogue_opts;

int ash_catalogue_open(const ash_catalogue_opts *opts, ash_catalogue **out, ash_err *err) ASH_MUST_CHECK;
void ash_catalogue_close(ash_catalogue *c); /* NULL is fine */
/* Entries in the file's order, resolved names last. Pointers to entries stay valid. */
size_t ash_catalogue_count(const ash_catalogue *c);
const ash_catalogue_entry *ash_catalogue_at(const ash_catalogue *c, size_t i);
/* NULL if nothing has that id. */
const ash_catalogue_entry *ash_catalogue_find(const ash_catalogue *c, const char *id);
/* The known id closest to a mistyped one, or NULL. */
const char *ash_catalogue_nearest(const ash_catalogue *c, const char *id);

/* The entry of what a person may name: an id; a checkpoint's folder or file (it exists, and holds a
 * '/', or ends as checkpoints do); an entry of the hub cache as `org/repo` or `models--ORG--NAME`;
 * `org/repo:QUANT` for one of its GGUF files. All but ids get an entry of their own, listed from then
 * on. ASH_ENOENT names the nearest id. What a file or folder holds is not looked at here. */
int ash_catalogue_resolve(ash_catalogue *c, const char *name, const ash_catalogue_entry **out,
                          ash_err *err) ASH_MUST_CHECK;
/* The same of a name from the network: an id, org/repo or org/repo:QUANT, never a path. */
int ash_catalogue_reference(ash_catalogue *c, const char *name, const ash_catalogue_entry **out,
                            ash_err *err) ASH_MUST_CHECK;

/* Where an entry's checkpoint is, as ash_checkpoint_open takes it. `path` NULL: code and reason say
 * why ("not_downloaded", also if files are missing; "unsupported_format", "consent_needed",
 * "bad_entry"), hint what to do. Release it, also after a failure. */
typedef struct ash_catalogue_place {
    char *path;    /* a folder of safetensors, GPTQ or PyTorch files; a file (of a split GGUF the first
                      part); owned */
    char *partial; /* path NULL: the folder that holds a part of the files, or NULL; owned */
    size_t n_files, n_missing; /* weight files of a sharded or split checkpoint, where known */
    const char *code;          /* static */
    char reason[400], hint[400];
} ash_catalogue_place;

void ash_catalogue_place_release(ash_catalogue_place *p); /* safe twice */

/* Looks for the entry's files: its `path`; then models/ beside the catalogue (GGUF files named in
 * `files`, or a folder named as the id or the repository); then the snapshot of its revision in the hub
 * cache. All shards of an index must be there: "12 of 163 files are missing, the first is ...".
 * consent: the warning was accepted. Reads folders and indexes, so it may block for a moment. Any
 * thread. */
int ash_catalogue_locate(const ash_catalogue *c, const ash_catalogue_entry *e, bool consent,
                         ash_catalogue_place *out, ash_err *err) ASH_MUST_CHECK;

#endif
