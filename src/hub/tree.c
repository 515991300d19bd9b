/* Owns the list of a repository's files: asked of the hub page by page, or put together from the
 * cache. Refuses names that are not plain relative paths, hashes that are none, names that come
 * twice, and more than the caps. A list is one thread's until it is handed out, constant then. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "hub/hub_private.h"

#define LIST_MEMORY                                                                                \
    (96u << 20) /* names of ASH_MAX_HUB_FILES files as long as they may be, and the rest */

bool hub_hex(const char *s, size_t n)
{
    return s && strlen(s) == n && strspn(s, "0123456789abcdef") == n;
}

bool hub_path_ok(const char *path)
{
    size_t n = strlen(path);
    if (!n || n > ASH_MAX_HUB_PATH || path[0] == '/' || path[n - 1] == '/') return false;
    for (const char *p = path; *p;) {
        size_t len = strcspn(p, "/");
        if (!len || (len == 1 && *p == '.') || (len == 2 && !memcmp(p, "..", 2)) || len > 255)
            return false;
        p += len;
        p += *p == '/';
    }
    for (const char *p = path; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F || *p == '\\') return false;
    return true;
}

bool ash_hub_repo_ok(const char *repo)
{
    size_t n = strlen(repo), slashes = 0;
    if (!n || n > ASH_MAX_HUB_REPO || strstr(repo, "--") || strstr(repo, "..")) return false;
    if (n >= 4 && !strcmp(repo + n - 4, ".git")) return false;
    for (const char *p = repo; *p; p++) {
        bool word = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                    (*p >= '0' && *p <= '9') || *p == '_';
        bool edge = p == repo || p[-1] == '/' || !p[1] || p[1] == '/';
        slashes += *p == '/';
        if (!word && (edge || (*p != '.' && *p != '-' && *p != '/'))) return false;
    }
    return slashes <= 1;
}

/* A branch, tag or commit: it becomes a path below refs/, and a part of a URL. */
static bool revision_ok(const char *revision)
{
    return strlen(revision) <= ASH_MAX_HUB_REVISION && hub_path_ok(revision);
}

/* ---- a list ---- */

int hub_list_open(const char *repo, const char *revision, hub_list **out, ash_err *err)
{
    *out = NULL;
    if (!revision) revision = "main";
    if (!ash_hub_repo_ok(repo))
        return ash_err_set(err, ASH_EINVAL, "'%.150s' is no repository's name; expected org/name",
                           repo);
    if (!revision_ok(revision))
        return ash_err_set(err, ASH_EINVAL, "'%.150s' is no revision's name", revision);
    hub_list *l = calloc(1, sizeof *l);
    if (!l) return ash_err_nomem(err, "a list of files");
    ash_arena_init(&l->arena, LIST_MEMORY);
    l->tree.repo = ash_arena_strdup(&l->arena, repo);
    l->tree.revision = ash_arena_strdup(&l->arena, revision);
    if (!l->tree.repo || !l->tree.revision) {
        ash_hub_tree_close(&l->tree);
        return ash_err_nomem(err, "a list of files");
    }
    *out = l;
    return 0;
}

void ash_hub_tree_close(ash_hub_tree *t)
{
    hub_list *l = (hub_list *)t;
    if (!l) return;
    free(l->files);
    ash_arena_release(&l->arena);
    free(l);
}

static int room(hub_list *l, ash_err *err)
{
    if (l->tree.n_files < l->cap) return 0;
    if (l->tree.n_files >= ASH_MAX_HUB_FILES)
        return ash_err_set(err, ASH_ELIMIT, "'%s' has more than %d files", l->tree.repo,
                           ASH_MAX_HUB_FILES);
    size_t cap = l->cap ? 2 * l->cap : 64;
    ash_hub_file *files = realloc(l->files, cap * sizeof *files);
    if (!files) return ash_err_nomem(err, "a list of files");
    l->files = files;
    l->cap = cap;
    l->tree.files = files;
    return 0;
}

