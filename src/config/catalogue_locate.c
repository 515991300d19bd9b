/* Owns the search for an entry's files on this machine. Refuses, by code and reason, what this
 * version cannot load or has no consent to fetch. Reads folders only; any thread. */
#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/limits.h"
#include "config/catalogue_private.h"
#include "config/value.h"

enum { MAX_VISITED = 8192, MAX_NAMED = 4, MAX_DEPTH = 3, PATH_BYTES = 4096 };

/* What one search found: the best file, and the names of all for a message. */
typedef struct search {
    const ash_catalogue_entry *e;
    char path[PATH_BYTES]; /* of the first match by name, "" if none */
    size_t n;              /* matches; parts of one split file count once */
    char names[300];
    int visited;
    bool other; /* weights of other formats were seen */
} search;

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcasecmp(s + n - m, end);
}

/* Whether NAME-00002-of-00003.gguf and the like: a later part of a split file. */
static bool later_part(const char *name)
{
    size_t n = strlen(name);
    if (n < 20 || fnmatch("*-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].gguf", name, 0))
        return false;
    return memcmp(name + n - 19, "00001", 5) != 0;
}

static bool wanted(const ash_catalogue_entry *e, const char *rel)
{
    for (size_t i = 0; i < e->n_files; i++)
        if (!fnmatch(e->files[i], rel, FNM_CASEFOLD)) return true;
    return !e->n_files;
}

/* One file of the folder searched: rel is its path below it. */
static void consider(search *s, const char *dir, const char *rel)
{
    const char *name = strrchr(rel, '/') ? strrchr(rel, '/') + 1 : rel;
    s->other |=
        ends_with(name, ".safetensors") || ends_with(name, ".bin") || ends_with(name, ".pt");
    if (!ends_with(name, ".gguf") || later_part(name) || strcasestr(name, "mmproj") ||
        !wanted(s->e, rel))
        return;
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/%s", dir, rel) >= (int)sizeof path || !ash_fs_is_file(path))
        return;
    if (!s->n || strcmp(path, s->path) < 0) memcpy(s->path, path, strlen(path) + 1);
    if (s->n < MAX_NAMED) {
        size_t used = strlen(s->names);
        snprintf(s->names + used, sizeof s->names - used, "%s%.60s", used ? ", " : "", name);
    }
    s->n++;
}

/* Everything below dir/rel. Links to files are followed (the hub cache is made of them), links to
 * folders are not. */
static void walk(search *s, const char *dir, const char *rel, int depth)
{
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s%s%s", dir, *rel ? "/" : "", rel) >= (int)sizeof path)
        return;
    DIR *d = opendir(path);
    struct dirent *f;
    while (d && s->visited < MAX_VISITED && (f = readdir(d))) {
        char next[PATH_BYTES];
        s->visited++;
        if (f->d_name[0] == '.' || snprintf(next, sizeof next, "%s%s%s", rel, *rel ? "/" : "",
                                            f->d_name) >= (int)sizeof next)
            continue;
        if (f->d_type != DT_DIR)
            consider(s, dir, next);
        else if (depth < MAX_DEPTH)
            walk(s, dir, next, depth + 1);
    }
    if (d) closedir(d);
}

/* models/ beside the catalogue: files named in full (a pattern names none), then folders named as
 * the id or the repository. */
static void search_models(search *s, const ash_catalogue *c)
{
    char dir[PATH_BYTES], path[PATH_BYTES];
    const ash_catalogue_entry *e = s->e;
    if (snprintf(dir, sizeof dir, "%s/models", c->folder) < (int)sizeof dir)
        for (size_t i = 0; i < e->n_files && !s->n; i++) consider(s, dir, e->files[i]);
    const char *base = e->repo ? strrchr(e->repo, '/') + 1 : NULL;
    const char *const names[] = {e->id, e->repo, base};
    for (size_t i = 0; i < 3 && !s->n; i++)
        if (names[i] && !strstr(names[i], "..") &&
            snprintf(path, sizeof path, "%s/models/%s", c->folder, names[i]) < (int)sizeof path)
            walk(s, path, "", 0);
}

/* The snapshot of the entry's revision in the hub cache, in the Python client's layout; "" if there
 * is none. 0 or ASH_ENOMEM. */
static int snapshot(const ash_catalogue *c, const ash_catalogue_entry *e, char out[PATH_BYTES],
                    ash_err *err)
{
    char repo[128], path[PATH_BYTES];
    out[0] = 0;
    if (!c->hub_dir || !e->repo || snprintf(repo, sizeof repo, "%s", e->repo) >= (int)sizeof repo)
        return 0;
    char *slash = strchr(repo, '/');
    *slash = 0;
    if (snprintf(path, sizeof path, "%s/models--%s--%s/refs/%s", c->hub_dir, repo, slash + 1,
                 e->revision) >= (int)sizeof path)
        return 0;
    ash_buf ref;
    int rc = ash_fs_read(path, 64, &ref, err);
    const char *commit = rc ? e->revision : ash_buf_cstr(&ref);
    bool ok = strspn(commit, "0123456789abcdef") == 40 &&
              snprintf(out, PATH_BYTES, "%s/models--%s--%s/snapshots/%.40s", c->hub_dir, repo,
                       slash + 1, commit) < PATH_BYTES;
    if (!ok || !ash_fs_is_dir(out)) out[0] = 0;
    ash_buf_release(&ref);
    return rc == ASH_ENOMEM ? rc : 0;
}

