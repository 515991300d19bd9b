/* Owns the temporary folder in which the readers of formats find a model's headers before its weights are
 * fetched. Refuses what hub and readers refuse. Main thread. */
#include "cli/plan_hub.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/limits.h"
#include "cli/engine_open.h"

enum { FIRST = 1 << 20 };

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcasecmp(s + n - m, end);
}

static bool is_weights(const char *path)
{
    static const char *const ends[] = {".gguf", ".safetensors", ".bin", ".pt", ".pth"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_with(path, ends[i])) return true;
    return false;
}

static bool is_index(const char *path)
{
    return ends_with(path, ".index.json");
}

/* What sizes depend on beside the weights. */
static bool is_settings(const char *path)
{
    static const char *const names[] = {"config.json", "quantize_config.json", "quant_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(path, names[i])) return true;
    return is_index(path);
}

int ash_plan_remote_open(ash_hub *hub, const ash_catalogue_entry *e, const char *name, ash_plan_remote *out,
                         ash_err *err)
{
    *out = (ash_plan_remote){.hub = hub};
    const ash_hub_watch watch = {.cancel = ash_cli_interrupt()};
    int rc = ash_cli_hub_list(hub, e, name, NULL, &watch, &out->found, err);
    if (rc) return rc;
    for (size_t i = 0; i < out->found.plan->n_files; i++) {
        const ash_hub_file *f = out->found.plan->files[i];
        if (!is_weights(f->path)) continue;
        out->n_files++;
        out->weight_bytes += f->size; /* at most the plan's bytes, which the listing has checked */
    }
    return 0;
}

/* ---- the folder ---------------------------------------------------------------------------------
 */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int os_error(ash_err *err, const char *what, const char *path)
{
    int code = errno == ENOSPC || errno == EFBIG ? ASH_ENOSPC : ASH_EIO;
    return ash_err_set(err, code, "cannot %s '%s': %s", what, path, strerror(errno));
}

static int make_folder(ash_plan_remote *r, ash_err *err)
{
    const char *tmp = getenv("TMPDIR");
    char at[4096];
    if (r->folder) return 0;
    snprintf(at, sizeof at, "%s/ashley-plan-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(at)) return os_error(err, "make", at);
    r->folder = strdup(at);
    if (r->folder) return 0;
    rmdir(at);
    return ash_err_nomem(err, "plan");
}

/* FOLDER/NAME of a file of the plan. */
static void place_of(const ash_plan_remote *r, const ash_hub_file *f, char out[4200])
{
    snprintf(out, 4200, "%s/%.100s", r->folder, last_part(f->path));
}

/* The bytes, and nothing up to the file's true size. */
static int write_head(const ash_plan_remote *r, const ash_hub_file *f, const ash_buf *head, ash_err *err)
{
    char path[4200];
    place_of(r, f, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return os_error(err, "write", path);
    bool ok = pwrite(fd, head->data ? head->data : "", head->len, 0) == (ssize_t)head->len;
    if (ok && head->len < f->size) ok = !ftruncate(fd, (off_t)f->size);
    int rc = ok ? 0 : os_error(err, "write", path);
    close(fd);
    return rc;
}

static int copy_head(const ash_plan_remote *r, const ash_hub_file *f, uint64_t n, ash_err *err)
{
    ash_buf head;
    uint64_t want = n < f->size ? n : f->size;
    if (want > ASH_MAX_HUB_PEEK)
        return ash_err_set(err, ASH_ELIMIT, "%s: its first %llu bytes are wanted; at most %u", f->path,
                           (unsigned long long)want, ASH_MAX_HUB_PEEK);
    int rc = ash_hub_peek(r->hub, r->found.tree, f, 0, (size_t)want, ash_cli_interrupt(), &head, err);
    if (!rc && head.len < want)
        rc = ash_err_set(err, ASH_ENET, "%s: %zu bytes of %llu came", f->path, head.len,
                         (unsigned long long)want);
    if (!rc) rc = write_head(r, f, &head, err);
    ash_buf_release(&head);
    return rc;
}

/* A safetensors file begins with the length of its header; most headers fit the first piece. */
static int copy_safetensors(const ash_plan_remote *r, const ash_hub_file *f, ash_err *err)
{
    ash_buf first;
    uint64_t n = 0;
    size_t piece = f->size < FIRST ? (size_t)f->size : FIRST;
    int rc = ash_hub_peek(r->hub, r->found.tree, f, 0, piece, ash_cli_interrupt(), &first, err);
    if (!rc && first.len < 8)
        rc = ash_err_set(err, ASH_EFORMAT, "%s: not a safetensors file", f->path);
    for (int i = 7; i >= 0 && !rc; i--) n = n << 8 | (uint8_t)first.data[i];
    if (!rc && n > ASH_MAX_HUB_PEEK - 8)
        rc = ash_err_set(err, ASH_ELIMIT, "%s: a header of %llu bytes", f->path, (unsigned long long)n);
    bool whole = !rc && n <= first.len - 8;
    if (whole) {
        first.len = (size_t)n + 8;
        rc = write_head(r, f, &first, err);
    }
    ash_buf_release(&first);
    return rc || whole ? rc : copy_head(r, f, n + 8, err);
}

int ash_plan_remote_head(ash_plan_remote *r, size_t head, ash_err *err)
{
    bool index = false, unread = false;
    int rc = make_folder(r, err);
    for (size_t i = 0; i < r->found.plan->n_files; i++) index |= is_index(r->found.plan->files[i]->path);
    for (size_t i = 0; i < r->found.plan->n_files && !rc; i++) {
        const ash_hub_file *f = r->found.plan->files[i];
        if (is_settings(f->path))
            rc = copy_head(r, f, f->size, err);
        else if (index || !is_weights(f->path))
            continue;
        else if (ends_with(f->path, ".gguf"))
            rc = copy_head(r, f, head, err);
        else if (ends_with(f->path, ".safetensors"))
            rc = copy_safetensors(r, f, err);
        else
            unread = true; /* PyTorch's directory is at the end of its files */
    }
    r->declared = index;
    r->path[0] = 0;
    if (!rc && !index && !unread)
        snprintf(r->path, sizeof r->path, "%s%s%.100s", r->folder, r->found.plan->weights ? "/" : "",
                 r->found.plan->weights ? last_part(r->found.plan->weights) : "");
    return rc;
}

void ash_plan_remote_release(ash_plan_remote *r)
{
    for (size_t i = 0; r->folder && i < r->found.plan->n_files; i++) {
        char path[4200];
        place_of(r, r->found.plan->files[i], path);
        unlink(path);
    }
    if (r->folder) rmdir(r->folder);
    free(r->folder);
    ash_cli_listing_release(&r->found);
    *r = (ash_plan_remote){0};
}
