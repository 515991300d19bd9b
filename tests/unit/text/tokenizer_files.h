/* Opens tokenizers from files that are held in memory, and those of tests/golden/tokenizer/files.json. */
#ifndef ASHLEY_TESTS_TOKENIZER_FILES_H
#define ASHLEY_TESTS_TOKENIZER_FILES_H

#include <string.h>

#include "base/json.h"
#include "text/tokenizer_impl.h"
#include "tokenizer_fixture.h"

/* A folder in memory; a list ends with a NULL name. n 0: the text ends with NUL. */
typedef struct made_file {
    const char *name, *text;
    size_t n;
} made_file;

static inline int read_made(void *ctx, const char *name, size_t max, ash_buf *out, ash_err *err)
{
    ash_buf_init(out, max);
    for (const made_file *f = ctx; f->name; f++)
        if (strcmp(f->name, name) == 0 && f->text) {
            ash_buf_add(out, f->text, f->n ? f->n : strlen(f->text));
            return ash_buf_check(out, name, err);
        }
    return ash_err_set(err, ASH_ENOENT, "%s: no such file", name);
}

static inline int open_made_files(const made_file *list, const json_t *config, ash_tokenizer **t,
                                  ash_err *err)
{
    tok_files files = {.ctx = (void *)list, .read = read_made};
    return tok_open_files(&files, config, t, err);
}

static inline int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static inline void read_base64(const char *s, ash_buf *out)
{
    unsigned bits = 0, n = 0;
    for (; base64_value(*s) >= 0; s++) {
        bits = bits << 6 | (unsigned)base64_value(*s);
        n += 6;
        if (n >= 8) {
            n -= 8;
            ash_buf_addc(out, (char)(bits >> n & 0xFF));
        }
    }
}

/* What files.json has, parsed; NULL after an error that was printed. */
static inline json_t *read_files_json(void)
{
    char path[512];
    ash_buf text;
    json_t *root = NULL;
    ash_err err = ASH_ERR_INIT;
    if (ash_fs_read(fixture_path("files.json", path), 4u << 20, &text, &err) ||
        ash_json_parse(ash_buf_cstr(&text), text.len, &root, &err))
        fprintf(stderr, "%s\n", err.msg);
    ash_buf_release(&text);
    return root;
}

static inline const json_t *find_variant(const json_t *root, const char *name)
{
    size_t i;
    const json_t *v;
    json_array_foreach(json_object_get(root, "variants"), i, v)
        if (strcmp(json_string_value(json_object_get(v, "name")), name) == 0)
            return v;
    return NULL;
}

/* The variant's tokenizer.json or tokenizer.model; *name is the file's. */
static inline void write_variant(const json_t *root, const json_t *v, ash_buf *out, const char **name)
{
    const json_t *models = json_object_get(root, "models");
    const json_t *model = json_object_get(models, json_string_value(json_object_get(v, "model")));
    ash_buf_init(out, 1u << 20);
    *name = json_is_string(model) ? "tokenizer.model" : "tokenizer.json";
    if (json_is_string(model)) {
        read_base64(json_string_value(model), out);
        return;
    }
    json_t *file = json_copy(json_object_get(v, "file")), *changed = json_copy((json_t *)model);
    json_object_update(changed, json_object_get(v, "set"));
    json_object_set_new(file, "model", changed);
    ash_json_dump(file, out);
    json_decref(file);
}

static inline int open_variant(const json_t *root, const json_t *v, ash_tokenizer **t, ash_err *err)
{
    ash_buf b;
    made_file list[2] = {{0}};
    write_variant(root, v, &b, &list[0].name);
    list[0].text = b.data;
    list[0].n = b.len;
    int rc = open_made_files(list, NULL, t, err);
    ash_buf_release(&b);
    return rc;
}

#endif
