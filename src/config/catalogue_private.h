/* Private to src/config: what the parts of the catalogue share. */
#ifndef ASHLEY_CONFIG_CATALOGUE_PRIVATE_H
#define ASHLEY_CONFIG_CATALOGUE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "config/catalogue.h"

struct ash_catalogue {
    ash_arena arena;
    json_t *root;                  /* the file; entries point into it */
    const char *file, *folder;     /* its path and the folder it is in */
    const char *hub_dir;           /* or NULL */
    ash_catalogue_entry **entries; /* n of at most `cap`; each stays where it is */
    atomic_size_t n; /* counts an entry when it is whole: others may be reading */
    size_t cap;
    pthread_mutex_t adding; /* of the arena and the last entry */
};

/* Fills *e from one member of the file; the entry's id, json are set. Errors: ASH_EINVAL says which field. */
int ash_catalogue_read_entry(ash_catalogue *c, ash_catalogue_entry *e, ash_err *err) ASH_MUST_CHECK;
/* ORG/NAME as the hub has it: two parts of [A-Za-z0-9._-], at most 96 bytes, no "--" or "..", not
 * ending in ".git". */
bool ash_catalogue_repo_ok(const char *repo, size_t n);

enum { ASH_CATALOGUE_PATH = 4096 }; /* bytes of a path */

/* What a search for an entry's files found. Zeroed to begin with. */
typedef struct ash_catalogue_search {
    const ash_catalogue_entry *e;
    char path[ASH_CATALOGUE_PATH]; /* for ash_checkpoint_open; of several GGUF the first by name */
    size_t n;                      /* what could be meant; parts of one checkpoint count once */
    char names[300];               /* of those, for a message */
    char dir[ASH_CATALOGUE_PATH];  /* a folder that is this entry's, "" if there is none */
    char part[ASH_CATALOGUE_PATH]; /* a later part of a split GGUF, "" if none was seen */
    size_t n_files, n_missing;     /* weight files of what is at path; n_missing != 0: incomplete */
    char missing[256];             /* the first of them */
    int visited;
    bool other; /* weights were seen that the entry does not mean */
} ash_catalogue_search;

/* Whether the entry's `files` name this path below a repository's folder; all if it has none. */
bool ash_catalogue_wanted(const ash_catalogue_entry *e, const char *rel);
/* Looks at the files in dir itself for a checkpoint of safetensors or PyTorch files as the entry's
 * format and files say: sets path, n and what is missing. 0 also if there is none; ASH_ENOMEM. */
int ash_catalogue_look(ash_catalogue_search *s, const char *dir, ash_err *err) ASH_MUST_CHECK;
/* Counts the parts of the split GGUF at s->path, or of the one that s->part is of. */
void ash_catalogue_count_parts(ash_catalogue_search *s);

#endif
