/* The whole configuration: every key in one table, read from `.env`, the process's environment and
 * flags (the later wins), checked, typed. Only cli reads it; all else gets plain option structs.
 *
 * An empty value means the default. A wrong value is an error that names the key, where it came from
 * (file:line, environment, flag), the value and what is accepted; a secret's value is not shown.
 * Secrets are registered with ash_log_hide as they are read. */
#ifndef ASHLEY_CONFIG_OPTIONS_H
#define ASHLEY_CONFIG_OPTIONS_H

#include "base/arena.h"
#include "base/cpu.h"
#include "base/limits.h"
#include "base/policy.h"

typedef enum ash_key_type {
    ASH_KEY_STRING,
    ASH_KEY_URL,     /* http:// or https:// */
    ASH_KEY_LIST,    /* comma list */
    ASH_KEY_BOOL,
    ASH_KEY_HF_BOOL, /* as the Python hub client: 1 ON YES TRUE are true, all else false */
    ASH_KEY_BYTES,   /* with suffix, or "auto" */
    ASH_KEY_TIME,    /* with suffix */
    ASH_KEY_TIME_FOR_EVER, /* the same or -1 */
    ASH_KEY_WORD,    /* one of a few words */
    ASH_KEY_PORT,
    ASH_KEY_PRELOAD, /* comma list or JSON array */
} ash_key_type;

/* One key, for reading, for --help, completion, man pages and `doctor`. Static. */
typedef struct ash_key_info {
    const char *key;     /* "ASHLEY_PORT" */
    const char *flag;    /* "port" for --port; NULL where a flag would be wrong (secrets) */
    ash_key_type type;
    const char *initial; /* default, as it would be written; NULL: none */
    const char *words;   /* ASH_KEY_WORD: "never on-error ..." */
    const char *help;    /* one line */
    bool secret;
    bool built;          /* false: read and checked, but without effect in this version */
    size_t offset;       /* of its field in ash_config */
} ash_key_info;

/* All keys, in the order of the documentation. */
const ash_key_info *ash_config_keys(size_t *n);

/* A size that was left to this machine. */
#define ASH_BYTES_AUTO UINT64_MAX

/* One entry of PRELOAD_MODELS. */
typedef struct ash_preload {
    const char *model;
    bool required, pin;    /* default true; a keep_alive unpins unless "pin" says otherwise */
    bool confirm;          /* consent to a download with a warning */
    uint32_t ctx;          /* 0: the model's own */
    const char *kv;        /* "f16" "q8", NULL: the catalogue's or ASHLEY_KV */
    const char *draft;     /* the model that guesses, "": none, NULL: the catalogue's */
    bool has_keep_alive;
    int64_t keep_alive_ms; /* -1: for ever; without has_keep_alive ASHLEY_KEEP_ALIVE */
} ash_preload;

typedef struct ash_preloads {
    const ash_preload *v;
    size_t n;
} ash_preloads;

typedef struct ash_strings {
    const char *const *v; /* NULL when n is 0 */
    size_t n;
} ash_strings;

/* Everything typed; strings live as long as the configuration and are NULL where there is no default
 * and nothing was set. */
typedef struct ash_config {
    ash_preloads preload;
    const char *default_model;  /* a catalogue id or a provider's name */
    const char *fallback_model; /* the upstream's model */
    const char *openai_api_key; /* secret */
    const char *openai_base_url;
    const char *models_file, *personas_dir;
    const char *host;
    uint16_t port; /* 0: any free one */
    ash_strings api_keys; /* secrets */
    bool allow_open;
    uint64_t memory_budget, disk_budget; /* bytes, or ASH_BYTES_AUTO */
    int64_t keep_alive_ms;               /* -1: for ever */
    int64_t queue_ms, load_ms, first_token_ms, idle_ms; /* 0: none */
    ash_fallback fallback; /* UNSET: on-error where the default model is an upstream, else never */
    ash_ready ready;
    const char *state_dir; /* resolved; NULL without a home */
    int64_t drain_ms;
    ash_strings origins;   /* exact origins, "scheme://" for all of a scheme, "loopback" for http and
                              https on localhost, 127.0.0.1 and [::1] with any port */
    bool kv_q8;            /* keys and values in 8 bits where no entry says otherwise */
    bool notify_ready;     /* tell systemd when ready, not when listening */
    bool prediction;
    ash_cpu_level cpu;
    const char *hf_token, *hf_token_path, *hf_home, *hf_hub_cache, *xdg_cache_home, *hf_endpoint;
    bool hf_hub_offline;
    int64_t hf_timeout_ms; /* 0: as if it were not set */
    const char *https_proxy, *no_proxy;
    const char *hub_dir;   /* resolved from the HF keys: where the hub cache is; NULL without a home */
    const char *hub_token_file; /* likewise: where a token is if HF_TOKEN is not set */
    const char *env_file;  /* the file that was read, or NULL */
    const char **notices;       /* lines for the log at start-up: unknown keys with the nearest known */
    size_t n_notices;           /* name, keys without effect yet */
} ash_config;

/* A flag as the command line gave it. */
typedef struct ash_config_flag {
    const char *key;   /* "ASHLEY_PORT" */
    const char *value;
    const char *shown; /* "--port", for messages */
} ash_config_flag;

typedef struct ash_config_sources {
    const char *env_file;        /* must exist; NULL: ./.env if there is one */
    const char *const *vars;     /* NULL-terminated "KEY=value"; NULL: the process's own, and where it has
                                    no HOME the folder that the system knows for its user */
    const ash_config_flag *flags;
    size_t n_flags;
} ash_config_sources;

/* Reads and checks everything. *out is the caller's, NULL on failure. Errors: ASH_EINVAL for a value,
 * ASH_ENOENT for a missing env_file, ASH_EFORMAT for a line of it, ASH_ENOMEM, ... */
int ash_config_load(const ash_config_sources *src, ash_config **out, ash_err *err) ASH_MUST_CHECK;
void ash_config_close(ash_config *c); /* NULL is fine */
/* Where a key's value came from: "default", "environment", ".env:3", "--port". Borrowed. */
const char *ash_config_origin(const ash_config *c, const char *key);

#endif
