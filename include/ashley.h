/* libashley: language models in a C program.
 *
 *     ashley_options o;
 *     ashley_error err;
 *     ashley_model *m;
 *     ashley_options_init(&o);
 *     if (ashley_open("SmolLM2-135M-Instruct.Q4_1.gguf", &o, &m, &err)) { puts(err.message); exit(1); }
 *     int32_t *ids; size_t n;
 *     ashley_chat(m, "[{\"role\":\"user\",\"content\":\"Hello\"}]", 1, &ids, &n, &err);
 *     ashley_request r;
 *     ashley_request_init(&r);
 *     r.ids = ids; r.n_ids = n; r.on_text = print;
 *     ashley_generate(m, &r, NULL, &err);
 *     ashley_free(ids);
 *     ashley_close(m);
 *
 * Link with libashley.a and the libraries that meson.build lists. Functions that can fail return 0 or a
 * negative code and fill `err` (which may be NULL). Strings are UTF-8. Any thread may use a model;
 * generations that run at once are computed together, and a text does not depend on its company. */
#ifndef ASHLEY_H
#define ASHLEY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ASHLEY_API __attribute__((visibility("default")))

/* "0.1.0". Static. */
ASHLEY_API const char *ashley_version(void);

/* ---- errors --------------------------------------------------------------------------------- */

enum {
    ASHLEY_OK = 0,
    ASHLEY_EINVAL = -1,       /* an argument is wrong */
    ASHLEY_ENOMEM = -2,       /* no memory */
    ASHLEY_EIO = -3,          /* a file cannot be read */
    ASHLEY_ENOENT = -4,       /* no such file; nothing of that kind in the checkpoint */
    ASHLEY_EFORMAT = -5,      /* malformed or cut input */
    ASHLEY_EUNSUPPORTED = -6, /* well formed, but not something this build does */
    ASHLEY_ELIMIT = -7,       /* too large, or over the context */
    ASHLEY_EAGAIN = -8,       /* too many requests wait already */
    ASHLEY_ECANCELED = -9,    /* a callback asked for the end, or the model was closed */
    ASHLEY_ENOSPC = -14,      /* does not fit into the memory set aside */
};

typedef struct ashley_error {
    int code;
    char message[480]; /* what, where, what was expected; NUL-terminated */
} ashley_error;

/* ---- models --------------------------------------------------------------------------------- */

typedef struct ashley_model ashley_model;

typedef struct ashley_options {
    uint32_t context;   /* tokens a text may have; 0: the model's own, at most 8192 */
    uint32_t parallel;  /* texts computed at once; 0: 32 */
    uint64_t kv_bytes;  /* memory for keys and values; 0: four contexts */
    int kv_8bit;        /* non-zero: keys and values take 8 bits instead of 16; a latent (DeepSeek-V2, V3)
                           stays as it is */
    const char *state_dir; /* a folder where packed weights are kept for the next start, in at most a quarter
                              of what is free on the disk beyond 4 GiB; or NULL */
    int threads;        /* 0: as many as this process may use */
    int weights_only;   /* non-zero: a checkpoint without tokenizer will do */
    const char *template_text; /* Jinja text, or the name of a built-in template ("chatml"), in place of
                                  the checkpoint's own; or NULL */
    /* Called while loading, with 0 <= done <= total of the stage ("verify", "map", "pack", "warm");
     * non-zero ends the load with ASHLEY_ECANCELED. Or NULL. */
    int (*on_progress)(void *user, const char *stage, uint64_t done, uint64_t total);
    void *user;
} ashley_options;

ASHLEY_API void ashley_options_init(ashley_options *o);
/* Loads the checkpoint at path (of a split GGUF the first part); blocks. o may be NULL. On success *out
 * is the caller's, on failure NULL. */
ASHLEY_API int ashley_open(const char *path, const ashley_options *o, ashley_model **out,
                           ashley_error *err);
