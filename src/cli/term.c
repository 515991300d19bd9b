/* Owns how progress looks in a terminal and in a log. Main thread. */
#include "cli/term.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/utf8.h"
#include "config/value.h"

enum { BAR_WIDTH = 30, LEAST_BAR = 5 };
static const int64_t PLAIN_NS = 30000000000;

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

void ash_term_text(FILE *to, const char *p, size_t n)
{
    ash_buf b;
    ash_buf_init(&b, SIZE_MAX / 2);
    if (!ash_buf_add(&b, p, n) && n) {
        ash_utf8_disarm(b.data, n);
        fwrite(b.data, 1, n, to);
    }
    ash_buf_release(&b);
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

/* ", 12.3 MB/s, 1 h 05 min left", or nothing. */
static void show_rate(const ash_term *t, char out[64])
{
    char rate[16];
    out[0] = 0;
    if (!t->rate) return;
    ash_value_show_bytes(t->rate, rate);
    int n = snprintf(out, 64, ", %s/s", rate);
    long long s = (long long)t->left_ms / 1000;
    if (t->left_ms < 0 || s > 999 * 3600) return;
    if (s >= 3600)
        snprintf(out + n, 64 - (size_t)n, ", %lld h %02lld min left", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(out + n, 64 - (size_t)n, ", %lld min %02lld s left", s / 60, s % 60);
    else
        snprintf(out + n, 64 - (size_t)n, ", %lld s left", s);
}

int ash_term_columns(int fd)
{
    struct winsize size = {0};
    if (!isatty(fd)) return 0;
    return ioctl(fd, TIOCGWINSZ, &size) || !size.ws_col ? 80 : size.ws_col;
}

/* "CAUSE; next try in 4 s" */
static void show_trouble(const ash_term *t, char out[320])
{
    if (t->retry_ms > 0)
        snprintf(out, 320, "%.250s; next try in %lld s", t->trouble, (long long)(t->retry_ms + 999) / 1000);
    else
        snprintf(out, 320, "%.250s; tried again", t->trouble);
}

/* Within one line, or each step would leave one behind: the bar gives way first, then the end. */
static void draw_bar(ash_term *t, const char *stage, uint64_t done, uint64_t total)
{
    char bytes[128] = "", line[512], bar[BAR_WIDTH + 4] = "", a[16], b[16], rate[64];
    if (total > 4096) {
        ash_value_show_bytes(done, a);
        ash_value_show_bytes(total, b);
        show_rate(t, rate);
        snprintf(bytes, sizeof bytes, " %s of %s%s", a, b, rate);
    }
    int columns = ash_term_columns(STDERR_FILENO) - 1;
    int rest = columns - (int)(strlen(stage) + strlen(bytes)) - 5;
    const char *what = t->what, *slash = strrchr(what, '/');
    if (slash && (int)strlen(what) > rest - LEAST_BAR) what = slash + 1;
    int room = rest - (int)strlen(what);
    int width = room < BAR_WIDTH ? room : BAR_WIDTH, full = total ? (int)(done * (uint64_t)width / total) : 0;
    if (width >= LEAST_BAR) {
        memset(bar, '.', (size_t)width + 3);
        memset(bar + 2, '#', (size_t)full);
        bar[0] = ' ', bar[1] = '[', bar[width + 2] = ']', bar[width + 3] = 0;
    }
    snprintf(line, sizeof line, "%s: %s%s%s", what, stage, bar, bytes);
    fprintf(stderr, "\r\033[K%.*s", columns > 0 ? columns : 79, line);
    t->drawn = true;
}

static void print_plain(ash_term *t, bool fresh, const char *stage, uint64_t done, uint64_t total,
                        int64_t now)
{
    char a[16], b[16], rate[64];
    int tenth = total ? (int)((double)done / (double)total * 10.0) : 0;
    if (fresh) {
        fprintf(stderr, "%s: %s\n", t->what, stage);
    } else if (t->rate && (tenth > t->tenth || now - t->told_ns > PLAIN_NS)) {
        ash_value_show_bytes(done, a);
        ash_value_show_bytes(total, b);
        show_rate(t, rate);
        fprintf(stderr, "%s: %s %s of %s%s\n", t->what, stage, a, b, rate);
    } else {
        return;
    }
    t->tenth = tenth;
    t->told_ns = now;
}

/* A line for each try, or in the bar's place. */
static void draw_trouble(ash_term *t)
{
    char text[320];
    int columns = ash_term_columns(STDERR_FILENO) - 1;
    show_trouble(t, text);
    if (t->mode == ASH_TERM_BAR) {
        char line[512];
        snprintf(line, sizeof line, "%.180s: %s", t->what, text);
        fprintf(stderr, "\r\033[K%.*s", columns > 0 ? columns : 79, line);
        t->drawn = true;
    } else if (t->tries != t->told_tries) {
        fprintf(stderr, "%s: %s\n", t->what, text);
        t->told_tries = t->tries;
    }
}

/* An object a line. What there is no memory for is left out: the next one is a tenth of a second away. */
static void print_json(const ash_term *t, const char *stage, uint64_t done, uint64_t total)
{
    int64_t left_s = t->rate && t->left_ms >= 0 ? t->left_ms / 1000 : -1;
    json_t *v = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I}", "model", t->what, "stage", stage, "done",
                          (json_int_t)done, "total", (json_int_t)total, "bytes_per_second",
                          (json_int_t)t->rate, "eta_seconds", (json_int_t)left_s);
    if (v && t->trouble) {
        json_t *why = json_pack("{s:s,s:i,s:I}", "message", t->trouble, "tries", t->tries, "retry_ms",
                                (json_int_t)t->retry_ms);
        json_object_set_new(v, "trouble", why);
    }
    if (v && !json_dumpf(v, stderr, JSON_COMPACT)) fputc('\n', stderr);
    json_decref(v);
}

void ash_term_progress(ash_term *t, int stage, const char *stage_name, uint64_t done,
                       uint64_t total)
{
    int64_t now = ash_clock_ns();
    bool fresh = stage != t->last_stage && !t->trouble;
    if (t->mode == ASH_TERM_NONE || (!fresh && now - t->last_ns < 100000000)) return;
    if (t->trouble && t->mode != ASH_TERM_JSON) {
        draw_trouble(t);
        t->last_ns = now;
        return;
    }
    t->told_tries = 0;
    if (t->mode == ASH_TERM_BAR)
        draw_bar(t, stage_name, done, total);
    else if (t->mode == ASH_TERM_JSON)
        print_json(t, stage_name, done, total);
    else
        print_plain(t, fresh, stage_name, done, total, now);
    t->last_stage = stage;
    t->last_ns = now;
}

void ash_term_done(ash_term *t)
{
    if (t->drawn) fputs("\r\033[K", stderr);
    t->drawn = false;
}