int hub_list_add(hub_list *l, const char *path, uint64_t size, const char *sha256, const char *git,
                 ash_err *err)
{
    if (!hub_path_ok(path)) {
        char shown[128];
        size_t n = 0;
        for (; path[n] && n + 1 < sizeof shown; n++)
            shown[n] = path[n] >= 0x20 && path[n] < 0x7F ? path[n] : '?';
        shown[n] = 0;
        return ash_err_set(err, ASH_EFORMAT,
                           "the hub lists a file '%s' in '%s': no plain path, refused", shown,
                           l->tree.repo);
    }
    if (size > ASH_MAX_HUB_FILE)
        return ash_err_set(err, ASH_ELIMIT, "'%.200s' of '%s' has %llu bytes", path, l->tree.repo,
                           (unsigned long long)size);
    if ((sha256 && !hub_hex(sha256, 64)) || (git && !hub_hex(git, 40)))
        return ash_err_set(err, ASH_EFORMAT, "the hub gives '%.200s' of '%s' a hash that is none",
                           path, l->tree.repo);
    int rc = room(l, err);
    if (rc) return rc;
    if (sha256) git = NULL; /* that of the pointer that git keeps in place of the content */
    ash_hub_file *f = &l->files[l->tree.n_files];
    *f = (ash_hub_file){.path = ash_arena_strdup(&l->arena, path),
                        .size = size,
                        .sha256 = sha256 ? ash_arena_strdup(&l->arena, sha256) : NULL,
                        .git = git ? ash_arena_strdup(&l->arena, git) : NULL};
    if (!f->path || (sha256 && !f->sha256) || (git && !f->git))
        return ash_err_nomem(err, "a list of files");
    l->tree.n_files++;
    return 0;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const ash_hub_file *)a)->path, ((const ash_hub_file *)b)->path);
}

int hub_list_finish(hub_list *l, ash_err *err)
{
    size_t n = l->tree.n_files;
    if (n) qsort(l->files, n, sizeof *l->files, by_path);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(l->files[i - 1].path, l->files[i].path))
            return ash_err_set(err, ASH_EFORMAT, "the hub lists '%.200s' of '%s' twice",
                               l->files[i].path, l->tree.repo);
    return 0;
}

const ash_hub_file *ash_hub_tree_find(const ash_hub_tree *t, const char *path)
{
    ash_hub_file key = {.path = path};
    return t->n_files ? bsearch(&key, t->files, t->n_files, sizeof *t->files, by_path) : NULL;
}

/* ---- JSON ---- */

/* One element: {"type":"file","path","size","oid","lfs":{"oid","size"}}; folders are passed over.
 */
static int add_entry(hub_list *l, const json_t *e, ash_err *err)
{
    const char *type = "", *path = NULL, *git = NULL, *sha256 = NULL;
    int64_t size = -1;
    if (!json_is_object(e))
        return ash_err_set(err, ASH_EFORMAT, "an element is %s", ash_json_type_name(e));
    const json_t *lfs = json_object_get(e, "lfs");
    int rc = ash_json_get_str(e, "type", &type, err);
    if (!rc && strcmp(type, "file")) return 0;
    if (!rc) rc = ash_json_get_str(e, "path", &path, err);
    if (!rc) rc = ash_json_get_str(e, "oid", &git, err);
    if (!rc) rc = ash_json_get_int(e, "size", 0, INT64_MAX, &size, err);
    if (!rc && json_is_object(lfs)) {
        rc = ash_json_get_str(lfs, "oid", &sha256, err);
        if (!rc) rc = ash_json_get_int(lfs, "size", 0, INT64_MAX, &size, err);
        if (!rc && !sha256) return ash_err_set(err, ASH_EFORMAT, "a large file has no 'oid'");
    }
    if (rc) return rc;
    if (!path || size < 0 || (!sha256 && !git))
        return ash_err_set(err, ASH_EFORMAT, "a file has no 'path', no 'size' or no 'oid'");
    return hub_list_add(l, path, (uint64_t)size, sha256, git, err);
}

int hub_list_page(hub_list *l, const char *p, size_t n, ash_err *err)
{
    json_t *root = NULL, *e;
    size_t i;
    int rc = ash_json_parse(p, n, &root, err);
    if (!rc && !json_is_array(root))
        rc = ash_err_set(err, ASH_EFORMAT, "expected an array, not %s", ash_json_type_name(root));
    if (!rc) json_array_foreach(root, i, e)
        {
            rc = add_entry(l, e, err);
            if (rc) break;
        }
    json_decref(root);
    if (rc == ASH_EINVAL) rc = ash_err_set(err, ASH_EFORMAT, "a field has the wrong type");
    return rc;
}

/* {"format_version":1,"files":{PATH:{"size","blob_id","lfs_sha256","lfs_size"}}} */
int hub_list_kept(hub_list *l, const char *p, size_t n, ash_err *err)
{
    json_t *root = NULL, *e;
    const char *path;
    int64_t version = 0;
    int rc = ash_json_parse(p, n, &root, err);
    json_t *files = rc ? NULL : json_object_get(root, "files");
    if (!rc) rc = ash_json_get_int(root, "format_version", 1, 1, &version, err);
    if (!rc && (!json_is_object(files) || version != 1))
        rc = ash_err_set(err, ASH_EFORMAT, "it is no list of files");
    if (!rc) json_object_foreach(files, path, e)
        {
            const char *git = NULL, *sha256 = NULL;
            int64_t size = -1;
            if (!json_is_object(e)) rc = ash_err_set(err, ASH_EFORMAT, "it is no list of files");
            if (!rc) rc = ash_json_get_str(e, "blob_id", &git, err);
            if (!rc) rc = ash_json_get_str(e, "lfs_sha256", &sha256, err);
            if (!rc) rc = ash_json_get_int(e, "size", 0, INT64_MAX, &size, err);
            if (!rc && sha256) rc = ash_json_get_int(e, "lfs_size", 0, INT64_MAX, &size, err);
            if (!rc && size < 0) rc = ash_err_set(err, ASH_EFORMAT, "a file has no 'size'");
            if (!rc) rc = hub_list_add(l, path, (uint64_t)size, sha256, git, err);
            if (rc) break;
        }
    json_decref(root);
    return rc;
}

