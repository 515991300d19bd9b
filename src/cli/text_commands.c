/* Owns the commands for people who check a tokenizer or a template: tokenize, detokenize, render.
 * They open headers only, no weights. Output is exactly what is documented, so that tools can drive
 * it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/cli.h"
#include "text/chat.h"
#include "text/tokenizer.h"

static int open_tokenizer(ash_cli *cli, const char *model, ash_tokenizer **tok,
                          const ash_catalogue_entry **entry)
{
    ash_catalogue_place place;
    *tok = NULL;
    int status = ash_cli_place(cli, model, &place, entry); /* its weights need not be there */
    if (status) return status;
    ash_err err = ASH_ERR_INIT;
    ash_checkpoint *c = NULL;
    int rc = place.path ? ash_checkpoint_open(place.path, &c, &err)
                        : ash_checkpoint_declare(place.partial, &c, &err);
    if (!rc) rc = ash_tokenizer_open(c, tok, &err);
    ash_checkpoint_close(c);
    ash_catalogue_place_release(&place);
    return rc ? ash_cli_fail(&err) : 0;
}

int ash_cmd_tokenize(ash_cli *cli)
{
    ash_tokenizer *tok;
    const ash_catalogue_entry *entry;
    ash_buf text;
    ash_ids ids = ASH_IDS_INIT;
    ash_err err = ASH_ERR_INIT;
    int status = open_tokenizer(cli, cli->args[0], &tok, &entry);
    if (status) return status;
    status = ash_cli_read(ash_cli_get(cli, "file"), ASH_MAX_TEXT, &text);
    unsigned flags = (ash_cli_get(cli, "special") ? ASH_ENCODE_SPECIAL : 0u) |
                     (ash_cli_get(cli, "no-bos") ? 0u : ASH_ENCODE_BOS_EOS);
    if (!status &&
        ash_tokenizer_encode(tok, ash_buf_cstr(&text), text.len, flags, NULL, 0, &ids, &err))
        status = ash_cli_fail(&err);
    if (!status) {
        putchar('[');
        for (size_t i = 0; i < ids.n; i++) printf(i ? ", %d" : "%d", (int)ids.p[i]);
        puts("]");
    }
    ash_ids_release(&ids);
    ash_buf_release(&text);
    ash_tokenizer_close(tok);
    return status;
}

/* The ids of a JSON array of whole numbers. */
static int read_ids(const ash_buf *json, const ash_tokenizer *tok, ash_ids *ids, ash_err *err)
{
    json_t *v;
    int rc = ash_json_parse(ash_buf_cstr(json), json->len, &v, err);
    if (rc) return ash_err_prefix(err, "standard input");
    if (!json_is_array(v))
        rc = ash_err_set(err, ASH_EFORMAT, "standard input must be a JSON array of ids, not %s",
                         ash_json_type_name(v));
    json_int_t n = (json_int_t)ash_tokenizer_n_vocab(tok);
    for (size_t i = 0; !rc && i < json_array_size(v); i++) {
        const json_t *x = json_array_get(v, i);
        json_int_t id = json_integer_value(x);
        if (!json_is_integer(x) || id < 0 || id >= n)
            rc = ash_err_set(err, ASH_EFORMAT,
                             "standard input, element %zu: expected an id from 0 to %lld", i,
                             (long long)n - 1);
        else
            rc = ash_ids_add(ids, (int32_t)id, err);
    }
    json_decref(v);
    return rc;
}

int ash_cmd_detokenize(ash_cli *cli)
{
    ash_tokenizer *tok;
    const ash_catalogue_entry *entry;
    ash_buf json, out;
    ash_ids ids = ASH_IDS_INIT;
    ash_err err = ASH_ERR_INIT;
    int status = open_tokenizer(cli, cli->args[0], &tok, &entry);
    if (status) return status;
    ash_buf_init(&out, ASH_MAX_TEXT);
    status = ash_cli_read(NULL, ASH_MAX_TEXT, &json);
    if (!status) {
        ash_detok d;
        ash_detok_init(&d, tok, ASH_DETOK_SPECIAL);
        int rc = read_ids(&json, tok, &ids, &err);
        for (size_t i = 0; !rc && i < ids.n; i++) rc = ash_detok_push(&d, ids.p[i], &out);
        if (!rc) rc = ash_detok_flush(&d, &out);
        if (rc && !err.code) ash_buf_check(&out, "the text", &err);
        if (rc)
            status = ash_cli_fail(&err);
        else
            fwrite(ash_buf_cstr(&out), 1, out.len, stdout);
    }
    ash_ids_release(&ids);
    ash_buf_release(&out);
    ash_buf_release(&json);
    ash_tokenizer_close(tok);
    return status;
}

