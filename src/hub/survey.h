/* What the hub cache holds, and taking a part of it away.
 *
 * The cache is the Python client's (hub/hub.h): models--ORG--NAME with blobs/, snapshots/COMMIT/ of
 * links to them, refs/. Nothing here follows a link to a folder. Any thread, one call at a time for
 * one cache.
 *
 * Removal keeps this order, so that the cache is whole for every reader at every instant: names of
 * revisions, then the snapshot as one (renamed aside, inside the cache), then blobs that no
 * snapshot is left to use. A process killed in between leaves blobs that nobody uses, or a folder
 * `.ashley-removed-*`, which the Python client does not look at; the next removal, or
 * ash_hub_clean, takes them away. */
#ifndef ASHLEY_HUB_SURVEY_H
#define ASHLEY_HUB_SURVEY_H

#include "base/arena.h"

/* One repository. Bytes are what the file system says they take. */
typedef struct ash_hub_use {
    const char *folder;          /* "models--ORG--NAME" */
    const char *repo;            /* "ORG/NAME" */
    size_t n_snapshots, n_files; /* files of all snapshots */
    uint64_t bytes;              /* of all that is in the folder */
    size_t n_broken;             /* files whose blob is not there, */
    const char *broken;          /* the first of them; NULL if there is none */
    size_t n_orphans;            /* blobs that no snapshot uses, */
    uint64_t orphan_bytes;
    size_t n_partial; /* unfinished downloads, */
    uint64_t partial_bytes;
    int64_t partial_s;  /* when one of them last grew, in seconds of the wall clock */
    size_t n_lost_refs; /* names of revisions without a snapshot */
} ash_hub_use;

typedef struct ash_hub_survey {
    ash_hub_use *v; /* by folder */
    size_t n;
    size_t n_removed; /* folders of removals that were cut short, */
    uint64_t removed_bytes;
    ash_arena arena; /* owns all */
} ash_hub_survey;

/* Looks at all repositories; a cache that is not there is empty. What cannot be read is not
 * counted. Release *out, also on failure. ASH_ENOMEM, ASH_ELIMIT over ASH_MAX_FOLDER_ENTRIES names
 * in a folder. */
int ash_hub_survey_read(const char *cache_dir, ash_hub_survey *out, ash_err *err) ASH_MUST_CHECK;
void ash_hub_survey_release(ash_hub_survey *s);                                    /* safe twice */
const ash_hub_use *ash_hub_survey_find(const ash_hub_survey *s, const char *repo); /* NULL: none */

typedef struct ash_hub_removal {
    size_t n_files, n_blobs;
    uint64_t bytes; /* that were, or would be, free */
    bool whole;     /* the whole repository goes */
} ash_hub_removal;

/* Which files of a snapshot go; rel is the path below it. */
typedef bool ash_hub_wanted(void *user, const char *rel);

/* Removes those files of a snapshot that `wanted` says (NULL: all), with the blobs that nothing
 * uses then; the snapshot's last file of weights takes the rest of the snapshot along, and the last
 * snapshot the repository. commit NULL: the whole repository. dry: only counts. ASH_ENOENT if there
 * is nothing of it; ASH_EAGAIN while a process is fetching for this repository (it holds its lock);
 * ASH_EIO. */
int ash_hub_remove(const char *cache_dir, const char *repo, const char *commit,
                   ash_hub_wanted *wanted, void *user, bool dry, ash_hub_removal *out,
                   ash_err *err) ASH_MUST_CHECK;
/* Takes away what removals that were cut short have left. */
void ash_hub_clean(const char *cache_dir);

#endif
