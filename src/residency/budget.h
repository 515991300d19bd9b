/* The bytes that models may take: what was configured, what the machine has, and less of it under pressure.
 * Plain storage of the caller's, who serialises; no clock, no file. */
#ifndef ASHLEY_RESIDENCY_BUDGET_H
#define ASHLEY_RESIDENCY_BUDGET_H

#include <stdbool.h>

#include "residency/memory.h"

typedef struct ash_budget {
    uint64_t limit;     /* configured; 0: left to the machine ("auto") */
    uint64_t ceiling;   /* 0: none; else bytes, for the pressure that was or is */
    int64_t stepped_ms; /* when the ceiling was moved */
    uint64_t had;       /* at the last look: what this process had and could still take; 0: no look yet */
    int64_t had_ms;     /* and when that was */
} ash_budget;

/* What is kept free when the budget is left to the machine: a sixteenth of all memory, or of the control
 * group's limit, at most 4 GiB; where neither is known, of what this process has and may still take. That
 * others take memory makes it no smaller: it is there for them. */
uint64_t ash_budget_reserve(const ash_memory *now);
/* Bytes for all models together: limit, at most what the process has and may still take; auto: that, less
 * the reserve; under pressure at most the ceiling. UINT64_MAX where the machine does not tell and nothing is
 * configured. */
uint64_t ash_budget_bytes(const ash_budget *b, const ash_memory *now);
/* Looks at pressure; call it every quarter of a second or so while something is loaded. `charged` are the
 * bytes of all models. Under pressure (everything stood still for 10 % of the last 10 s while less than the
 * reserve is spare, or less than a quarter of the reserve is available, or will be at the next look if others
 * take as much again as since the last one, at most the reserve) the ceiling is an eighth below what is
 * charged, once a second. After 10 s of calm it rises by an eighth, and goes when it limits nothing any more.
 * True if it was lowered. */
bool ash_budget_step(ash_budget *b, const ash_memory *now, uint64_t charged, int64_t now_ms);

#endif
