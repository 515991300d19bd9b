/* Splits an answer that begins with <think>...</think> into reasoning and content while it streams. Only
 * at the very start of an answer (after white space) do the marks count; line breaks and blanks right
 * after a mark are dropped. Nothing to release; one thread at a time. */
#ifndef ASHLEY_PROVIDER_THINK_H
#define ASHLEY_PROVIDER_THINK_H

#include "base/buf.h"

typedef enum ash_think_state {
    ASH_THINK_START,   /* white space or a part of <think> so far, which is held back */
    ASH_THINK_OPENED,  /* white space after the mark */
    ASH_THINK_INSIDE,  /* a part of </think> may be held back */
    ASH_THINK_CLOSED,  /* white space after the mark */
    ASH_THINK_CONTENT, /* everything is content */
} ash_think_state;

typedef struct ash_think {
    ash_think_state state;
    size_t n_held;
    char held[64];
} ash_think;

/* inside: the prompt already ends with <think>. off: all is content. */
void ash_think_init(ash_think *t, bool inside, bool off);
/* Appends what p[0..n) makes sure to `reasoning` and `content`. 0 or a buffer's failure. */
int ash_think_push(ash_think *t, ash_str s, ash_buf *reasoning, ash_buf *content) ASH_MUST_CHECK;
/* The answer ended: appends what is held back. */
int ash_think_flush(ash_think *t, ash_buf *reasoning, ash_buf *content) ASH_MUST_CHECK;

#endif
