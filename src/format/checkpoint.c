/* Owns the opening of a checkpoint whatever its files are: finds the file, tells the format by its
 * content, reads headers and configuration. Refuses what checkpoint.h lists. Thread rule: see
 * there. */
#include "format/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/checkpoint_private.h"
#include "format/safetensors.h"
#include "format/shards.h"
#include "format/torch.h"

typedef struct owner {
    ash_checkpoint pub; /* first, so that one pointer is both */
    ash_arena arena;    /* paths */
    ash_tensor_index index;
    ash_gguf *gguf;
    json_t *config, *quant;
    ash_buf note;
    bool known; /* pub.kind is set: by the first file */
} owner;

enum { MAX_PATHS = 64 << 20 };

const char *ash_checkpoint_kind_name(ash_checkpoint_kind k)
{
    static const char *const names[] = {"GGUF", "safetensors", "PyTorch"};
    return (unsigned)k < sizeof names / sizeof *names ? names[k] : "unknown";
}

static int refuse_kind(const char *path, ash_file_kind kind, ash_err *err)
{
    if (kind == ASH_FILE_LFS)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: a Git LFS pointer, not the file itself: get it with "
                           "'git lfs pull'",
                           path);
    if (kind == ASH_FILE_JSON)
        return ash_err_set(err, ASH_EFORMAT,
                           "%s: JSON, not a checkpoint; an index is named "
                           "NAME.safetensors.index.json or NAME.bin.index.json",
                           path);
    return ash_err_set(err, ASH_EFORMAT,
                       "%s: not a checkpoint: neither GGUF nor safetensors nor PyTorch", path);
}

/* An ash_tensor_reader: each file by its content, all of one kind. */
static int read_file(void *arg, ash_tensor_list *list, uint32_t file, ash_err *err)
{
    owner *o = arg;
    const ash_tensor_file *f = &list->idx->files[file];
    size_t head = f->map.size < ASH_FILE_HEAD ? (size_t)f->map.size : ASH_FILE_HEAD;
    ash_file_kind kind = ash_file_sniff(f->map.data, head, f->map.size, f->path);
    ash_checkpoint_kind is =
        kind == ASH_FILE_TORCH ? ASH_CHECKPOINT_TORCH : ASH_CHECKPOINT_SAFETENSORS;
    if (kind == ASH_FILE_GGUF)
        return ash_err_set(err, ASH_EFORMAT, "%s: a GGUF file cannot be a part of an index",
                           f->path);
    if (kind != ASH_FILE_TORCH && kind != ASH_FILE_SAFETENSORS)
        return refuse_kind(f->path, kind, err);
    if (o->known && is != o->pub.kind)
        return ash_err_set(err, ASH_EFORMAT, "%s: a %s file, but the first one is %s", f->path,
                           ash_checkpoint_kind_name(is), ash_checkpoint_kind_name(o->pub.kind));
    o->known = true;
    o->pub.kind = is;
    if (kind == ASH_FILE_TORCH) return ash_torch_read(NULL, list, file, err);
    return ash_safetensors_read(NULL, list, file, err);
}

/* Of a split set the first part's path, whichever part was named. */
static int first_part(owner *o, const char *path, const char **out, ash_err *err)
{
    size_t n = strlen(path);
    *out = path;
    if (n < 20 || strcmp(path + n - 5, ".gguf") != 0 || memcmp(path + n - 14, "-of-", 4) != 0 ||
        path[n - 20] != '-')
        return 0;
    for (size_t i = 0; i < 5; i++)
        if (path[n - 19 + i] < '0' || path[n - 19 + i] > '9' || path[n - 10 + i] < '0' ||
            path[n - 10 + i] > '9')
            return 0;
    char *first = ash_arena_strdup(&o->arena, path);
    if (!first) return ash_err_nomem(err, path);
    memcpy(first + n - 19, "00001", 5);
    if (ash_fs_is_file(first)) /* else the part's own error says more */
        *out = first;
    return 0;
}

static int open_gguf(owner *o, ash_err *err)
{
    int rc = first_part(o, o->pub.path, &o->pub.path, err);
    if (!rc) rc = ash_gguf_open(o->pub.path, &o->gguf, err);
    if (rc) return rc;
    o->pub.kind = ASH_CHECKPOINT_GGUF;
    o->pub.gguf = o->gguf;
    o->pub.tensors = ash_gguf_tensors(o->gguf);
    return 0;
}

static int read_config(owner *o, ash_err *err)
{
    o->pub.tensors = &o->index;
    int rc = ash_checkpoint_read_config(o->pub.dir, &o->config, &o->quant, &o->pub.quant_from,
                                        &o->note, err);
    o->pub.config = o->config;
    o->pub.quant = o->quant;
    return rc;
}

