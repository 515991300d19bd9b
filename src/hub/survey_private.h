/* What survey.c and remove.c share; nobody else includes it. */
#ifndef ASHLEY_HUB_SURVEY_PRIVATE_H
#define ASHLEY_HUB_SURVEY_PRIVATE_H

#include <sys/stat.h>

#include "hub/survey.h"

#define ASH_HUB_REMOVED ".ashley-removed-" /* a folder on its way out begins so */

enum { ASH_HUB_MAX_DEPTH = 16 }; /* folders below a snapshot */

typedef struct ash_hub_names {
    char **v; /* owned, each too; one that was taken is NULL */
    size_t n;
} ash_hub_names;

/* All names in a folder that is no link, but "." and ".."; none if it cannot be read. Release it.
 */
int ash_hub_list_dir(int at, const char *name, ash_hub_names *out, ash_err *err) ASH_MUST_CHECK;
void ash_hub_names_release(ash_hub_names *l);

/* One file that is no folder: its folder and name in it, its path from where the walk began. */
typedef int ash_hub_visit(void *user, int dir, const char *name, const char *rel,
                          const struct stat *st, ash_err *err);
/* Calls fn for all files below; follows no link. Ends with fn's first failure. */
int ash_hub_walk(int at, const char *name, const char *rel, int depth, ash_hub_visit *fn,
                 void *user, ash_err *err) ASH_MUST_CHECK;

typedef struct ash_hub_blob {
    char *name; /* owned */
    dev_t dev;
    ino_t ino;
    uint64_t bytes;
    int64_t mtime_s;
    bool whole; /* its name is a hash; else it is being fetched, or was */
    bool used;  /* the caller's to set */
} ash_hub_blob;

typedef struct ash_hub_blobs {
    ash_hub_blob *v; /* by inode */
    size_t n;
} ash_hub_blobs;

int ash_hub_blobs_read(int repo, ash_hub_blobs *out, ash_err *err) ASH_MUST_CHECK;
void ash_hub_blobs_release(ash_hub_blobs *b); /* safe twice */
/* The blob that a name in a snapshot leads to, or NULL. */
ash_hub_blob *ash_hub_blob_of(const ash_hub_blobs *b, int dir, const char *name);

/* The commit in a file of refs/; false if it holds none. */
bool ash_hub_read_ref(int dir, const char *name, char commit[41]);

#endif
