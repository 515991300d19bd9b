/* Policies that configuration names and servers follow. */
#ifndef ASHLEY_BASE_POLICY_H
#define ASHLEY_BASE_POLICY_H

/* ASHLEY_FALLBACK: when a request may leave the machine for the upstream. */
typedef enum ash_fallback {
    ASH_FALLBACK_UNSET, /* catalogue entry without one */
    ASH_FALLBACK_NEVER,
    ASH_FALLBACK_ON_ERROR,
    ASH_FALLBACK_ON_NOT_READY,
    ASH_FALLBACK_ALWAYS,
} ash_fallback;

/* ASHLEY_READY: which preloaded models /readyz waits for. */
typedef enum ash_ready { ASH_READY_ALL, ASH_READY_REQUIRED, ASH_READY_ANY } ash_ready;

#endif
