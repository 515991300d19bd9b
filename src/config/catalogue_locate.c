/* Owns the search for an entry's files on this machine. Refuses, by code and reason, what is not
 * all there or has no consent to be fetched. Reads folders only; any thread. */
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

enum { MAX_VISITED = 8192, MAX_NAMED = 4, MAX_DEPTH = 3, PATH_BYTES = ASH_CATALOGUE_PATH };

typedef ash_catalogue_search search;

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

/* One file of the folder searched: rel is its path below it. */
static void consider(search *s, const char *dir, const char *rel)
{
    const char *name = strrchr(rel, '/') ? strrchr(rel, '/') + 1 : rel;
    if (!ends_with(name, ".gguf") || strcasestr(name, "mmproj") || !ash_catalogue_wanted(s->e, rel))
        return;
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/%s", dir, rel) >= (int)sizeof path || !ash_fs_is_file(path))
        return;
    if (later_part(name)) {
        if (!*s->part) memcpy(s->part, path, strlen(path) + 1);
        return;
    }
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

static bool means_gguf(const ash_catalogue_entry *e)
{
    return !strcmp(e->format, "gguf") || !strcmp(e->format, "auto");
}

static int read_ref(const char *repo_dir, const char *revision, char out[PATH_BYTES], ash_err *err);
static void only_snapshot(const char *repo_dir, char out[PATH_BYTES]);

/* A folder that is the entry's: its snapshot if it is an entry of the hub cache; then the
 * checkpoint in it. */
static int search_folder(search *s, const char *dir, ash_err *err)
{
    char at[PATH_BYTES];
    if (!ash_fs_is_dir(dir)) return 0;
    int rc = read_ref(dir, s->e->revision, at, err);
    if (!rc && !*at && s->e->resolved) only_snapshot(dir, at);
    if (!*at) snprintf(at, sizeof at, "%s", dir);
    if (!rc) rc = ash_catalogue_look(s, at, err);
    if (rc || s->n || !means_gguf(s->e)) return rc;
    walk(s, at, "", 0);
    if (*s->path || *s->part) {
        ash_catalogue_count_parts(s);
        if (!*s->dir && s->n_missing) snprintf(s->dir, sizeof s->dir, "%s", at);
    }
    return 0;
}

/* models/ beside the catalogue: GGUF files named in full (a pattern names none), then folders named
 * as the id or the repository. */
static int search_models(search *s, const ash_catalogue *c, ash_err *err)
{
    char dir[PATH_BYTES], path[PATH_BYTES];
    const ash_catalogue_entry *e = s->e;
    if (snprintf(dir, sizeof dir, "%s/models", c->folder) < (int)sizeof dir && means_gguf(e))
        for (size_t i = 0; i < e->n_files && !s->n; i++) consider(s, dir, e->files[i]);
    if (s->n) ash_catalogue_count_parts(s);
    const char *base = e->repo ? strrchr(e->repo, '/') + 1 : NULL;
    const char *const names[] = {e->id, e->repo, base};
    int rc = 0;
    for (size_t i = 0; i < 3 && !s->n && !rc; i++)
        if (names[i] && !strstr(names[i], "..") &&
            snprintf(path, sizeof path, "%s/models/%s", c->folder, names[i]) < (int)sizeof path)
            rc = search_folder(s, path, err);
    return rc;
}

/* The snapshot of a revision in one repository of the hub cache, in the Python client's layout; ""
 * if there is none. 0 or ASH_ENOMEM. */
static int read_ref(const char *repo_dir, const char *revision, char out[PATH_BYTES], ash_err *err)
{
    char path[PATH_BYTES];
    out[0] = 0;
    if (snprintf(path, sizeof path, "%s/refs/%s", repo_dir, revision) >= (int)sizeof path) return 0;
    ash_buf ref;
    int rc = ash_fs_read(path, 64, &ref, err);
    const char *commit = rc ? revision : ash_buf_cstr(&ref);
    bool ok = strspn(commit, "0123456789abcdef") == 40 &&
              snprintf(out, PATH_BYTES, "%s/snapshots/%.40s", repo_dir, commit) < PATH_BYTES;
    if (!ok || !ash_fs_is_dir(out)) out[0] = 0;
    ash_buf_release(&ref);
    return rc == ASH_ENOMEM ? rc : 0;
}

/* A cache entry without refs/main, as a download of one commit leaves it: its only snapshot, as the
 * reader takes it (format/checkpoint.h). */
static void only_snapshot(const char *repo_dir, char out[PATH_BYTES])
{
    char dir[PATH_BYTES], found[256] = "";
    struct dirent *f;
    size_t n = 0;
    if (snprintf(dir, sizeof dir, "%s/config.json", repo_dir) >= (int)sizeof dir ||
        ash_fs_is_file(dir) ||
        snprintf(dir, sizeof dir, "%s/snapshots", repo_dir) >= (int)sizeof dir)
        return;
    DIR *d = opendir(dir);
    while (d && (f = readdir(d)))
        if (f->d_name[0] != '.') {
            snprintf(found, sizeof found, "%s", f->d_name);
            n++;
        }
    if (d) closedir(d);
    if (n != 1 || snprintf(out, PATH_BYTES, "%s/%s", dir, found) >= PATH_BYTES ||
        !ash_fs_is_dir(out))
        out[0] = 0;
}

static int search_cache(search *s, const ash_catalogue *c, ash_err *err)
{
    char path[PATH_BYTES];
    const char *repo = s->e->repo, *slash = repo ? strchr(repo, '/') : NULL;
    if (!c->hub_dir || !slash ||
        snprintf(path, sizeof path, "%s/models--%.*s--%s", c->hub_dir, (int)(slash - repo), repo,
                 slash + 1) >= (int)sizeof path)
        return 0;
    return search_folder(s, path, err);
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

static void explain_place(const ash_catalogue *c, const search *s, ash_catalogue_place *out)
{
    const ash_catalogue_entry *e = s->e;
    const char *where = *s->dir ? s->dir : e->path;
    if (s->n_missing)
        snprintf(out->reason, sizeof out->reason,
                 "%zu of %zu files are missing, the first is %.100s (in '%.200s')", s->n_missing,
                 s->n_files, s->missing, where ? where : c->folder);
    else if (e->path && !*s->dir && !ash_fs_is_dir(e->path))
        snprintf(out->reason, sizeof out->reason, "not downloaded: no file '%.300s'", e->path);
    else if (e->path || *s->dir || s->other)
        snprintf(out->reason, sizeof out->reason, "no weights%s%s%s%s%.200s%s",
                 strcmp(e->format, "auto") ? " of format " : "",
                 strcmp(e->format, "auto") ? e->format : "", s->other ? ", but others" : "",
                 where ? " in '" : "", where ? where : "", where ? "'" : "");
    else
        snprintf(out->reason, sizeof out->reason, "not downloaded: %s%s%s is not on this machine",
                 e->repo ? "repository '" : "its repository is not known and its folder",
                 e->repo ? e->repo : "", e->repo ? "'" : "");
    if (s->n_missing)
        snprintf(out->hint, sizeof out->hint,
                 "%s%.80s%sput the missing files there; `ashley show` tells the needs without them",
                 e->repo ? "`ashley pull " : "", e->repo ? e->id : "",
                 e->repo ? "` fetches them; or " : "");
    else if (e->path && e->resolved)
        snprintf(out->hint, sizeof out->hint,
                 "name a folder with all files of a checkpoint, or one of its files");
    else if (e->path)
        snprintf(out->hint, sizeof out->hint,
                 "scripts/run fetches the default model; others have to be put there");
    else
        snprintf(
            out->hint, sizeof out->hint,
            "`ashley pull %.80s` fetches it; or put all files under %.100s/models/%.80s/",
            e->id, c->folder, e->id);
}

static void explain_absence(const ash_catalogue *c, const search *s, bool consent,
                            ash_catalogue_place *out)
{
    const ash_catalogue_entry *e = s->e;
    out->n_files = s->n_files;
    out->n_missing = s->n_missing;
    if (e->warning && !consent) {
        char here[64];
        machine_numbers(c, here);
        snprintf(out->reason, sizeof out->reason,
                 "%.200s This machine has %s. Not downloaded without consent.", e->warning, here);
        absent(out, "consent_needed",
               "accept it with \"confirm\":true in POST /models, or in its entry of PRELOAD_MODELS; or "
               "choose a smaller model");
        return;
    }
    explain_place(c, s, out);
    out->code = "not_downloaded";
}

static int copy_path(const char *path, char **out, ash_err *err)
{
    *out = strdup(path);
    return *out ? 0 : ash_err_nomem(err, path);
}

static int found(const search *s, ash_catalogue_place *out, ash_err *err)
{
    if (ends_with(s->path, ".gguf") && ash_fs_is_file(s->path) && !is_gguf(s->path)) {
        snprintf(out->reason, sizeof out->reason, "'%.300s' is not a GGUF file", s->path);
        absent(out, "unsupported_format", "its content is not what its name says: fetch it again");
        return 0;
    }
    out->n_files = s->n_files;
    return copy_path(s->path, &out->path, err);
}

void ash_catalogue_place_release(ash_catalogue_place *p)
{
    free(p->path);
    free(p->partial);
    p->path = p->partial = NULL;
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
    if (e->path && ash_fs_is_file(e->path)) {
        s->n = 1;
        snprintf(s->path, sizeof s->path, "%s", e->path);
        if (ends_with(e->path, ".gguf")) ash_catalogue_count_parts(s);
    } else if (e->path) {
        rc = search_folder(s, e->path, err);
    }
    if (!rc && !s->n && !(e->path && e->resolved)) rc = search_models(s, c, err);
    if (!rc && !s->n) rc = search_cache(s, c, err);
    if (rc) {
        /* no memory: what was not looked at is not absent */
    } else if (s->n > 1) {
        snprintf(out->reason, sizeof out->reason, "%zu files could be meant: %s%s", s->n, s->names,
                 s->n > MAX_NAMED ? ", ..." : "");
        absent(out, "unsupported_format",
               "name one: \"files\" in the catalogue, its path, or org/repo:QUANT");
    } else if (s->n && !s->n_missing) {
        rc = found(s, out, err);
    } else {
        explain_absence(c, s, consent, out);
        if (*s->dir) rc = copy_path(s->dir, &out->partial, err);
    }
    free(s);
    return rc;
}