/* ---- asking ---- */

static bool take_commit(hub_list *l, const char *commit)
{
    if (!hub_hex(commit, HUB_COMMIT)) return false;
    l->tree.commit = ash_arena_strdup(&l->arena, commit);
    return l->tree.commit != NULL;
}

/* The commit behind the revision: GET /api/models/ORG/NAME/revision/REV -> {"sha", ...}. */
static int ask_commit(ash_hub *h, hub_list *l, const atomic_bool *cancel, const ash_hub_watch *told,
                      ash_err *err)
{
    const ash_hub_tree *t = &l->tree;
    ash_buf url;
    hub_answer a = {0};
    json_t *root = NULL;
    const char *sha = NULL;
    ash_buf_init(&url, ASH_MAX_URL);
    ash_buf_printf(&url, "%s/api/models/%s/revision/", h->endpoint, t->repo);
    hub_escape(&url, t->revision, false);
    int rc = ash_buf_check(&url, "an address", err);
    hub_question q = {.url = ash_buf_cstr(&url),
                      .what = t->repo,
                      .max = ASH_MAX_HUB_WHOLE,
                      .cancel = cancel,
                      .told = told};
    if (!rc) rc = hub_ask(h, &q, t->repo, t->revision, &a, err);
    if (!rc && (ash_json_parse(a.body.data, a.body.len, &root, NULL) ||
                ash_json_get_str(root, "sha", &sha, NULL) || !sha || !hub_hex(sha, HUB_COMMIT)))
        rc = ash_err_set(
            err, ASH_EFORMAT,
            "what %.150s answers about '%s' is no description of a repository: is it a hub?",
            h->endpoint, t->repo);
    if (!rc && !take_commit(l, sha)) rc = ash_err_nomem(err, "a list of files");
    json_decref(root);
    ash_buf_release(&a.body);
    ash_buf_release(&url);
    return rc;
}

/* The next page's address as the hub gives it, at the endpoint: a mirror may pass on the hub's own.
 */
static int next_page(const ash_hub *h, const hub_headers *headers, ash_buf *url, ash_err *err)
{
    const char *path = strstr(headers->next, "/api/models/");
    ash_buf_clear(url);
    if (!*headers->next) return 0;
    if (!path)
        return ash_err_set(err, ASH_EFORMAT,
                           "the hub's listing goes on at an address that is none of its own");
    ash_buf_printf(url, "%s%s", h->endpoint, path);
    return ash_buf_check(url, "an address", err);
}

static int ask_files(ash_hub *h, hub_list *l, const atomic_bool *cancel, const ash_hub_watch *told,
                     ash_err *err)
{
    const ash_hub_tree *t = &l->tree;
    ash_buf url;
    ash_buf_init(&url, ASH_MAX_URL);
    ash_buf_printf(&url, "%s/api/models/%s/tree/%s?recursive=true&expand=false", h->endpoint,
                   t->repo, t->commit);
    int rc = ash_buf_check(&url, "an address", err);
    for (int page = 0; !rc && url.len; page++) {
        hub_answer a = {0};
        hub_question q = {.url = url.data,
                          .what = t->repo,
                          .max = ASH_MAX_HUB_PAGE,
                          .cancel = cancel,
                          .told = told};
        if (page == ASH_MAX_HUB_PAGES)
            rc = ash_err_set(err, ASH_ELIMIT, "the list of '%s' has more than %d pages", t->repo,
                             ASH_MAX_HUB_PAGES);
        if (!rc) rc = hub_ask(h, &q, t->repo, t->revision, &a, err);
        if (!rc && (rc = hub_list_page(l, a.body.data, a.body.len, err)))
            ash_err_prefix(err, "the hub's list of '%s'", t->repo);
        if (!rc) rc = next_page(h, &a.headers, &url, err);
        ash_buf_release(&a.body);
    }
    ash_buf_release(&url);
    return rc;
}

/* ---- without the hub ---- */

