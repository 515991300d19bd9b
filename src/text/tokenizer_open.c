/* Owns the opening of a checkpoint's tokenizer, whatever its files are. */
#include "text/tokenizer_impl.h"

static int read_file(void *ctx, const char *name, size_t max, ash_buf *out, ash_err *err)
{
    return ash_checkpoint_file(ctx, name, max, out, err);
}

int ash_tokenizer_open(const ash_checkpoint *c, ash_tokenizer **out, ash_err *err)
{
    tok_files files = {.dir = c->dir, .ctx = (void *)c, .read = read_file};
    if (c->gguf)
        return ash_tokenizer_open_gguf(c->gguf, out, err);
    int rc = tok_open_files(&files, c->config, out, err);
    if (rc && rc != ASH_ENOMEM)
        ash_err_prefix(err, "%s", c->dir);
    return rc;
}
