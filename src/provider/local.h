/* The provider that answers from engines on this machine, leased from the residency manager. */
#ifndef ASHLEY_PROVIDER_LOCAL_H
#define ASHLEY_PROVIDER_LOCAL_H

#include "provider/provider.h"
#include "residency/manager.h"

/* Borrows the manager for its life. */
int ash_local_open(ash_manager *m, ash_provider **out, ash_err *err) ASH_MUST_CHECK;

#endif
