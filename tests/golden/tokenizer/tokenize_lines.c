/* tokenize_lines DIR: tokenises the texts that standard input has, a JSON string a line, with the
 * tokenizer of the folder, special tokens matched; writes {"ids": [...], "text": "..."} for each, the
 * text being that of the ids. For compare.py; no test. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "text/tokenizer_impl.h"

static int read_file(void *ctx, const char *name, size_t max, ash_buf *out, ash_err *err)
{
    char *path = ash_fs_join(ctx, name);
    int rc = path ? ash_fs_read(path, max, out, err) : ash_err_nomem(err, name);
    if (!path)
        ash_buf_init(out, max);
    free(path);
    return rc;
}

static int decode(const ash_tokenizer *t, const ash_ids *ids, ash_buf *out)
{
    ash_detok d;
    int rc = 0;
    ash_detok_init(&d, t, ASH_DETOK_SPECIAL);
    for (size_t i = 0; i < ids->n && !rc; i++) rc = ash_detok_push(&d, ids->p[i], out);
    return rc ? rc : ash_detok_flush(&d, out);
}

static int write_line(const ash_tokenizer *t, const char *text, size_t n, unsigned flags, ash_err *err)
{
    ash_ids ids = ASH_IDS_INIT;
    ash_buf out, line;
    ash_buf_init(&out, 256u << 20);
    ash_buf_init(&line, 512u << 20);
    int rc = ash_tokenizer_encode(t, text, n, flags, NULL, 0, &ids, err);
    if (!rc)
        rc = decode(t, &ids, &out);
    ash_buf_adds(&line, "{\"ids\":[");
    for (size_t i = 0; i < ids.n; i++) ash_buf_printf(&line, i ? ",%d" : "%d", (int)ids.p[i]);
    ash_buf_adds(&line, "],\"text\":");
    ash_json_quote(&line, ash_buf_cstr(&out), out.len);
    ash_buf_addc(&line, '}');
    if (!rc)
        puts(ash_buf_cstr(&line));
    ash_buf_release(&out);
    ash_buf_release(&line);
    ash_ids_release(&ids);
    return rc;
}

int main(int argc, char **argv)
{
    tok_files files = {.dir = argv[1], .ctx = argv[1], .read = read_file};
    ash_tokenizer *t = NULL;
    json_t *config = NULL, *v;
    ash_err err = ASH_ERR_INIT;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc = argc == 2 ? tok_files_json(&files, "config.json", &config, &err) : ASH_EINVAL;
    if (!rc)
        rc = tok_open_files(&files, config, &t, &err);
    if (!rc)
        fprintf(stderr, "%s", ash_tokenizer_note(t));
    /* SentencePiece's own encoder takes no control token from a text */
    unsigned flags = !rc && strcmp(ash_tokenizer_from(t), "tokenizer.json") == 0 ? ASH_ENCODE_SPECIAL : 0;
    while (!rc && (n = getline(&line, &cap, stdin)) > 0) {
        rc = ash_json_parse(line, (size_t)n, &v, &err);
        if (!rc)
            rc = write_line(t, json_string_value(v), json_string_length(v), flags, &err);
        json_decref(rc ? NULL : v);
    }
    if (rc)
        fprintf(stderr, "tokenize_lines: %s\n", err.msg);
    free(line);
    json_decref(config);
    ash_tokenizer_close(t);
    return rc != 0;
}
