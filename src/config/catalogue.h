/* The catalogue (`pytorch_models.json`): the models that have a name here, and where each one's
 * files are on this machine or why they are not.
 *
 * One bad entry never stops the rest: it stays in the list with `bad` saying why. A file that is no
 * JSON at all is an error naming file, line and column. The catalogue is built by one thread and
 * constant afterwards, except ash_catalogue_resolve, which adds entries: call that before sharing. */
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
    uint64_t memory, disk;     /* declared bytes, 0: not said */
    ash_fallback fallback;     /* UNSET: the server's */
    const ash_catalogue_hash *sha256;
    size_t n_sha256;
    const char *path;          /* "path": a file; relative ones start at the catalogue's folder */
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

/* The entry of what a person may name: an id, a path to a .gguf file (it holds a '/' or ends in
 * .gguf, and exists), `org/repo` or `org/repo:QUANT`. The latter three get an entry of their own,
 * listed from then on. ASH_ENOENT names the nearest id; ASH_EUNSUPPORTED for a folder or a file that
 * is no GGUF, by name. */
int ash_catalogue_resolve(ash_catalogue *c, const char *name, const ash_catalogue_entry **out,
                          ash_err *err) ASH_MUST_CHECK;

/* Where an entry's checkpoint is. `path` NULL: code and reason say why ("not_downloaded",
 * "unsupported_format", "consent_needed", "bad_entry"), hint what to do. */
typedef struct ash_catalogue_place {
    char *path;       /* the file, of a split GGUF the first part; owned: free() */
    const char *code; /* static */
    char reason[400], hint[400];
} ash_catalogue_place;

/* Looks for the entry's files: its `path`; then its `files` in models/ beside the catalogue; then the
 * snapshots of its repository in the hub cache. consent: the warning was accepted. Reads folders, so
 * it may block for a moment. Any thread. */
int ash_catalogue_locate(const ash_catalogue *c, const ash_catalogue_entry *e, bool consent,
                         ash_catalogue_place *out, ash_err *err) ASH_MUST_CHECK;

#endif