static bool is_gguf(const char *path)
{
    char magic[4] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool ok = fd >= 0 && read(fd, magic, 4) == 4 && !memcmp(magic, "GGUF", 4);
    if (fd >= 0) close(fd);
    return ok;
}

static void absent(ash_catalogue_place *out, const char *code, const char *hint)
{
    out->code = code;
    snprintf(out->hint, sizeof out->hint, "%s", hint);
}

/* "needs 689 GB of disk; this machine has 12.0 GB free ... " */
static void machine_numbers(const ash_catalogue *c, char out[64])
{
    char memory[16] = "?", disk[16] = "?";
    struct statvfs fs;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page > 0) ash_value_show_bytes((uint64_t)pages * (uint64_t)page, memory);
    if ((c->hub_dir && !statvfs(c->hub_dir, &fs)) || !statvfs(c->folder, &fs))
        ash_value_show_bytes((uint64_t)fs.f_bavail * fs.f_frsize, disk);
    snprintf(out, 64, "%s of memory, %s of free disk", memory, disk);
}

static bool loadable(const ash_catalogue_entry *e)
{
    return !strcmp(e->format, "gguf") || !strcmp(e->format, "auto");
}

static void explain_absence(const ash_catalogue *c, const search *s, bool consent,
                            ash_catalogue_place *out)
{
    const ash_catalogue_entry *e = s->e;
    bool other = !loadable(e) || s->other;
    if (e->warning && !consent) {
        char here[64];
        machine_numbers(c, here);
        snprintf(out->reason, sizeof out->reason,
                 "%.200s This machine has %s. Not downloaded without consent.%s", e->warning, here,
                 other ? " Its format is not supported by this version either." : "");
        absent(out, "consent_needed",
               "accept it with {\"model\":\"...\",\"confirm\":true} in PRELOAD_MODELS, or choose a "
               "smaller model");
    } else if (other) {
        snprintf(out->reason, sizeof out->reason,
                 "format %s is not supported by this version: only gguf is",
                 loadable(e) ? "safetensors or pytorch" : e->format);
        absent(out, "unsupported_format",
               "choose a GGUF of the same model, by path or as org/repo:QUANT");
    } else if (e->path) {
        snprintf(out->reason, sizeof out->reason, "not downloaded: no file '%.300s'", e->path);
        absent(out, "not_downloaded",
               "scripts/run fetches the default model; others have to be put there");
    } else {
        snprintf(out->reason, sizeof out->reason, "not downloaded: %s%s%s is not on this machine",
                 e->repo ? "repository '" : "its repository is not known and its file",
                 e->repo ? e->repo : "", e->repo ? "'" : "");
        snprintf(out->hint, sizeof out->hint,
                 "this version does not download: put the .gguf under %.100s/models/%.80s/, or "
                 "into the hub cache",
                 c->folder, e->id);
        out->code = "not_downloaded";
    }
}

static int found(const char *path, ash_catalogue_place *out, ash_err *err)
{
    if (!is_gguf(path)) {
        snprintf(out->reason, sizeof out->reason, "'%.300s' is not a GGUF file", path);
        absent(out, "unsupported_format", "only GGUF checkpoints are supported by this version");
        return 0;
    }
    out->path = strdup(path);
    return out->path ? 0 : ash_err_nomem(err, path);
}

int ash_catalogue_locate(const ash_catalogue *c, const ash_catalogue_entry *e, bool consent,
                         ash_catalogue_place *out, ash_err *err)
{
    memset(out, 0, sizeof *out);
    if (e->bad) {
        snprintf(out->reason, sizeof out->reason, "%s: %.300s", c->file, e->bad);
        absent(out, "bad_entry", "correct the catalogue's entry");
        return 0;
    }
    search *s = calloc(1, sizeof *s);
    if (!s) return ash_err_nomem(err, "search");
    s->e = e;
    int rc = 0;
    char dir[PATH_BYTES] = "";
    if (e->path && ash_fs_is_file(e->path)) {
        s->n = 1;
        snprintf(s->path, sizeof s->path, "%s", e->path);
    } else if (loadable(e)) {
        search_models(s, c);
        if (!s->n) rc = snapshot(c, e, dir, err);
        if (!s->n && !rc && *dir) walk(s, dir, "", 0);
    }
    if (rc) {
        /* no memory: what was not looked at is not absent */
    } else if (s->n == 1) {
        rc = found(s->path, out, err);
    } else if (s->n) {
        snprintf(out->reason, sizeof out->reason, "%zu files could be meant: %s%s", s->n, s->names,
                 s->n > MAX_NAMED ? ", ..." : "");
        absent(out, "unsupported_format",
               "name one: \"files\" in the catalogue, or org/repo:QUANT");
    } else {
        explain_absence(c, s, consent, out);
    }
    free(s);
    return rc;
}