static int from_cache(const ash_hub *h, hub_list *l, const char *why, ash_err *err)
{
    const ash_hub_tree *t = &l->tree;
    char commit[HUB_COMMIT + 1], repo[HUB_PATH], path[HUB_PATH];
    ash_buf kept = {0};
    if (!hub_cache_commit(h, t->repo, t->revision, commit))
        return ash_err_set(err, ASH_ENOENT, "'%s' at revision '%.100s' is not in the cache",
                           t->repo, t->revision);
    if (!take_commit(l, commit)) return ash_err_nomem(err, "a list of files");
    l->tree.from_cache = true;
    l->tree.why = ash_arena_strdup(&l->arena, why);
    if (!l->tree.why) return ash_err_nomem(err, "a list of files");
    int rc = hub_cache_repo(h, t->repo, repo, err);
    if (!rc) rc = hub_path(path, err, "%s/trees/%s.json", repo, commit);
    if (rc) return rc;
    if (!ash_fs_read(path, ASH_MAX_HUB_WHOLE, &kept, NULL) &&
        !hub_list_kept(l, kept.data, kept.len, NULL))
        l->tree.whole = true;
    else
        l->tree.n_files = 0; /* damaged or not kept */
    ash_buf_release(&kept);
    return l->tree.whole ? 0 : hub_cache_walk(h, l, err);
}

/* Who waits longer for the hub: who is told of it, and has nothing in the cache to go on with. */
static const ash_hub_watch *patient(const ash_hub *h, const hub_list *l, const ash_hub_watch *watch)
{
    char commit[HUB_COMMIT + 1];
    bool told = watch && watch->progress;
    return told && !hub_cache_commit(h, l->tree.repo, l->tree.revision, commit) ? watch : NULL;
}

int ash_hub_list(ash_hub *h, const char *repo, const char *revision, const ash_hub_watch *watch,
                 ash_hub_tree **out, ash_err *err)
{
    const atomic_bool *cancel = watch ? watch->cancel : NULL;
    hub_list *l;
    ash_err own = ASH_ERR_INIT;
    if (!err) err = &own;
    *out = NULL;
    int rc = hub_list_open(repo, revision, &l, err);
    if (rc) return rc;
    if (h->offline) {
        rc = from_cache(h, l, "HF_HUB_OFFLINE is set", err);
        if (rc == ASH_ENOENT) ash_err_prefix(err, "HF_HUB_OFFLINE is set");
    } else {
        l->tree.whole = true;
        const ash_hub_watch *told = patient(h, l, watch);
        rc = ask_commit(h, l, cancel, told, err);
        if (!rc) rc = ask_files(h, l, cancel, told, err);
        ash_err second = ASH_ERR_INIT;
        if (rc == ASH_ENET) {
            l->tree.n_files = 0;
            l->tree.whole = false;
            int cached = from_cache(h, l, err->msg, &second);
            if (!cached) ash_warn("hub", "%s; the cache has '%s' and is used", err->msg, repo);
            rc = cached ? rc : 0;
        }
    }
    if (!rc) rc = hub_list_finish(l, err);
    if (rc)
        ash_hub_tree_close(&l->tree);
    else
        *out = &l->tree;
    return rc;
}

int ash_hub_peek(ash_hub *h, const ash_hub_tree *t, const ash_hub_file *f, uint64_t offset,
                 size_t n, const atomic_bool *cancel, ash_buf *out, ash_err *err)
{
    hub_answer a = {0};
    ash_buf url = {0};
    ash_buf_init(out, ASH_MAX_HUB_PEEK);
    if (n > ASH_MAX_HUB_PEEK || offset > f->size)
        return ash_err_set(err, ASH_EINVAL, "'%.200s' is not read so far", f->path);
    if (n > f->size - offset) n = (size_t)(f->size - offset);
    if (!n) return 0;
    if (hub_cache_linked(h, t, f) || hub_cache_blob(h, t, f))
        return hub_cache_peek(h, t, f, offset, n, out, err);
    if (t->from_cache)
        return ash_err_set(err, ASH_ENOENT, "'%.200s' of '%s' is not in the cache (%.150s)",
                           f->path, t->repo, t->why);
    int rc = hub_resolve_url(h, t, f->path, &url, err);
    hub_question q = {.url = ash_buf_cstr(&url),
                      .what = f->path,
                      .max = ASH_MAX_HUB_PEEK,
                      .offset = offset,
                      .length = n,
                      .anywhere = true,
                      .cancel = cancel};
    if (!rc) rc = hub_ask(h, &q, t->repo, t->revision, &a, err);
    bool placed = a.status == 200 || (a.headers.has_range && a.headers.first == offset);
    if (!rc && (!placed || a.body.len != n))
        rc = ash_err_set(err, ASH_EFORMAT, "the hub does not give bytes %llu to %llu of '%.200s'",
                         (unsigned long long)offset, (unsigned long long)(offset + n), f->path);
    if (!rc) {
        *out = a.body;
        a.body = (ash_buf){0};
    }
    ash_buf_release(&a.body);
    ash_buf_release(&url);
    return rc;
}
