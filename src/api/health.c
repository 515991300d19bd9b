/* Owns /livez, /health, /readyz and /metrics: what supervisors ask, never behind a key. */
#include <string.h>

#include "api/call.h"
#include "base/clock.h"

static const int64_t STUCK_NS = 60LL * 1000000000; /* design, decision 13 */

typedef struct stuck_probe {
    int64_t now_ns;
    const char *id;
    char buf[ASH_MAX_MODEL_ID + 1];
} stuck_probe;

static void probe(void *user, const char *id, ash_engine *e)
{
    stuck_probe *p = user;
    ash_engine_stats s = {0};
    ash_engine_get_stats(e, &s);
    if (s.queued + s.running && s.last_step_ns && p->now_ns - s.last_step_ns > STUCK_NS) {
        snprintf(p->buf, sizeof p->buf, "%s", id);
        p->id = p->buf;
    }
}

void ash_health_live(ash_call *c)
{
    stuck_probe p = {.now_ns = ash_clock_ns()};
    ash_manager_each(c->server->opts.manager, probe, &p);
    if (p.id)
        ash_call_value(c, 503, json_pack("{s:s, s:s}", "status", "stuck", "model", p.id));
    else
        ash_call_value(c, 200, json_pack("{s:s}", "status", "ok"));
}

static bool asks_report(const ash_exchange *x)
{
    const char *v = ash_exchange_query(x, "verbose");
    return v && strcmp(v, "0") != 0 && strcmp(v, "false") != 0;
}

void ash_health_ready(ash_call *c)
{
    ash_manager *m = c->server->opts.manager;
    bool draining = atomic_load(&c->server->draining);
    bool ready = !draining && ash_manager_ready(m);
    json_t *body = json_pack("{s:b, s:b, s:o}", "ready", ready, "draining", draining, "models",
                             ash_manager_list(m));
    if (body && asks_report(c->x)) json_object_set_new(body, "report", ash_manager_report(m));
    if (!ready) ash_exchange_add_header(c->x, "Retry-After", "1");
    ash_call_value(c, ready ? 200 : 503, body);
}

void ash_health_metrics(ash_call *c)
{
    ash_buf out;
    ash_buf_init(&out, 16 << 20);
    if (ash_metrics_write(c->server->metrics, c->server->opts.local, c->server->opts.manager,
                          atomic_load(&c->server->answering), &out))
        ash_call_value(c, 200, NULL);
    else
        ash_exchange_respond(c->x, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
    ash_buf_release(&out);
}