/* Ends what runs, frees. No other call on m may be running or follow. NULL is fine. */
ASHLEY_API void ashley_close(ashley_model *m);

/* Strings live as long as the model. */
typedef struct ashley_info {
    const char *architecture, *name, *quantization;
    const char *chat_template; /* "" if there is none */
    uint64_t n_params, file_bytes, weight_bytes, kv_bytes, scratch_bytes;
    uint32_t n_ctx, n_ctx_train, n_vocab, n_layers, n_embd;
} ashley_info;

ASHLEY_API void ashley_get_info(const ashley_model *m, ashley_info *out);

/* ---- text and tokens ------------------------------------------------------------------------ */

enum {
    ASHLEY_SPECIAL = 1, /* special tokens written in the text become their ids */
    ASHLEY_BOS_EOS = 2, /* put BOS before and EOS after as the checkpoint says */
};

/* *ids: n numbers, to be freed by ashley_free; NULL on failure. */
ASHLEY_API int ashley_tokenize(const ashley_model *m, const char *text, size_t n_text, unsigned flags,
                               int32_t **ids, size_t *n, ashley_error *err);
/* *text: NUL-terminated, special tokens written out, to be freed by ashley_free. */
ASHLEY_API int ashley_detokenize(const ashley_model *m, const int32_t *ids, size_t n_ids, char **text,
                                 size_t *n, ashley_error *err);
/* The text of a chat by the model's template. messages: a JSON array of {"role":…,"content":…}.
 * add_prompt non-zero: end with what begins the answer. */
ASHLEY_API int ashley_render(const ashley_model *m, const char *messages, int add_prompt, char **text,
                             size_t *n, ashley_error *err);
/* The same as ids. Special tokens that the messages hold as text stay text. */
ASHLEY_API int ashley_chat(const ashley_model *m, const char *messages, int add_prompt, int32_t **ids,
                           size_t *n, ashley_error *err);
ASHLEY_API void ashley_free(void *p); /* NULL is fine */

/* ---- generation ----------------------------------------------------------------------------- */

typedef struct ashley_request {
    const int32_t *ids; /* the prompt, at least one */
    size_t n_ids;
    int64_t max_tokens; /* < 0: to the end of the context */
    double temperature; /* 0: always the likeliest token */
    double top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, seed; /* seed -1: random */
    const char *const *stops; /* n_stops strings that end the text; not part of it */
    size_t n_stops;
    int ignore_end;      /* non-zero: go on after the end of text */
    int with_special;    /* non-zero: special tokens are written to the text */
    /* Called with whole UTF-8 characters as they come (not NUL-terminated, n may be 0), and the id just
     * drawn, -1 for the last call of a text. Non-zero ends the generation. It runs on the model's own
     * thread: be quick, and do not call ashley functions on this model. Or NULL. */
    int (*on_text)(void *user, const char *text, size_t n, int32_t id);
    void *user;
} ashley_request;

typedef enum ashley_finish {
    ASHLEY_FINISH_STOP = 1, /* end of text, or a stop string */
    ASHLEY_FINISH_LENGTH,   /* max_tokens, or the context is full */
    ASHLEY_FINISH_CANCELED, /* on_text asked for it, or the model was closed */
} ashley_finish;

typedef struct ashley_result {
    ashley_finish finish;
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
    double queue_ms, prefill_ms, decode_ms;
} ashley_result;

ASHLEY_API void ashley_request_init(ashley_request *r);
/* Generates a text; blocks until its end. out may be NULL. A cancel is no failure: see out->finish. */
ASHLEY_API int ashley_generate(ashley_model *m, const ashley_request *r, ashley_result *out,
                               ashley_error *err);

/* Logits of a prompt, for checking: float32 rows of n_vocab, of every position (all non-zero) or of
 * the last one only, into memory of the caller's. Blocks. */
ASHLEY_API int ashley_eval(ashley_model *m, const int32_t *ids, size_t n, int all, float *logits,
                           ashley_error *err);

#ifdef __cplusplus
}
#endif

#endif
