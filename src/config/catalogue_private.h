/* Private to src/config: what the parts of the catalogue share. */
#ifndef ASHLEY_CONFIG_CATALOGUE_PRIVATE_H
#define ASHLEY_CONFIG_CATALOGUE_PRIVATE_H

#include "base/arena.h"
#include "config/catalogue.h"

struct ash_catalogue {
    ash_arena arena;
    json_t *root;                  /* the file; entries point into it */
    const char *file, *folder;     /* its path and the folder it is in */
    const char *hub_dir;           /* or NULL */
    ash_catalogue_entry **entries; /* n of at most `cap`; each stays where it is */
    size_t n, cap;
};

/* Fills *e from one member of the file; the entry's id, json are set. Errors: ASH_EINVAL says which field. */
int ash_catalogue_read_entry(ash_catalogue *c, ash_catalogue_entry *e, ash_err *err) ASH_MUST_CHECK;
/* ORG/NAME as the hub has it: two parts of [A-Za-z0-9._-], at most 96 bytes, no "--" or "..", not
 * ending in ".git". */
bool ash_catalogue_repo_ok(const char *repo, size_t n);

#endif
