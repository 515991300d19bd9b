/* Owns the table of all keys and how the text of each becomes a typed field. Refuses values outside
 * their type. The table is constant; ash_key_set is for the thread that loads the configuration. */
#include "config/keys.h"

#include <stddef.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"
#include "config/value.h"

#define FIELD(f) .offset = offsetof(ash_config, f)

static const ash_key_info keys[] = {
    {"PRELOAD_MODELS", "preload", ASH_KEY_PRELOAD, NULL, NULL,
     "models to have in memory before the first request: ids with commas, or a JSON array of ids "
     "or of "
     "{\"model\",\"required\",\"ctx\",\"keep_alive\",\"pin\",\"confirm\",\"kv\",\"draft\"}",
     .built = true, FIELD(preload)},
    {"DEFAULT_MODEL", "default-model", ASH_KEY_STRING, "openai", NULL,
     "model for a request that names none or a persona: a catalogue id, or openai for the upstream",
     .built = true, FIELD(default_model)},
    {"FALLBACK_MODEL", "fallback-model", ASH_KEY_STRING, "gpt-4o-mini", NULL,
     "the upstream's model behind openai, and where a request goes when its own model cannot "
     "answer",
     .built = true, FIELD(fallback_model)},
    {"OPENAI_API_KEY", NULL, ASH_KEY_STRING, NULL, NULL, "key for the upstream", .secret = true,
     .built = true, FIELD(openai_api_key)},
    {"OPENAI_BASE_URL", "openai-base-url", ASH_KEY_URL, "https://api.openai.com/v1", NULL,
     "the upstream: any OpenAI-compatible server", .built = true, FIELD(openai_base_url)},
    {"ASHLEY_MODELS_FILE", "models-file", ASH_KEY_STRING, "pytorch_models.json", NULL,
     "the catalogue", .built = true, FIELD(models_file)},
    {"ASHLEY_PERSONAS_DIR", "personas-dir", ASH_KEY_STRING, "personas/", NULL, "folder of personas",
     .built = true, FIELD(personas_dir)},
    {"ASHLEY_HOST", "host", ASH_KEY_STRING, "127.0.0.1", NULL, "address to listen on",
     .built = true, FIELD(host)},
    {"ASHLEY_PORT", "port", ASH_KEY_PORT, "8080", NULL, "port to listen on; 0 takes any free one",
     .built = true, FIELD(port)},
    {"ASHLEY_API_KEYS", NULL, ASH_KEY_LIST, NULL, NULL,
     "keys that clients may use, with commas; empty: none is needed, on a loopback address only",
     .secret = true, .built = true, FIELD(api_keys)},
    {"ASHLEY_ALLOW_OPEN", "allow-open", ASH_KEY_BOOL, "0", NULL,
     "allow an address beyond loopback without keys", .built = true, FIELD(allow_open)},
    {"ASHLEY_MEMORY_BUDGET", "memory-budget", ASH_KEY_BYTES, "auto", NULL,
     "memory for all models together: bytes with suffix, or auto (what is free, or what the control group "
     "leaves, less a sixteenth of the machine's or of the group's)",
     .built = true, FIELD(memory_budget)},
    {"ASHLEY_DISK_BUDGET", "disk-budget", ASH_KEY_BYTES, "auto", NULL,
     "disk for packed models and prefixes: bytes with suffix, 0 for none, or auto (a quarter of what is free "
     "beyond 4 GiB)",
     .built = true, FIELD(disk_budget)},
    {"ASHLEY_KEEP_ALIVE", "keep-alive", ASH_KEY_TIME_FOR_EVER, "5m", NULL,
     "how long an on-demand model stays after its last use; -1 for ever", .built = true,
     FIELD(keep_alive_ms)},
    {"ASHLEY_QUEUE_TIMEOUT", "queue-timeout", ASH_KEY_TIME, "30s", NULL,
     "most time of a request in the queue; 0: no limit", .built = true, FIELD(queue_ms)},
    {"ASHLEY_LOAD_TIMEOUT", "load-timeout", ASH_KEY_TIME, "10m", NULL,
     "most time of a request waiting for a load; 0: no limit", .built = true, FIELD(load_ms)},
    {"ASHLEY_FIRST_TOKEN_TIMEOUT", "first-token-timeout", ASH_KEY_TIME, "30s", NULL,
     "most time to the first token once running; 0: no limit. While nobody sets it, each advance of the "
     "prompt starts it anew",
     .built = true, FIELD(first_token_ms)},
    {"ASHLEY_IDLE_TIMEOUT", "idle-timeout", ASH_KEY_TIME, "30s", NULL,
     "most time between two tokens; 0: no limit", .built = true, FIELD(idle_ms)},
    {"ASHLEY_FALLBACK", "fallback", ASH_KEY_WORD, NULL, "never on-error on-not-ready always",
     "when a request may leave the machine for the upstream (default: on-error with "
     "DEFAULT_MODEL=openai, "
     "else never)",
     .built = true, FIELD(fallback)},
    {"ASHLEY_READY", "ready", ASH_KEY_WORD, "required", "all required any",
     "which preloaded models /readyz waits for", .built = true, FIELD(ready)},
    {"HF_TOKEN", NULL, ASH_KEY_STRING, NULL, NULL, "Hugging Face token", .secret = true,
     .built = true, FIELD(hf_token)},
    {"HF_TOKEN_PATH", NULL, ASH_KEY_STRING, NULL, NULL, "file that holds the token", .built = true,
     FIELD(hf_token_path)},
    {"HF_HOME", NULL, ASH_KEY_STRING, NULL, NULL, "folder of the Hugging Face client",
     .built = true, FIELD(hf_home)},
    {"HF_HUB_CACHE", NULL, ASH_KEY_STRING, NULL, NULL, "its cache", .built = true,
     FIELD(hf_hub_cache)},
    {"XDG_CACHE_HOME", NULL, ASH_KEY_STRING, NULL, NULL, "folder of caches", .built = true,
     FIELD(xdg_cache_home)},
    {"HF_ENDPOINT", NULL, ASH_KEY_URL, NULL, NULL, "another hub", .built = true,
     FIELD(hf_endpoint)},
    {"HF_HUB_OFFLINE", NULL, ASH_KEY_HF_BOOL, NULL, NULL, "never ask the hub", .built = true,
     FIELD(hf_hub_offline)},
    {"HF_HUB_DOWNLOAD_TIMEOUT", NULL, ASH_KEY_TIME, "20s", NULL,
     "a connection to the hub without bytes for so long is given up and made again", .built = true,
     FIELD(hf_timeout_ms)},
    {"HTTPS_PROXY", NULL, ASH_KEY_STRING, NULL, NULL, "proxy for https", .built = true,
     FIELD(https_proxy)},
    {"NO_PROXY", NULL, ASH_KEY_STRING, NULL, NULL, "hosts without proxy, with commas",
     .built = true, FIELD(no_proxy)},
    {"ASHLEY_STATE_DIR", "state-dir", ASH_KEY_STRING, NULL, NULL,
     "what makes the next start faster (default: $XDG_STATE_HOME/ashley or ~/.local/state/ashley)",
     .built = true, FIELD(state_dir)},
    {"ASHLEY_DRAIN_TIMEOUT", "drain-timeout", ASH_KEY_TIME, "30s", NULL,
     "how long SIGTERM waits for running answers", .built = true, FIELD(drain_ms)},
    {"ASHLEY_ORIGINS", "origins", ASH_KEY_LIST, "loopback,tauri://,app://,vscode-webview://", NULL,
     "web origins that may call the API, with commas; scheme:// takes all of a scheme, loopback "
     "any port "
     "of this machine",
     .built = true, FIELD(origins)},
    {"ASHLEY_NOTIFY", "notify", ASH_KEY_WORD, "listening", "listening ready",
     "when systemd is told that the service is up", .built = true, FIELD(notify_ready)},
    {"ASHLEY_PREDICTION", "prediction", ASH_KEY_BOOL, "1", NULL,
     "guess how a text goes on where that is measured to be faster; texts are the same without",
     .built = true, FIELD(prediction)},
    {"ASHLEY_KV", "kv", ASH_KEY_WORD, "f16", "f16 q8",
     "how keys and values are kept: half floats, or 8 bits in half the memory; \"kv\" of a preload or "
     "catalogue entry comes first",
     .built = true, FIELD(kv_q8)},
    {"ASHLEY_CPU", "cpu", ASH_KEY_WORD, NULL, "scalar avx2 avx512 amx neon dotprod i8mm",
     "forces a lower kernel set (default: the best the machine has)", .built = true, FIELD(cpu)},
};