/* The template of --template, or that of MODEL (its catalogue override first). */
static int template_of(ash_cli *cli, ash_tokenizer **tok, ash_template **t)
{
    const char *file = ash_cli_get(cli, "template");
    const ash_catalogue_entry *entry = NULL;
    ash_buf text = {0};
    ash_err err = ASH_ERR_INIT;
    ash_str source = {0};
    int status;
    if (file) {
        status = ash_cli_read(file, ASH_MAX_TEMPLATE, &text);
        source = (ash_str){ash_buf_cstr(&text), text.len};
    } else {
        status = open_tokenizer(cli, cli->args[0], tok, &entry);
        if (!status && entry && entry->template_text)
            source = ash_str_from(entry->template_text);
        else if (!status && !ash_tokenizer_chat_template(*tok, &source))
            status = ash_cli_fail(
                (ash_err_set(&err, ASH_ENOENT, "%s has no chat template", cli->args[0]), &err));
    }
    if (!status && ash_chat_template_open(source.p, source.n, t, &err)) {
        ash_err_prefix(&err, "%s", file ? file : cli->args[0]);
        status = ash_cli_fail(&err);
    }
    ash_buf_release(&text);
    return status;
}

/* A model's own BOS and EOS, for a context that names none. */
static void add_token(json_t *context, const char *key, const ash_tokenizer *tok, int32_t id)
{
    ash_str piece;
    if (tok && id >= 0 && !json_object_get(context, key) && ash_tokenizer_piece(tok, id, &piece))
        json_object_set_new(context, key, json_stringn(piece.p, piece.n));
}

/* A template that raises is its author's word on the input: exit 6, as for any refused input. */
static int render_failed(ash_err *err)
{
    int status = ash_cli_fail(err);
    return status == ASH_EXIT_USAGE ? ASH_EXIT_BAD_INPUT : status;
}

int ash_cmd_render(ash_cli *cli)
{
    if ((cli->n_args == 0) == !ash_cli_get(cli, "template"))
        return ash_cli_usage("render takes either MODEL or --template FILE");
    const char *file = ash_cli_get(cli, "context");
    if (!file) return ash_cli_usage("render needs --context FILE");
    ash_template *t = NULL;
    ash_tokenizer *tok = NULL;
    ash_buf json = {0}, out;
    ash_err err = ASH_ERR_INIT;
    json_t *context = NULL;
    ash_buf_init(&out, ASH_MAX_TEMPLATE_OUTPUT);
    int status = template_of(cli, &tok, &t);
    status = status ? status : ash_cli_read(file, ASH_MAX_JSON_BODY, &json);
    if (!status && tok) {
        int rc = ash_json_parse(ash_buf_cstr(&json), json.len, &context, &err);
        add_token(context, "bos_token", tok, ash_tokenizer_bos(tok));
        add_token(context, "eos_token", tok, ash_tokenizer_eos(tok));
        rc = rc ? rc : ash_template_render(t, context, NULL, &out, NULL, &err);
        status = rc ? render_failed(&err) : 0;
    } else if (!status) {
        if (ash_template_render_text(t, ash_buf_cstr(&json), json.len, NULL, &out, NULL, &err))
            status = render_failed(&err);
    }
    if (!status) fwrite(ash_buf_cstr(&out), 1, out.len, stdout);
    json_decref(context);
    ash_buf_release(&out);
    ash_buf_release(&json);
    ash_template_close(t);
    ash_tokenizer_close(tok);
    return status;
}
