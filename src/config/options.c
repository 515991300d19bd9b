/* Owns the merge of `.env`, environment and flags into one checked configuration. Refuses wrong
 * values by key, origin and value; a secret's value never shows. For one thread; constant once
 * loaded. */
#include "config/options.h"

#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/nearest.h"
#include "config/env.h"
#include "config/keys.h"

enum { MAX_KEYS = 64, MAX_NOTICES = 64 };
#define PREFIX "ASHLEY_"

typedef struct loaded {
    ash_config config; /* first: what callers hold */
    ash_arena arena;
    const char *origins[MAX_KEYS]; /* by index in the table */
    const char *notices[MAX_NOTICES];
} loaded;

typedef struct loader {
    loaded *c;
    const char *const *vars; /* the environment */
    ash_env env;             /* the file */
    const ash_config_sources *src;
    ash_err *err;
} loader;

/* Other spellings that the Python clients read too: used where the key itself is not set. */
static const struct {
    const char *key, *also;
} aliases[] = {
    {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"},
    {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"},
    {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"},
    {"HTTPS_PROXY", "https_proxy"},
    {"NO_PROXY", "no_proxy"},
};

static int nomem(const loader *l)
{
    return ash_err_nomem(l->err, "configuration");
}

static char *format(ash_arena *a, const char *fmt, ...) ASH_PRINTF(2, 3);
static char *format(ash_arena *a, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return ash_arena_strdup(a, text);
}

static int notice(loader *l, const char *text)
{
    ash_config *c = &l->c->config;
    if (!text) return nomem(l);
    if (c->n_notices == MAX_NOTICES)
        c->notices[MAX_NOTICES - 1] = "... and further notices about keys, not shown";
    else
        c->notices[c->n_notices++] = text;
    return 0;
}

static const char *var(const char *const *vars, const char *key)
{
    size_t n = strlen(key);
    for (; *vars; vars++)
        if (!strncmp(*vars, key, n) && (*vars)[n] == '=') return *vars + n + 1;
    return NULL;
}

/* The value that wins for a key and where it is from; NULL if nobody set it. `from` gets at most
 * n bytes. */
static const char *pick_exactly(const loader *l, const char *key, char *from, size_t n)
{
    for (size_t i = l->src->n_flags; i-- > 0;)
        if (!strcmp(l->src->flags[i].key, key)) {
            snprintf(from, n, "%s", l->src->flags[i].shown);
            return l->src->flags[i].value;
        }
    const char *v = var(l->vars, key);
    if (v) {
        snprintf(from, n, "environment");
        return v;
    }
    const ash_env_var *e = ash_env_find(&l->env, key);
    if (e) snprintf(from, n, "%s:%d", l->c->config.env_file, e->line);
    return e ? e->value : NULL;
}

static const char *pick(const loader *l, const char *key, char *from, size_t n)
{
    const char *v = pick_exactly(l, key, from, n);
    for (size_t i = 0; !v && i < sizeof aliases / sizeof *aliases; i++)
        if (!strcmp(aliases[i].key, key)) v = pick_exactly(l, aliases[i].also, from, n);
    return v && *v ? v : NULL;
}

/* Cuts a long value for a message, at a code point. */
static void shorten(const char *value, char out[84])
{
    size_t n = strlen(value);
    if (n <= 80) {
        memcpy(out, value, n + 1);
        return;
    }
    n = 77;
    while (n && ((unsigned char)value[n] & 0xC0) == 0x80) n--;
    memcpy(out, value, n);
    memcpy(out + n, "...", 4);
}

static int load_key(loader *l, size_t i, const ash_key_info *k)
{
    char from[300] = "default";
    const char *value = pick(l, k->key, from, sizeof from);
    l->c->origins[i] = ash_arena_strdup(&l->c->arena, from);
    if (!value) l->c->origins[i] = "default";
    if (!l->c->origins[i]) return nomem(l);
    const char *text = value ? value : k->initial;
    if (!text) return 0;
    ash_err why = ASH_ERR_INIT;
    int rc = ash_key_set(&l->c->config, k, text, &l->c->arena, &why);
    if (rc) {
        char shown[84];
        shorten(k->secret ? "(secret)" : text, shown);
        ash_err_set(l->err, rc, "%s (%s) is '%s': %s", k->key, from, shown, why.msg);
        if (l->err) ash_log_redact(l->err->msg);
        return rc;
    }
    if (value && !k->built)
        return notice(l, format(&l->c->arena, "%s (%s) is read, but has no effect in this version",
                                k->key, from));
    return 0;
}

static bool known(const char *name, size_t n)
{
    size_t count;
    const ash_key_info *k = ash_config_keys(&count);
    for (size_t i = 0; i < count; i++)
        if (strlen(k[i].key) == n && !memcmp(k[i].key, name, n)) return true;
    return false;
}

/* What all our keys begin with makes none of them near. */
static const char *own_part(const char *key)
{
    return strncmp(key, PREFIX, sizeof PREFIX - 1) ? key : key + sizeof PREFIX - 1;
}

static const char *nearest_key(const char *name)
{
    size_t count;
    const ash_key_info *k = ash_config_keys(&count);
    const char *names[MAX_KEYS];
    for (size_t i = 0; i < count; i++) names[i] = own_part(k[i].key);
    const char *near = ash_nearest(own_part(name), names, count);
    for (size_t i = 0; near && i < count; i++)
        if (names[i] == near) return k[i].key;
    return NULL;
}

/* Reports an ASHLEY_* key that nobody reads, and in the file also a near miss of another key. */
static int check_name(loader *l, const char *name, size_t n, const char *from, bool in_file)
{
    char key[ASH_NEAREST_MAX + 1];
    bool ours = n >= sizeof PREFIX - 1 && !memcmp(name, PREFIX, sizeof PREFIX - 1);
    if (n >= sizeof key || known(name, n) || (!ours && !in_file)) return 0;
    memcpy(key, name, n);
    key[n] = 0;
    const char *near = nearest_key(key);
    if (!ours && (!near || ash_nearest_distance(key, near) > 1)) return 0;
    return notice(l, format(&l->c->arena, "%s (%s) is not a key that Ashley knows%s%s%s", key, from,
                            near ? "; did you mean " : "", near ? near : "", near ? "?" : ""));
}

static int check_names(loader *l)
{
    int rc = 0;
    for (size_t i = 0; !rc && i < l->env.n; i++) {
        char from[300];
        snprintf(from, sizeof from, "%s:%d", l->c->config.env_file, l->env.v[i].line);
        rc = check_name(l, l->env.v[i].key, strlen(l->env.v[i].key), from, true);
    }
    for (const char *const *v = l->vars; !rc && *v; v++)
        rc = check_name(l, *v, strcspn(*v, "="), "environment", false);
    return rc;
}

/* A variable without a place in the table: environment, then file; NULL if unset or empty. */
static const char *plain(const loader *l, const char *key)
{
    char from[300];
    const char *v = pick_exactly(l, key, from, sizeof from);
    return v && *v ? v : NULL;
}

/* HOME; without it, for the process's own environment, what the system says of its user, as the Python client
 * does: a service may have no HOME. NULL if neither tells; `room` holds it. */
static const char *home_folder(const loader *l, char *room, size_t size)
{
    const char *home = plain(l, "HOME");
    struct passwd entry, *user = NULL;
    if (home || l->src->vars) return home;
    bool told = !getpwuid_r(getuid(), &entry, room, size, &user) && user && user->pw_dir && *user->pw_dir;
    return told ? user->pw_dir : NULL;
}

/* *out = dir + rest, with a leading "~/" of dir taken as the home folder; NULL without a home. */
static int path(loader *l, const char *dir, const char *rest, const char **out)
{
    const char *home = "";
    char room[4096];
    *out = NULL;
    if (dir[0] == '~' && (!dir[1] || dir[1] == '/')) {
        home = home_folder(l, room, sizeof room);
        if (!home) return 0;
        dir++;
    }
    ash_buf b;
    ash_buf_init(&b, 4 * ASH_MAX_ENV_VALUE);
    ash_buf_adds(&b, home);
    ash_buf_adds(&b, dir);
    while (b.len > 1 && b.data[b.len - 1] == '/') b.data[--b.len] = 0;
    ash_buf_adds(&b, rest);
    *out = b.failed ? NULL : ash_arena_strdup(&l->c->arena, ash_buf_cstr(&b));
    ash_buf_release(&b);
    return *out ? 0 : nomem(l);
}

static int resolve_folders(loader *l)
{
    ash_config *c = &l->c->config;
    const char *state = plain(l, "XDG_STATE_HOME");
    int rc;
    if (c->state_dir)
        rc = path(l, c->state_dir, "", &c->state_dir);
    else if (state)
        rc = path(l, state, "/ashley", &c->state_dir);
    else
        rc = path(l, "~", "/.local/state/ashley", &c->state_dir);
    if (!rc && c->hf_token_path)
        rc = path(l, c->hf_token_path, "", &c->hub_token_file);
    else if (!rc && c->hf_home)
        rc = path(l, c->hf_home, "/token", &c->hub_token_file);
    else if (!rc && c->xdg_cache_home)
        rc = path(l, c->xdg_cache_home, "/huggingface/token", &c->hub_token_file);
    else if (!rc)
        rc = path(l, "~", "/.cache/huggingface/token", &c->hub_token_file);
    if (rc) return rc;
    if (c->hf_hub_cache) return path(l, c->hf_hub_cache, "", &c->hub_dir);
    if (c->hf_home) return path(l, c->hf_home, "/hub", &c->hub_dir);
    if (c->xdg_cache_home) return path(l, c->xdg_cache_home, "/huggingface/hub", &c->hub_dir);
    return path(l, "~", "/.cache/huggingface/hub", &c->hub_dir);
}

static int read_env_file(loader *l)
{
    const char *file = l->src->env_file;
    if (!file && access(".env", F_OK) != 0) return 0;
    if (!file) file = ".env";
    l->c->config.env_file = ash_arena_strdup(&l->c->arena, file);
    if (!l->c->config.env_file) return nomem(l);
    return ash_env_read(file, l->vars, &l->c->arena, &l->env, l->err);
}

static int load_all(loader *l)
{
    size_t n;
    const ash_key_info *k = ash_config_keys(&n);
    int rc = read_env_file(l);
    if (!rc && n > MAX_KEYS)
        rc = ash_err_set(l->err, ASH_ELIMIT, "more than %d keys in the table", MAX_KEYS);
    /* secrets first, so that no message about another key shows one */
    for (int secret = 1; !rc && secret >= 0; secret--)
        for (size_t i = 0; !rc && i < n; i++)
            if (k[i].secret == (secret == 1)) rc = load_key(l, i, &k[i]);
    if (!rc) rc = check_names(l);
    return rc ? rc : resolve_folders(l);
}

int ash_config_load(const ash_config_sources *src, ash_config **out, ash_err *err)
{
    *out = NULL;
    loaded *c = calloc(1, sizeof *c);
    if (!c) return ash_err_nomem(err, "configuration");
    ash_arena_init(&c->arena, ASH_MAX_CONFIG_MEMORY);
    c->config.cpu = ash_cpu_get()->level;
    c->config.notices = c->notices;
    loader l = {.c = c,
                .vars = src->vars ? src->vars : (const char *const *)environ,
                .src = src,
                .err = err};
    int rc = load_all(&l);
    if (rc)
        ash_config_close(&c->config);
    else
        *out = &c->config;
    return rc;
}

void ash_config_close(ash_config *c)
{
    loaded *l = (loaded *)c;
    if (!l) return;
    ash_arena_release(&l->arena);
    free(l);
}

const char *ash_config_origin(const ash_config *c, const char *key)
{
    size_t n;
    const ash_key_info *k = ash_config_keys(&n);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(k[i].key, key)) return ((const loaded *)c)->origins[i];
    return "default";
}
