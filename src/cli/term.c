/* Owns how progress looks in a terminal and in a log. Main thread. */
#include "cli/term.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "config/value.h"

enum { BAR_WIDTH = 30 };

static bool dumb(void)
{
    const char *term = getenv("TERM");
    return !term || !strcmp(term, "dumb");
}

bool ash_term_color(const ash_cli *cli, int fd)
{
    const char *none = getenv("NO_COLOR"), *force = getenv("CLICOLOR_FORCE");
    if (strcmp(cli->color, "auto")) return !strcmp(cli->color, "always");
    if (none && *none) return false;
    if (force && *force && strcmp(force, "0")) return true;
    return isatty(fd) && !dumb();
}

void ash_term_init(ash_term *t, const ash_cli *cli, const char *what)
{
    *t = (ash_term){.last_stage = -1, .what = what};
    if (cli->quiet || !strcmp(cli->progress, "none"))
        t->mode = ASH_TERM_NONE;
    else if (!strcmp(cli->progress, "json"))
        t->mode = ASH_TERM_JSON;
    else if (!strcmp(cli->progress, "plain") || !isatty(STDERR_FILENO) || dumb())
        t->mode = ASH_TERM_PLAIN;
    else
        t->mode = ASH_TERM_BAR;
}

static void draw_bar(ash_term *t, const char *stage, uint64_t done, uint64_t total)
{
    char bar[BAR_WIDTH + 1], a[16], b[16];
    int full = total ? (int)(done * BAR_WIDTH / total) : 0;
    for (int i = 0; i < BAR_WIDTH; i++) bar[i] = i < full ? '#' : '.';
    bar[BAR_WIDTH] = 0;
    ash_value_show_bytes(done, a);
    ash_value_show_bytes(total, b);
    if (total > 4096)
        fprintf(stderr, "\r\033[K%s: %s [%s] %s of %s", t->what, stage, bar, a, b);
    else
        fprintf(stderr, "\r\033[K%s: %s [%s]", t->what, stage, bar);
    t->drawn = true;
}

void ash_term_progress(ash_term *t, int stage, const char *stage_name, uint64_t done,
                       uint64_t total)
{
    int64_t now = ash_clock_ns();
    bool fresh = stage != t->last_stage;
    if (t->mode == ASH_TERM_NONE || (!fresh && now - t->last_ns < 100000000)) return;
    if (t->mode == ASH_TERM_BAR)
        draw_bar(t, stage_name, done, total);
    else if (t->mode == ASH_TERM_JSON)
        fprintf(stderr, "{\"model\":\"%s\",\"stage\":\"%s\",\"done\":%llu,\"total\":%llu}\n",
                t->what, stage_name, (unsigned long long)done, (unsigned long long)total);
    else if (fresh)
        fprintf(stderr, "%s: %s\n", t->what, stage_name);
    t->last_stage = stage;
    t->last_ns = now;
}

void ash_term_done(ash_term *t)
{
    if (t->drawn) fputs("\r\033[K", stderr);
    t->drawn = false;
}
