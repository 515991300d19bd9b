/* Owns where a checkpoint's chat templates are: chat_template.jinja and additional_chat_templates/,
 * which come first as in transformers, tokenizer_config.json "chat_template" (text, or a list of
 * names and texts), chat_template.json. Refuses templates over ASH_MAX_TEMPLATE. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "text/tokenizer_impl.h"

#define MORE "additional_chat_templates"
#define MAX_NAMED 32

/* Takes a template whose name was not taken before. */
static int add(tok_desc *d, ash_str name, ash_str text, const char *from, ash_err *err)
{
    char shown[80];
    if (text.n > ASH_MAX_TEMPLATE)
        return ash_err_set(err, ASH_ELIMIT, "%s: the chat template '%s' has %zu bytes; at most %u",
                           from, ash_gguf_show(name, shown), text.n, ASH_MAX_TEMPLATE);
    for (size_t i = 0; i < d->n_templates; i++) {
        const tok_template_desc *t = &d->templates[i];
        if (!ash_str_eq(t->name, name))
            continue;
        if (!ash_str_eq(t->text, text))
            tok_desc_note(d, "%s: the chat template '%s' differs from that of %s, which is taken", from,
                          ash_gguf_show(name, shown), t->from);
        return 0;
    }
    const char *n = tok_desc_copy(d, name.p, name.n), *p = tok_desc_copy(d, text.p, text.n);
    if (!n || !p)
        return ash_err_nomem(err, "chat template");
    return tok_desc_add_template(d, &(tok_template_desc){{n, name.n}, {p, text.n}, from}, err);
}

/* "chat_template" of an object: text, or a list of which each has a name and a text. */
static int add_member(tok_desc *d, const json_t *file, const char *from, ash_err *err)
{
    const json_t *v = json_object_get(file, "chat_template");
    int rc = 0;
    if (json_is_string(v))
        return add(d, ASH_STR("default"), (ash_str){json_string_value(v), json_string_length(v)}, from,
                   err);
    for (size_t i = 0; i < json_array_size(v) && !rc; i++) {
        const json_t *item = json_array_get(v, i), *text = json_object_get(item, "template");
        const char *name = json_string_value(json_object_get(item, "name"));
        if (!name || !json_is_string(text))
            return ash_err_set(err, ASH_EFORMAT, "%s: 'chat_template' must be a text or a list of "
                               "{\"name\": ..., \"template\": ...}", from);
        rc = add(d, ash_str_from(name), (ash_str){json_string_value(text), json_string_length(text)},
                 from, err);
    }
    return rc;
}

static int add_jinja(tok_desc *d, const tok_files *files, ash_err *err)
{
    ash_buf text;
    int rc = files->read(files->ctx, "chat_template.jinja", ASH_MAX_TEMPLATE, &text, err);
    if (!rc)
        rc = add(d, ASH_STR("default"), (ash_str){ash_buf_cstr(&text), text.len}, "chat_template.jinja",
                 err);
    ash_buf_release(&text);
    return rc == ASH_ENOENT ? 0 : rc;
}

static int add_named(tok_desc *d, const char *dir, const char *file, ash_err *err)
{
    ash_buf text;
    char *path = ash_fs_join(dir, file);
    if (!path)
        return ash_err_nomem(err, "chat template");
    int rc = ash_fs_read(path, ASH_MAX_TEMPLATE, &text, err);
    if (!rc)
        rc = add(d, (ash_str){file, strlen(file) - strlen(".jinja")},
                 (ash_str){ash_buf_cstr(&text), text.len}, MORE, err);
    ash_buf_release(&text);
    free(path);
    return rc;
}

static int is_template(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 6 && n < 70 && strcmp(e->d_name + n - 6, ".jinja") == 0;
}

static int add_folder(tok_desc *d, const char *dir, ash_err *err)
{
    struct dirent **list = NULL;
    char *path = dir ? ash_fs_join(dir, MORE) : NULL;
    int rc = 0;
    if (!path)
        return dir ? ash_err_nomem(err, "chat template") : 0;
    int n = ash_fs_is_dir(path) ? scandir(path, &list, is_template, alphasort) : 0;
    if (n < 0)
        rc = errno == ENOMEM ? ash_err_nomem(err, "chat template")
                             : ash_err_set(err, ASH_EIO, "%s: %s", path, strerror(errno));
    for (int i = 0; i < n; i++) {
        if (!rc && i < MAX_NAMED)
            rc = add_named(d, path, list[i]->d_name, err);
        free(list[i]);
    }
    free(list);
    free(path);
    return rc;
}

int tok_template_read(tok_desc *d, const tok_files *files, const json_t *tokenizer_config, ash_err *err)
{
    json_t *legacy = NULL;
    int rc = add_jinja(d, files, err);
    if (!rc)
        rc = add_folder(d, files->dir, err);
    if (!rc)
        rc = add_member(d, tokenizer_config, "tokenizer_config.json", err);
    if (!rc)
        rc = tok_files_json(files, "chat_template.json", &legacy, err);
    if (!rc)
        rc = add_member(d, legacy, "chat_template.json", err);
    json_decref(legacy);
    return rc;
}
