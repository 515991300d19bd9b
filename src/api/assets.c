/* Finds an embedded file of the page by its path; the table itself is made by web/bundle.py. */
#include "api/assets.h"

#include <stdlib.h>
#include <string.h>

static int compare_path(const void *key, const void *entry)
{
    return strcmp(key, ((const ash_asset *)entry)->path);
}

const ash_asset *ash_asset_find(const char *path)
{
    return bsearch(path, ash_assets, ash_n_assets, sizeof *ash_assets, compare_path);
}