const ash_key_info *ash_config_keys(size_t *n)
{
    *n = sizeof keys / sizeof *keys;
    return keys;
}

/* Registers the password of scheme://user:password@host, so that no message shows it. */
static void hide_password(const char *url)
{
    const char *p = strstr(url, "://");
    p = p ? p + 3 : url;
    size_t host = strcspn(p, "/?#");
    const char *at = memrchr(p, '@', host);
    const char *colon = at ? memchr(p, ':', (size_t)(at - p)) : NULL;
    char secret[256];
    size_t n = colon ? (size_t)(at - colon) - 1 : 0;
    if (!n || n >= sizeof secret) return;
    memcpy(secret, colon + 1, n);
    secret[n] = 0;
    ash_log_hide(secret);
}

static int check_url(const char *text, ash_err *err)
{
    const char *host = "";
    if (!strncmp(text, "http://", 7) || !strncmp(text, "https://", 8))
        host = strstr(text, "://") + 3;
    bool plain = true;
    for (const char *p = text; *p; p++) plain &= (unsigned char)*p > 0x20 && *p != 0x7F;
    if (!*host || *host == '/' || !plain)
        return ash_err_set(err, ASH_EINVAL, "expected a URL that begins with http:// or https://");
    return 0;
}

/* The index of a word in a list with spaces, or -1. */
static int find_word(const char *words, const char *text)
{
    size_t n = strlen(text);
    int i = 0;
    for (const char *p = words; *p; i++) {
        size_t len = strcspn(p, " ");
        if (len == n && !memcmp(p, text, n)) return i;
        p += len;
        p += strspn(p, " ");
    }
    return -1;
}

