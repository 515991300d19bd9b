/* A manager and two providers without models, for the tests of the HTTP server. What they do is told
 * by the request's own body, in a member "fake":
 *   {"wait_ms":N}     WAITING events for so long, then on (or 503 model_loading past the load budget)
 *   {"tokens":N}      words of the answer (3)
 *   {"interval_ms":N} time between them (0)
 *   {"bytes":N}       length of each word
 *   {"progress":true} prompt progress before the first
 *   {"error":{"status":S,"code":C,"after":K}} fails after K words; K = -1 before HEAD
 *   {"start":C}       start() itself fails with this ASH_E code
 * Every start, cancellation and end is one line on standard output. */
#ifndef ASHLEY_TESTS_HTTP_FAKE_PARTS_H
#define ASHLEY_TESTS_HTTP_FAKE_PARTS_H

#include "provider/provider.h"
#include "residency/manager.h"

extern bool fake_quiet; /* no lines; set before the first request */
extern double fake_eta; /* what ash_manager_eta says of every model */

/* Answers as the local engine would (raw false), or as an upstream does. */
ash_provider *fake_provider_open(const char *name, bool raw);

/* Models: "tiny" loaded, "other" loaded, "cold" unloaded (loads in half a second), "org/split"
 * unloaded, "broken" failed. */
ash_manager *fake_manager_open(void);

#endif
