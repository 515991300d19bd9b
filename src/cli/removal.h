/* What a model of the catalogue has on this machine, and taking it away: its part of the hub cache, its
 * packed weights and what is kept of its prompts. Whether anybody uses it is the caller's to know. Any
 * thread, one removal of a model at a time. */
#ifndef ASHLEY_CLI_REMOVAL_H
#define ASHLEY_CLI_REMOVAL_H

#include "cli/cli.h"
#include "engine/state_files.h"
#include "hub/survey.h"

typedef struct ash_cli_removal {
    const ash_cli *cli;
    const ash_catalogue_entry *entry;
    ash_catalogue_place place;
    const char *where; /* its files, or the folder of a part of them; NULL: none */
    char commit[41];   /* its snapshot in the cache; "": none */
    bool others;       /* other revisions of the repository go where the entry's own is not here */
    bool cached;       /* the cache has its repository, and its files are there or nowhere */
    ash_hub_removal cache;
    ash_state_files kept;
} ash_cli_removal;

/* Finds what would go: `cache` and `kept` have the counts. others: of a repository that is here in other
 * revisions only, all; somebody is asked before. Nothing may be found; files that are not in the cache are
 * never removed. Release *out, also on failure. ASH_EAGAIN while a process fetches for the repository;
 * ASH_EIO, ASH_ENOMEM, ... */
int ash_cli_removal_find(const ash_cli *cli, const ash_catalogue_entry *entry, bool others,
                         ash_cli_removal *out, ash_err *err) ASH_MUST_CHECK;
/* Removes it: *bytes are free then, `cache` has what went of the cache, *n_kept what went of the state
 * folder. Errors as above. */
int ash_cli_removal_run(ash_cli_removal *r, uint64_t *bytes, size_t *n_kept, ash_err *err) ASH_MUST_CHECK;
void ash_cli_removal_release(ash_cli_removal *r); /* safe twice */
/* All of it for a model of the catalogue, as ash_manager_opts.remove says. */
int ash_cli_removal_of(const ash_cli *cli, const char *id, uint64_t *bytes, ash_err *err) ASH_MUST_CHECK;

#endif
