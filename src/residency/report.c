/* Owns what the manager tells about itself: lists, readiness, the boot report. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "residency/memory.h"
#include "residency/state.h"

static void lock(const ash_manager *m)
{
    pthread_mutex_lock((pthread_mutex_t *)&m->mutex);
}

static void unlock(const ash_manager *m)
{
    pthread_mutex_unlock((pthread_mutex_t *)&m->mutex);
}

json_t *ash_manager_progress(const ash_manager *m, const char *id)
{
    json_t *o = NULL;
    lock(m);
    for (size_t i = 0; i < m->n && !o; i++)
        if (!strcmp(m->entries[i].spec.id, id)) o = ash_entry_json(m, &m->entries[i]);
    unlock(m);
    return o;
}

double ash_manager_eta(const ash_manager *m, const char *id)
{
    double left = -1.0;
    const char *basis;
    lock(m);
    for (size_t i = 0; i < m->n; i++)
        if (!strcmp(m->entries[i].spec.id, id)) left = ash_entry_eta(m, &m->entries[i], &basis);
    unlock(m);
    return left;
}

json_t *ash_manager_list(const ash_manager *m)
{
    json_t *a = json_array();
    lock(m);
    for (size_t i = 0; a && i < m->n; i++)
        json_array_append_new(a, ash_entry_json(m, &m->entries[i]));
    unlock(m);
    return a;
}

uint64_t ash_manager_version(const ash_manager *m)
{
    return atomic_load(&m->version);
}

void ash_manager_listen(ash_manager *m, void (*fn)(void *user, const char *id), void *user)
{
    lock(m);
    m->listener = fn;
    m->listener_user = user;
    unlock(m);
}

/* "all": every preload entry is loaded; "required": every required one is; "any": at least one is.
 * With nothing to preload the server is ready at once. */
static bool ready_locked(const ash_manager *m)
{
    size_t entries = 0, loaded = 0, required = 0, required_loaded = 0;
    for (size_t i = 0; i < m->n; i++) {
        const ash_entry *e = &m->entries[i];
        if (!e->spec.preload) continue;
        bool up = e->state == ASH_MODEL_LOADED || e->boot_state == 1;
        entries++;
        loaded += up;
        required += e->spec.required;
        required_loaded += e->spec.required && up;
    }
    switch (m->ready_policy) {
    case ASH_READY_ALL:
        return loaded == entries;
    case ASH_READY_ANY:
        return loaded > 0 || entries == 0;
    default:
        return required_loaded == required;
    }
}

bool ash_manager_ready(const ash_manager *m)
{
    lock(m);
    bool ready = ready_locked(m);
    unlock(m);
    return ready;
}

void ash_manager_note_step(ash_manager *m, const char *step, double ms)
{
    lock(m);
    if (m->n_steps < ASH_MAX_BOOT_STEPS) {
        ash_boot_step *s = &m->steps[m->n_steps++];
        snprintf(s->name, sizeof s->name, "%s", step);
        s->ms = ms;
    }
    unlock(m);
}

static json_t *stage_times(const ash_entry *e)
{
    json_t *o = json_object();
    for (int i = 1; i < ASH_N_STAGES; i++)
        if (e->stage_ms[i] > 0.0)
            json_object_set_new(o, ash_stage_names[i], json_real(e->stage_ms[i]));
    return o;
}

/* The budget of bytes, what of it models have, and whether pressure lowered it. */
static json_t *memory_json(const ash_manager *m)
{
    uint64_t budget = ash_admission_budget(m), sum = 0;
    for (size_t i = 0; i < m->n; i++) sum += m->entries[i].charge;
    return json_pack("{s:o, s:I, s:b, s:o}", "budget",
                     budget > INT64_MAX ? json_null() : json_integer((json_int_t)budget), "charged",
                     (json_int_t)sum, "lowered", m->budget.ceiling != 0, "configured",
                     m->budget.limit ? json_integer((json_int_t)m->budget.limit) : json_null());
}

json_t *ash_manager_report(const ash_manager *m)
{
    json_t *steps = json_array(), *models = json_array();
    lock(m);
    for (size_t i = 0; i < m->n_steps; i++)
        json_array_append_new(
            steps, json_pack("{s:s, s:f}", "step", m->steps[i].name, "ms", m->steps[i].ms));
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        if (!e->spec.preload) continue;
        json_t *o = ash_entry_json(m, e);
        if (o) json_object_set_new(o, "stage_ms", stage_times(e));
        json_array_append_new(models, o);
    }
    bool done = m->preload_ms > 0.0 || json_array_size(models) == 0;
    json_t *report =
        json_pack("{s:b, s:b, s:f, s:o?, s:o, s:o, s:I, s:o}", "ready", ready_locked(m), "done", done,
                  "started_at", m->opened_at, "preload_ms",
                  m->preload_ms > 0.0 ? json_real(m->preload_ms) : json_null(), "steps", steps,
                  "models", models, "resident_bytes", (json_int_t)ash_memory_resident(), "memory",
                  memory_json(m));
    unlock(m);
    return report;
}

void ash_manager_each(ash_manager *m, void (*fn)(void *user, const char *id, ash_engine *e),
                      void *user)
{
    for (size_t i = 0; i < m->n; i++) {
        ash_entry *e = &m->entries[i];
        lock(m);
        ash_engine *engine = e->state == ASH_MODEL_LOADED ? e->engine : NULL;
        e->leases += engine != NULL;
        unlock(m);
        if (!engine) continue;
        fn(user, e->spec.id, engine);
        lock(m);
        e->leases--; /* looking at a model is not using it: its idle time runs on */
        if (!e->leases) pthread_cond_signal(&m->keep_cond);
        if (!e->leases) ash_loader_wake(m);
        unlock(m);
    }
}
