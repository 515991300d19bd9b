/* Owns the reading of tokenizer and template, on a thread of its own beside the weights. Refuses what text
 * refuses, and vocabularies that do not suit the weights. */
#include "engine/model_text.h"

#include <string.h>

#include "base/log.h"
#include "base/utf8.h"

enum { SPARE_TOKENS = 256 }; /* fine-tuners add a token such as [PAD] without a row for it */

/* What a template puts where it says `name`, "bos_token" or "eos_token": text, or nothing. */
static const char *token_text(ash_model *m, const char *name, int32_t id)
{
    ash_str s = {0};
    if (id >= 0)
        ash_tokenizer_piece(m->tokenizer, id, &s);
    if (!ash_utf8_valid(s.p, s.n)) {
        ash_warn("engine", "%s: token %d, its %s, is no UTF-8, and templates have none", m->text.path, id,
                 name);
        s = (ash_str){0};
    }
    return ash_arena_strndup(&m->arena, s.p ? s.p : "", s.n);
}

static int load_tokenizer(ash_model *m, const ash_model_text *t, ash_err *err)
{
    m->n_usable = m->net->hp.n_vocab;
    m->bos_text = m->eos_text = "";
    int rc = ash_tokenizer_open(m->files, &m->tokenizer, err);
    if (rc && rc != ASH_ENOMEM && t->bare)
        return 0;
    if (rc)
        return rc;
    if (ash_tokenizer_note(m->tokenizer)[0])
        ash_warn("engine", "%s: %s", t->path, ash_tokenizer_note(m->tokenizer));
    size_t n = ash_tokenizer_n_vocab(m->tokenizer), rows = (size_t)m->net->hp.n_vocab;
    if (n > rows + (m->files->gguf ? 0 : SPARE_TOKENS))
        return ash_err_set(err, ASH_EFORMAT, "%s: the tokenizer has %zu tokens, the model %zu rows",
                           t->path, n, rows);
    if (n > rows) {
        ash_warn("engine", "%s: the last %zu of %zu tokens have no rows in the model and are not used",
                 t->path, n - rows, n);
        n = rows;
    }
    m->n_usable = (int64_t)n;
    for (size_t id = 0; id < n; id++) {
        ash_str s;
        if (ash_tokenizer_piece(m->tokenizer, (int32_t)id, &s) && s.n > m->max_piece)
            m->max_piece = s.n;
    }
    m->bos_text = token_text(m, "bos_token", ash_tokenizer_bos(m->tokenizer));
    m->eos_text = token_text(m, "eos_token", ash_tokenizer_eos(m->tokenizer));
    return m->bos_text && m->eos_text ? 0 : ash_err_nomem(err, "special tokens");
}

static int load_template(ash_model *m, const ash_model_text *t, ash_err *err)
{
    ash_err own = ASH_ERR_INIT;
    ash_str text = {0};
    int rc;
    if (t->template_text) {
        rc = ash_chat_template_open(t->template_text, strlen(t->template_text), &m->template, err);
        if (rc)
            return ash_err_prefix(err, "chat template of the catalogue");
        m->info.template_from = "catalogue";
    } else if (m->tokenizer && ash_tokenizer_chat_template(m->tokenizer, &text) && text.n) {
        rc = ash_chat_template_open(text.p, text.n, &m->template, &own);
        if (rc == ASH_ENOMEM)
            return ash_err_nomem(err, "chat template");
        if (rc) { /* the model still completes text; a chat request says that there is no template */
            ash_warn("engine", "%s: its chat template cannot be used: %s", t->path, own.msg);
            return 0;
        }
        m->info.template_from = ash_tokenizer_template_from(m->tokenizer);
    }
    if (m->template)
        m->info.chat_template = ash_template_source(m->template);
    return 0;
}

static void *text_main(void *model)
{
    ash_model *m = model;
    ash_model_text *t = &m->text;
    t->rc = load_tokenizer(m, t, &t->err);
    if (!t->rc)
        t->rc = load_template(m, t, &t->err);
    return NULL;
}

void ash_model_text_start(ash_model *m, const ash_engine_opts *opts)
{
    ash_model_text *t = &m->text;
    if (t->begun)
        return;
    *t = (ash_model_text){.bare = opts->bare, .begun = true, .err = ASH_ERR_INIT};
    t->path = ash_arena_strdup(&m->arena, opts->path);
    t->template_text = opts->template_text ? ash_arena_strdup(&m->arena, opts->template_text) : NULL;
    if (!t->path || (opts->template_text && !t->template_text)) {
        t->rc = ash_err_nomem(&t->err, "tokenizer and template");
        return;
    }
    t->started = !pthread_create(&t->thread, NULL, text_main, m);
    if (!t->started)
        text_main(m);
}

void ash_model_text_end(ash_model *m)
{
    if (m->text.started)
        pthread_join(m->text.thread, NULL);
    m->text.started = false;
}

int ash_model_text_wait(ash_model *m, ash_err *err)
{
    const ash_model_text *t = &m->text;
    ash_model_text_end(m);
    if (t->rc && err)
        *err = t->err;
    return t->rc;
}
