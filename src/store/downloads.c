/* Owns downloads.json of the state folder. Refuses more than a few hundred ids. Any thread. */
#include "store/downloads.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/limits.h"

static const char *const names[] = {"paused", "added"};

enum { TRIES = 100, TRY_NS = 10000000 };

/* The ids of one list that can be ids, each once. NULL without memory. */
static json_t *ids_of(const json_t *file, ash_downloads_list list)
{
    json_t *out = json_array();
    const json_t *v;
    size_t i;
    json_array_foreach(json_object_get(file, names[list]), i, v)
    {
        size_t n = json_string_length(v);
        if (!n || n > ASH_MAX_MODEL_ID || strlen(json_string_value(v)) != n) continue;
        if (json_array_size(out) < ASH_MAX_DOWNLOADS) json_array_append(out, (json_t *)(uintptr_t)v);
    }
    return out;
}

/* *file is an object, or NULL with the reason. */
static int read_file(const char *path, json_t **file, ash_err *err)
{
    ash_buf text;
    *file = NULL;
    int rc = ash_fs_read(path, ASH_MAX_DOWNLOADS_FILE, &text, err);
    if (!rc) rc = ash_json_parse(ash_buf_cstr(&text), text.len, file, err);
    ash_buf_release(&text);
    if (!rc && !json_is_object(*file)) {
        json_decref(*file);
        *file = NULL;
        rc = ash_err_set(err, ASH_EFORMAT, "expected an object");
    }
    return rc;
}

int ash_downloads_read(const char *state_dir, ash_downloads_list list, json_t **out, ash_err *err)
{
    char *path = ash_fs_join(state_dir, "downloads.json");
    json_t *file = NULL;
    *out = NULL;
    if (!path) return ash_err_nomem(err, "downloads");
    int rc = read_file(path, &file, err);
    if (rc == ASH_ENOENT) rc = 0;
    if (rc) ash_err_prefix(err, "%s", path);
    free(path);
    *out = ids_of(file, list);
    json_decref(file);
    return *out ? rc : ash_err_nomem(err, "downloads");
}

/* The folder's descriptor, locked; negative: an error. */
static int lock_folder(const char *dir, ash_err *err)
{
    int rc = ash_fs_mkdirs(dir, err);
    if (rc) return rc;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return ash_err_set(err, ASH_EIO, "cannot open '%s': %s", dir, strerror(errno));
    for (int i = 0; i < TRIES; i++) {
        const struct timespec pause = {.tv_nsec = TRY_NS};
        if (!flock(fd, LOCK_EX | LOCK_NB)) return fd;
        nanosleep(&pause, NULL);
    }
    close(fd);
    return ash_err_set(err, ASH_EAGAIN, "another process keeps '%s' locked", dir);
}

/* Without the id, or with it as the last. */
static json_t *changed(const json_t *ids, const char *id, bool in)
{
    json_t *out = json_array();
    const json_t *v;
    size_t i;
    json_array_foreach(ids, i, v)
    {
        if (strcmp(json_string_value(v), id) != 0) json_array_append(out, (json_t *)(uintptr_t)v);
    }
    if (in) json_array_append_new(out, json_string(id));
    return out;
}

static int write_file(const char *path, const json_t *lists[2], ash_err *err)
{
    ash_buf text;
    json_t *v = json_pack("{s:O, s:O}", names[0], lists[0], names[1], lists[1]);
    ash_buf_init(&text, ASH_MAX_DOWNLOADS_FILE);
    int rc = v && !ash_json_dump(v, &text) && !ash_buf_adds(&text, "\n") ? 0 : ash_err_nomem(err, path);
    if (!rc) rc = ash_fs_replace(path, text.data, text.len, err);
    ash_buf_release(&text);
    json_decref(v);
    return rc;
}

int ash_downloads_set(const char *state_dir, ash_downloads_list list, const char *id, bool in, ash_err *err)
{
    ash_err unread = ASH_ERR_INIT;
    json_t *file = NULL, *lists[2] = {NULL, NULL};
    int fd = lock_folder(state_dir, err), rc = 0;
    if (fd < 0) return fd;
    char *path = ash_fs_join(state_dir, "downloads.json");
    if (path && read_file(path, &file, &unread)) file = NULL;
    for (int i = 0; i < 2; i++) lists[i] = ids_of(file, (ash_downloads_list)i);
    json_t *before = lists[list];
    lists[list] = before ? changed(before, id, in) : NULL;
    if (!path || !lists[0] || !lists[1])
        rc = ash_err_nomem(err, "downloads");
    else if (json_array_size(lists[list]) > ASH_MAX_DOWNLOADS)
        rc = ash_err_set(err, ASH_ELIMIT, "more than %d ids in '%s'", ASH_MAX_DOWNLOADS, path);
    else if (!json_equal(before, lists[list]) || (unread.code && unread.code != ASH_ENOENT))
        rc = write_file(path, (const json_t **)lists, err);
    json_decref(before);
    json_decref(lists[0]);
    json_decref(lists[1]);
    json_decref(file);
    free(path);
    close(fd);
    return rc;
}