static int declare_files(owner *o, ash_err *err)
{
    const char *path = o->pub.path;
    size_t n = strlen(path);
    if (n < 11 || strcmp(path + n - 11, ".index.json") != 0)
        return ash_err_set(err, ASH_ENOENT, "%s: no index names the files and tensors", path);
    o->pub.kind = n > 15 && strcmp(path + n - 15, ".bin.index.json") == 0
                      ? ASH_CHECKPOINT_TORCH
                      : ASH_CHECKPOINT_SAFETENSORS;
    int rc = ash_shards_declare(path, &o->index, err);
    if (!rc) rc = read_config(o, err);
    if (!rc) ash_checkpoint_declare_types(o->config, &o->index);
    return rc;
}

static int open_files(owner *o, ash_err *err)
{
    ash_file_kind kind;
    size_t n = strlen(o->pub.path);
    bool index = n > 11 && strcmp(o->pub.path + n - 11, ".index.json") == 0;
    int rc = index ? 0 : ash_file_kind_of(o->pub.path, o->pub.path, &kind, err);
    if (rc) return rc;
    if (!index && kind == ASH_FILE_GGUF) return open_gguf(o, err);
    rc = index ? ash_shards_open_index(o->pub.path, read_file, o, &o->index, err)
               : ash_shards_open(o->pub.path, read_file, o, &o->index, err);
    return rc ? rc : read_config(o, err);
}

/* The folder of the side files and the file or index in it. */
static int find_files(owner *o, const char *path, ash_err *err)
{
    const char *name = NULL;
    char *dir = NULL, *file = NULL, *snapshots = NULL;
    int rc = 0;
    if (!ash_fs_is_dir(path)) {
        const char *slash = strrchr(path, '/');
        o->pub.path = ash_arena_strdup(&o->arena, path);
        o->pub.dir = !slash          ? "."
                     : slash == path ? "/"
                                     : ash_arena_strndup(&o->arena, path, (size_t)(slash - path));
        return o->pub.path && o->pub.dir ? 0 : ash_err_nomem(err, path);
    }
    snapshots = ash_fs_join(path, "snapshots");
    file = ash_fs_join(path, "config.json"); /* where it is, snapshots/ is a trainer's own */
    if (!snapshots || !file)
        rc = ash_err_nomem(err, path);
    else if (ash_fs_is_dir(snapshots) && !ash_fs_is_file(file))
        rc = ash_checkpoint_snapshot(path, NULL, &dir, err);
    free(snapshots);
    free(file);
    if (!rc) {
        o->pub.dir = ash_arena_strdup(&o->arena, dir ? dir : path);
        rc = o->pub.dir ? ash_checkpoint_locate(o->pub.dir, &o->arena, &name, err)
                        : ash_err_nomem(err, path);
    }
    free(dir);
    if (rc) return rc;
    file = ash_fs_join(o->pub.dir, name);
    o->pub.path = file ? ash_arena_strdup(&o->arena, file) : NULL;
    free(file);
    return o->pub.path ? 0 : ash_err_nomem(err, path);
}

static int open_owner(const char *path, bool declared, ash_checkpoint **out, ash_err *err)
{
    owner *o = calloc(1, sizeof *o);
    *out = NULL;
    if (!o) return ash_err_nomem(err, path);
    ash_arena_init(&o->arena, MAX_PATHS);
    ash_tensor_index_init(&o->index, ASH_MAX_TENSOR_INDEX);
    ash_buf_init(&o->note, 64u << 10);
    int rc = find_files(o, path, err);
    if (!rc) rc = declared ? declare_files(o, err) : open_files(o, err);
    o->pub.note = ash_buf_cstr(&o->note);
    if (rc)
        ash_checkpoint_close(&o->pub);
    else
        *out = &o->pub;
    return rc;
}

int ash_checkpoint_open(const char *path, ash_checkpoint **out, ash_err *err)
{
    return open_owner(path, false, out, err);
}

int ash_checkpoint_declare(const char *path, ash_checkpoint **out, ash_err *err)
{
    return open_owner(path, true, out, err);
}

void ash_checkpoint_close(ash_checkpoint *c)
{
    owner *o = (owner *)c;
    if (!o) return;
    ash_gguf_close(o->gguf);
    json_decref(o->quant);
    json_decref(o->config);
    ash_tensor_index_release(&o->index);
    ash_buf_release(&o->note);
    ash_arena_release(&o->arena);
    free(o);
}

int ash_checkpoint_file(const ash_checkpoint *c, const char *name, size_t max, ash_buf *out,
                        ash_err *err)
{
    ash_buf_init(out, max);
    if (!ash_shards_plain_name(ash_str_from(name)))
        return ash_err_set(err, ASH_EINVAL, "'%s' is no plain name of a file", name);
    char *path = ash_fs_join(c->dir, name);
    if (!path) return ash_err_nomem(err, name);
    int rc = ash_fs_read(path, max, out, err);
    free(path);
    return rc;
}

int ash_checkpoint_json(const ash_checkpoint *c, const char *name, size_t max, json_t **out,
                        ash_err *err)
{
    *out = NULL;
    if (!ash_shards_plain_name(ash_str_from(name)))
        return ash_err_set(err, ASH_EINVAL, "'%s' is no plain name of a file", name);
    return ash_checkpoint_read_json(c->dir, name, max, out, err);
}
