/* Owns the question whether a folder holds a checkpoint of safetensors or PyTorch files, and
 * whether all of its files are there. Judges by names and the index only: contents are the reader's
 * (format/checkpoint.h). Any thread. */
#include <dirent.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/limits.h"
#include "config/catalogue_private.h"

enum { NAME_BYTES = 256 };

/* Names of one family of weight files in a folder. */
typedef struct family {
    const char *format;     /* of the catalogue */
    char index[NAME_BYTES]; /* NAME.index.json, "" if there is none */
    char one[NAME_BYTES];   /* the first weight file that the entry wants, by name */
    char shard[NAME_BYTES]; /* the first that is named as one of several */
    size_t n, n_wanted;
} family;

typedef struct folder {
    family safetensors, torch;
    bool config;
} folder;

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcasecmp(s + n - m, end);
}

bool ash_catalogue_wanted(const ash_catalogue_entry *e, const char *rel)
{
    for (size_t i = 0; i < e->n_files; i++)
        if (!fnmatch(e->files[i], rel, FNM_CASEFOLD)) return true;
    return !e->n_files;
}

/* What training leaves beside weights under the same endings. */
static bool is_training_state(const char *name)
{
    static const char *const names[] = {"training_args.bin", "optimizer.*", "scheduler.*",
                                        "scaler.pt",         "rng_state*",  "trainer_state*"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!fnmatch(names[i], name, FNM_CASEFOLD)) return true;
    return false;
}

/* NAME-00001-of-00002.bin and the like; DeepSeek writes six digits for the total. */
static bool is_shard(const char *name)
{
    return !fnmatch("*-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]*", name, 0);
}

/* The least name, so that the order of the folder does not matter. */
static void keep_least(char at[NAME_BYTES], const char *name)
{
    if (!*at || strcmp(name, at) < 0) snprintf(at, NAME_BYTES, "%s", name);
}

static void note(family *f, const ash_catalogue_entry *e, const char *name)
{
    f->n++;
    if (!ash_catalogue_wanted(e, name)) return;
    f->n_wanted++;
    keep_least(f->one, name);
    if (is_shard(name)) keep_least(f->shard, name);
}

static void scan(folder *f, const ash_catalogue_entry *e, const char *dir, int *visited)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    while (d && *visited < 8192 && (entry = readdir(d))) {
        const char *name = entry->d_name;
        ++*visited;
        if (*name == '.' || entry->d_type == DT_DIR) continue;
        if (!strcmp(name, "config.json"))
            f->config = true;
        else if (ends_with(name, ".safetensors.index.json"))
            keep_least(f->safetensors.index, name);
        else if (ends_with(name, ".bin.index.json"))
            keep_least(f->torch.index, name);
        else if (ends_with(name, ".safetensors"))
            note(&f->safetensors, e, name);
        else if ((ends_with(name, ".bin") || ends_with(name, ".pt") || ends_with(name, ".pth")) &&
                 !is_training_state(name))
            note(&f->torch, e, name);
    }
    if (d) closedir(d);
}

/* Whether the entry's format may be of this family; GPTQ comes in both. */
static bool may_be(const ash_catalogue_entry *e, const family *f)
{
    return !strcmp(e->format, "auto") || !strcmp(e->format, f->format) ||
           !strcmp(e->format, "gptq");
}

