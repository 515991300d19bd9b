/* The terminal: progress bars, colour, when to use neither, and texts of others. Progress goes to standard
 * error only; main thread, but ash_term_text. */
#ifndef ASHLEY_CLI_TERM_H
#define ASHLEY_CLI_TERM_H

#include <stdint.h>
#include <stdio.h>

#include "cli/cli.h"

typedef struct ash_term {
    enum { ASH_TERM_NONE, ASH_TERM_PLAIN, ASH_TERM_BAR, ASH_TERM_JSON } mode;
    int last_stage;
    int64_t last_ns;
    bool drawn; /* a bar is on the line */
    uint64_t rate;   /* bytes a second, shown beside the bytes; 0: not shown. The caller may set both */
    int64_t left_ms; /* time left at that rate; -1: not known */
    const char *trouble; /* why nothing comes, shown instead; NULL: nothing. The caller may set it, */
    int tries;           /* how often in a row, */
    int64_t retry_ms;    /* and how long until the next try */
    int told_tries;
    int tenth;          /* plain: of the stage, that was told last, */
    int64_t told_ns;    /* and when */
    const char *what;
} ash_term;

/* Decides by --progress, --quiet, whether standard error is a terminal, and TERM=dumb. `what` is
 * shown before the stages, borrowed. */
void ash_term_init(ash_term *t, const ash_cli *cli, const char *what);
/* A step: a bar in place, one JSON object a line, or one plain line a stage, and, where a rate is known, at
 * each tenth of it and after each half a minute. */
void ash_term_progress(ash_term *t, int stage, const char *stage_name, uint64_t done,
                       uint64_t total);
/* How wide the terminal `fd` is; 80 where it does not tell, 0 where it is none. */
int ash_term_columns(int fd);
/* Wipes the bar. */
void ash_term_done(ash_term *t);
/* Writes text that a model, a file or a server made, without what a terminal would obey (base/utf8.h). Whole
 * code points; any thread. */
void ash_term_text(FILE *to, const char *p, size_t n);
/* Whether stream `fd` gets colour: --color, NO_COLOR, CLICOLOR_FORCE, TERM=dumb, a terminal. */
bool ash_term_color(const ash_cli *cli, int fd);

#endif
