/* downloads.json of the state folder with any content: what is read of it is ids, each short enough, not too
 * many; and whatever it held, the next change is there afterwards, in a file that can be read. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/limits.h"
#include "store/downloads.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64];

static void clean(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/downloads.json", dir);
    unlink(path);
    rmdir(dir);
}

static json_t *read_list(ash_downloads_list list, bool must)
{
    json_t *out = NULL, *v;
    ash_err err = ASH_ERR_INIT;
    size_t i;
    int rc = ash_downloads_read(dir, list, &out, &err);
    if (!out || (rc && (must || !err.msg[0]))) abort();
    if (json_array_size(out) > ASH_MAX_DOWNLOADS) abort();
    json_array_foreach(out, i, v)
    {
        size_t n = json_string_length(v);
        if (!n || n > ASH_MAX_MODEL_ID || strlen(json_string_value(v)) != n) abort();
    }
    return out;
}

static bool has(const json_t *list, const char *id)
{
    const json_t *v;
    size_t i;
    json_array_foreach(list, i, v)
    {
        if (!strcmp(json_string_value(v), id)) return true;
    }
    return false;
}

static void change(ash_downloads_list list, bool in)
{
    ash_err err = ASH_ERR_INIT;
    json_t *before = read_list(list, false);
    int rc = ash_downloads_set(dir, list, "acme/new", in, &err);
    bool full = json_array_size(before) == ASH_MAX_DOWNLOADS && in && !has(before, "acme/new");
    if (rc && (rc != ASH_ELIMIT || !full)) abort();
    json_t *after = read_list(list, rc == 0);
    if (!rc && has(after, "acme/new") != in) abort();
    json_decref(before);
    json_decref(after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[96];
    if (!*dir) {
        snprintf(dir, sizeof dir, "%s/ashley-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
        if (!mkdtemp(dir) || atexit(clean)) abort();
    }
    snprintf(path, sizeof path, "%s/downloads.json", dir);
    FILE *f = fopen(path, "we");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f)) abort();
    for (int list = 0; list < 2; list++) {
        change((ash_downloads_list)list, true);
        change((ash_downloads_list)list, false);
    }
    return 0;
}
