/* Owns the choice of what to name when there is no room. Reads the folders of the cache. */
#include "cli/room.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "config/value.h"
#include "hub/survey.h"

/* What `ashley rm` calls it: the catalogue's id, else the repository itself. */
static const char *name_of(const ash_cli *cli, const char *repo)
{
    for (size_t i = 0; i < ash_catalogue_count(cli->catalogue); i++) {
        const ash_catalogue_entry *e = ash_catalogue_at(cli->catalogue, i);
        if (e->repo && !strcmp(e->repo, repo)) return e->id;
    }
    return repo;
}

/* Whether an unfinished download of it grew just now. */
static bool being_fetched(const ash_hub_use *u)
{
    return u->n_partial && (int64_t)time(NULL) - u->partial_s < 60;
}

void ash_cli_room_advise(const ash_cli *cli, const char *id, uint64_t missing, char *text, size_t size)
{
    const ash_catalogue_entry *own = id ? ash_catalogue_find(cli->catalogue, id) : NULL;
    const char *hub = cli->config->hub_dir;
    const ash_hub_use *best = NULL;
    ash_hub_survey s;
    char bytes[16];
    text[0] = 0;
    if (!hub) return;
    bool read = !ash_hub_survey_read(hub, &s, NULL);
    for (size_t i = 0; read && i < s.n; i++) {
        const ash_hub_use *u = &s.v[i];
        if (!u->bytes || being_fetched(u) || (own && own->repo && !strcmp(own->repo, u->repo))) continue;
        bool enough = u->bytes >= missing, before = best && best->bytes >= missing;
        if (!best || (enough && !before) || (enough == before && (u->bytes < best->bytes) == enough))
            best = u;
    }
    if (best) {
        ash_value_show_bytes(best->bytes, bytes);
        snprintf(text, size, "`ashley rm %.128s` frees %s%s", name_of(cli, best->repo), bytes,
                 best->bytes < missing ? ", which is not enough" : "");
    }
    ash_hub_survey_release(&s);
}
