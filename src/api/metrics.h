/* Counters of the server, and their Prometheus text. Any thread. */
#ifndef ASHLEY_API_METRICS_H
#define ASHLEY_API_METRICS_H

#include "provider/provider.h"
#include "residency/manager.h"

typedef struct ash_metrics ash_metrics;

ash_metrics *ash_metrics_open(void); /* NULL without memory */
void ash_metrics_close(ash_metrics *m);

/* One request ended. `route` is a literal of the route table; status 0: the client left first (shown
 * as 499, as nginx does). Over the table's size they are counted under route "other". */
void ash_metrics_request(ash_metrics *m, const char *route, int status, double seconds);
void ash_metrics_first_token(ash_metrics *m, double seconds);

/* Appends the text exposition format 0.0.4: the counters, the local provider's and the manager's models. */
int ash_metrics_write(ash_metrics *m, ash_provider *local, ash_manager *manager, int answering,
                      ash_buf *out);

#endif
