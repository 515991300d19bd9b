/* Owns the manager without models: a fixed list of states, and a load that takes half a second. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/nearest.h"
#include "fake_parts.h"

enum { N_MODELS = 5, LOAD_MS = 500 };

static const char *const ids[N_MODELS] = {"tiny", "other", "cold", "org/split", "broken"};

struct ash_manager {
    _Atomic int64_t load_began[N_MODELS]; /* 0: not; -1: loaded for ever */
    _Atomic int64_t kept[N_MODELS];       /* what ash_manager_keep was told last; shown as "kept" */
};

ash_manager *fake_manager_open(void)
{
    ash_manager *m = calloc(1, sizeof *m);
    if (m) m->load_began[0] = m->load_began[1] = -1;
    return m;
}

static int find(const char *id)
{
    for (int i = 0; i < N_MODELS; i++)
        if (!strcmp(ids[i], id)) return i;
    return -1;
}

const char *ash_model_state_name(ash_model_state s)
{
    static const char *const names[] = {"unloaded", "downloading", "downloaded", "loading",
                                        "loaded",   "sleeping",    "failed"};
    return names[s];
}

bool ash_manager_knows(const ash_manager *m, const char *id, const char **nearest)
{
    *nearest = ash_nearest(id, ids, N_MODELS);
    return find(id) >= 0;
}

ash_model_state ash_manager_state(const ash_manager *m, const char *id)
{
    int i = find(id);
    int64_t began = m->load_began[i];
    if (i == 4) return ASH_MODEL_FAILED;
    if (!began) return ASH_MODEL_UNLOADED;
    return began > 0 && ash_clock_ms() - began < LOAD_MS ? ASH_MODEL_LOADING : ASH_MODEL_LOADED;
}

int ash_manager_load(ash_manager *m, const char *id, ash_err *err)
{
    int i = find(id);
    if (i == 4) return ash_err_set(err, ASH_EFORMAT, "broken: not a GGUF file");
    if (!m->load_began[i]) m->load_began[i] = ash_clock_ms();
    return 0;
}

void ash_manager_want(ash_manager *m, const char *id)
{
    ash_err err = ASH_ERR_INIT;
    if (ash_manager_load(m, id, &err)) return;
}

int ash_manager_unload(ash_manager *m, const char *id, ash_err *err)
{
    m->load_began[find(id)] = 0;
    return 0;
}

int ash_manager_cancel(ash_manager *m, const char *id, ash_err *err)
{
    return ash_manager_unload(m, id, err);
}

double fake_eta;

double ash_manager_eta(const ash_manager *m, const char *id)
{
    return fake_eta;
}

int ash_manager_keep(ash_manager *m, const char *id, int64_t keep_alive_ms, ash_err *err)
{
    m->kept[find(id)] = keep_alive_ms;
    return 0;
}

int ash_manager_pause(ash_manager *m, const char *id, ash_err *err)
{
    return ash_err_set(err, ASH_EINVAL, "'%s' is not being fetched", id);
}

/* "broken" has a warning; all others are here. */
int ash_manager_download(ash_manager *m, const char *id, bool confirm, ash_err *err)
{
    return find(id) == 4 && !confirm ? ash_err_set(err, ASH_EAUTH, "It is large.") : 0;
}

/* What is loaded is in use, and only "cold" was ever fetched. */
int ash_manager_remove(ash_manager *m, const char *id, uint64_t *bytes, ash_err *err)
{
    int i = find(id);
    *bytes = 1000;
    if (m->load_began[i]) return ash_err_set(err, ASH_EAGAIN, "'%s' is in memory", id);
    return i == 2   ? 0
           : i == 3 ? ash_err_set(err, ASH_EINVAL, "the files of '%s' are yours to remove", id)
                    : ash_err_set(err, ASH_ENOENT, "there is nothing of '%s'", id);
}

json_t *ash_manager_progress(const ash_manager *m, const char *id)
{
    ash_model_state s = ash_manager_state(m, id);
    return json_pack("{s:s, s:s, s:s?, s:f, s:b, s:i, s:I}", "model", id, "state",
                     ash_model_state_name(s), "stage", s == ASH_MODEL_LOADING ? "pack" : NULL,
                     "progress", s == ASH_MODEL_LOADED ? 1.0 : 0.0, "required", find(id) == 0,
                     "n_ctx", 2048, "kept", (json_int_t)m->kept[find(id)]);
}

json_t *ash_manager_list(const ash_manager *m)
{
    json_t *a = json_array();
    for (int i = 0; i < N_MODELS; i++) json_array_append_new(a, ash_manager_progress(m, ids[i]));
    return a;
}

uint64_t ash_manager_version(const ash_manager *m)
{
    uint64_t v = 0;
    for (int i = 0; i < N_MODELS; i++) v = v * 7 + (uint64_t)ash_manager_state(m, ids[i]);
    return v;
}

bool ash_manager_ready(const ash_manager *m)
{
    return ash_manager_state(m, "tiny") == ASH_MODEL_LOADED;
}

json_t *ash_manager_report(const ash_manager *m)
{
    return json_pack("{s:[]}", "steps");
}

void ash_manager_each(ash_manager *m, void (*fn)(void *user, const char *id, ash_engine *e),
                      void *user)
{
    if (m->load_began[0]) fn(user, "tiny", (ash_engine *)(void *)m);
}

/* An engine is never touched: these are what the server asks of one. */
const ash_model_info *ash_engine_info(const ash_engine *e)
{
    static const ash_model_info info = {.weight_bytes = 1000, .kv_bytes = 200, .scratch_bytes = 30};
    return &info;
}

uint64_t ash_engine_untouched(const ash_engine *e)
{
    return 150;
}

void ash_engine_get_stats(const ash_engine *e, ash_engine_stats *out)
{
    *out = (ash_engine_stats){.running = 1, .queued = 2, .kv_blocks = 64};
}