static void check_file(ash_catalogue_search *s, const char *dir, const char *name)
{
    char path[ASH_CATALOGUE_PATH];
    s->n_files++;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path && ash_fs_is_file(path))
        return;
    if (!s->n_missing++) snprintf(s->missing, sizeof s->missing, "%s", name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The files that an index names, each once. An index that cannot be read is left to the reader,
 * which says what is wrong with it. */
static int check_index(ash_catalogue_search *s, const char *dir, const char *index, ash_err *err)
{
    char path[ASH_CATALOGUE_PATH];
    if (snprintf(path, sizeof path, "%s/%s", dir, index) >= (int)sizeof path) return 0;
    ash_buf text;
    json_t *root = NULL, *file;
    const char *tensor;
    int rc = ash_fs_read(path, ASH_MAX_SHARD_INDEX, &text, err);
    if (!rc) rc = ash_json_parse(ash_buf_cstr(&text), text.len, &root, err);
    ash_buf_release(&text);
    if (rc) return rc == ASH_ENOMEM ? rc : 0;
    json_t *map = json_object_get(root, "weight_map");
    size_t n = 0;
    const char **names = calloc(json_object_size(map) + 1, sizeof *names);
    if (!names) rc = ash_err_nomem(err, path);
    json_object_foreach(map, tensor, file)
    {
        const char *name = json_string_value(file);
        if (names && name && *name && !strchr(name, '/') && strlen(name) < NAME_BYTES)
            names[n++] = name;
    }
    if (n) qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++)
        if (!i || strcmp(names[i], names[i - 1])) check_file(s, dir, names[i]);
    free(names);
    json_decref(root);
    return rc;
}

/* A family is there: where it is and what of it is missing. `folder_does`: the folder's path means
 * it. */
static int take_family(ash_catalogue_search *s, const char *dir, const folder *f, const family *m,
                       bool folder_does, ash_err *err)
{
    bool exact = !folder_does || (!*m->index && m->n_wanted == 1 && m->n > 1);
    const char *name = *m->index ? m->index : m->one;
    int len = exact ? snprintf(s->path, sizeof s->path, "%s/%s", dir, name)
                    : snprintf(s->path, sizeof s->path, "%s", dir);
    if (len >= (int)sizeof s->path) return 0;
    snprintf(s->dir, sizeof s->dir, "%s", dir);
    snprintf(s->names, sizeof s->names, "%.200s", name);
    s->n = 1;
    int rc = 0;
    if (*m->index)
        rc = check_index(s, dir, m->index, err);
    else if (!*m->shard || m->n_wanted == 1)
        check_file(s, dir, m->one);
    else { /* shards without their index cannot be told apart from leftovers */
        check_file(s, dir,
                   m == &f->safetensors ? "model.safetensors.index.json"
                                        : "pytorch_model.bin.index.json");
        s->n_files += m->n_wanted;
    }
    if (!f->config) check_file(s, dir, "config.json");
    return rc;
}

int ash_catalogue_look(ash_catalogue_search *s, const char *dir, ash_err *err)
{
    folder *f = calloc(1, sizeof *f);
    if (!f) return ash_err_nomem(err, dir);
    f->safetensors.format = "safetensors";
    f->torch.format = "pytorch";
    scan(f, s->e, dir, &s->visited);
    const family *both[] = {&f->safetensors, &f->torch};
    int rc = 0;
    bool first = true; /* the reader takes the first family that a folder holds */
    for (size_t i = 0; i < 2 && !s->n && !rc; i++) {
        const family *m = both[i];
        if (!m->n && !*m->index) continue;
        if (may_be(s->e, m) && (m->n_wanted || *m->index))
            rc = take_family(s, dir, f, m, first, err);
        else
            s->other = true;
        first = false;
    }
    if (f->config && !*s->dir) snprintf(s->dir, sizeof s->dir, "%s", dir);
    free(f);
    return rc;
}

void ash_catalogue_count_parts(ash_catalogue_search *s)
{
    const char *path = *s->path ? s->path : s->part;
    size_t n = strlen(path);
    if (n < 20 || fnmatch("-*-of-[0-9][0-9][0-9][0-9][0-9].gguf", path + n - 20, 0)) return;
    long total = strtol(path + n - 10, NULL, 10); /* five digits */
    for (long i = 1; i <= total; i++) {
        char name[ASH_CATALOGUE_PATH];
        snprintf(name, sizeof name, "%.*s-%05ld-of-%05ld.gguf", (int)(n - 20), path, i, total);
        s->n_files++;
        if (ash_fs_is_file(name)) continue;
        const char *slash = strrchr(name, '/');
        if (!s->n_missing++)
            snprintf(s->missing, sizeof s->missing, "%.255s", slash ? slash + 1 : name);
    }
}