static int set_word(ash_config *c, const ash_key_info *k, const char *text, ash_err *err)
{
    if (k->offset == offsetof(ash_config, cpu)) return ash_cpu_parse(text, &c->cpu, err);
    int i = find_word(k->words, text);
    if (i < 0) return ash_err_set(err, ASH_EINVAL, "expected one of: %s", k->words);
    if (k->offset == offsetof(ash_config, fallback))
        c->fallback = (ash_fallback)(ASH_FALLBACK_NEVER + i);
    else if (k->offset == offsetof(ash_config, kv_q8))
        c->kv_q8 = i == 1;
    else if (k->offset == offsetof(ash_config, ready))
        c->ready = (ash_ready)i;
    else
        c->notify_ready = i == 1;
    return 0;
}

static int set_port(uint16_t *out, const char *text, ash_err *err)
{
    unsigned v = 0;
    size_t n = strlen(text);
    for (size_t i = 0; i < n && n <= 5; i++) {
        if (text[i] < '0' || text[i] > '9') n = 6;
        v = v * 10 + (unsigned)(text[i] - '0');
    }
    if (!n || n > 5 || v > 65535)
        return ash_err_set(err, ASH_EINVAL, "expected a port from 0 to 65535");
    *out = (uint16_t)v;
    return 0;
}

static int set_string(const char **out, const ash_key_info *k, const char *text, ash_arena *arena,
                      ash_err *err)
{
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F)
            return ash_err_set(err, ASH_EINVAL, "expected text without control characters");
    if (k->type == ASH_KEY_URL) {
        int rc = check_url(text, err);
        if (rc) return rc;
    }
    *out = ash_arena_strdup(arena, text);
    return *out ? 0 : ash_err_nomem(err, k->key);
}

static int set_list(ash_strings *out, const ash_key_info *k, const char *text, ash_arena *arena,
                    ash_err *err)
{
    int rc = ash_value_list(text, arena, &out->v, &out->n, err);
    for (size_t i = 0; !rc && k->secret && i < out->n; i++) ash_log_hide(out->v[i]);
    return rc;
}

static bool hf_true(const char *text)
{
    static const char *const words[] = {"1", "ON", "YES", "TRUE"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(text, words[i])) return true;
    return false;
}

int ash_key_set(ash_config *c, const ash_key_info *k, const char *text, ash_arena *arena,
                ash_err *err)
{
    void *field = (char *)c + k->offset;
    if (k->secret)
        ash_log_hide(text);
    else if (strchr(text, '@'))
        hide_password(text);
    switch (k->type) {
    case ASH_KEY_STRING:
    case ASH_KEY_URL:
        return set_string(field, k, text, arena, err);
    case ASH_KEY_LIST:
        return set_list(field, k, text, arena, err);
    case ASH_KEY_BOOL:
        return ash_value_bool(text, field, err);
    case ASH_KEY_HF_BOOL:
        *(bool *)field = hf_true(text);
        return 0;
    case ASH_KEY_BYTES:
        if (!strcasecmp(text, "auto")) {
            *(uint64_t *)field = ASH_BYTES_AUTO;
            return 0;
        }
        return ash_value_bytes(text, field, err);
    case ASH_KEY_TIME:
        return ash_value_time(text, false, field, err);
    case ASH_KEY_TIME_FOR_EVER:
        return ash_value_time(text, true, field, err);
    case ASH_KEY_WORD:
        return set_word(c, k, text, err);
    case ASH_KEY_PORT:
        return set_port(field, text, err);
    case ASH_KEY_PRELOAD:
        return ash_preload_parse(text, arena, field, err);
    }
    return ash_err_set(err, ASH_EINVAL, "no such type of key");
}
