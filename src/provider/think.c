/* Owns the split between reasoning and content. Refuses nothing: any text is one or the other. */
#include "provider/think.h"

#include <string.h>

static const char open_mark[] = "<think>", close_mark[] = "</think>";

void ash_think_init(ash_think *t, bool inside, bool off)
{
    *t = (ash_think){.state = off      ? ASH_THINK_CONTENT
                              : inside ? ASH_THINK_OPENED
                                       : ASH_THINK_START};
}

static bool blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static void give_held(ash_think *t, ash_buf *out)
{
    ash_buf_add(out, t->held, t->n_held);
    t->n_held = 0;
}

/* At the start: white space, then the mark, letter by letter. */
static void at_start(ash_think *t, char c, ash_buf *content)
{
    size_t space = 0;
    t->held[t->n_held++] = c;
    while (space < t->n_held && blank(t->held[space])) space++;
    size_t n = t->n_held - space;
    bool fits = n < sizeof open_mark && !memcmp(t->held + space, open_mark, n);
    if (fits && n == sizeof open_mark - 1) {
        t->state = ASH_THINK_OPENED;
        t->n_held = 0;
    } else if (!fits || t->n_held == sizeof t->held) {
        t->state = ASH_THINK_CONTENT;
        give_held(t, content);
    }
}

/* Inside: the closing mark begins with its only '<', so a failed match never begins inside another.
 */
static void inside(ash_think *t, char c, ash_buf *reasoning)
{
    if (c != close_mark[t->n_held]) give_held(t, reasoning);
    if (c != close_mark[t->n_held]) {
        ash_buf_addc(reasoning, c);
        return;
    }
    t->held[t->n_held++] = c;
    if (t->n_held == sizeof close_mark - 1) {
        t->state = ASH_THINK_CLOSED;
        t->n_held = 0;
    }
}

int ash_think_push(ash_think *t, ash_str s, ash_buf *reasoning, ash_buf *content)
{
    for (size_t i = 0; i < s.n; i++) {
        if (t->state == ASH_THINK_OPENED && !blank(s.p[i])) t->state = ASH_THINK_INSIDE;
        if (t->state == ASH_THINK_CLOSED && !blank(s.p[i])) t->state = ASH_THINK_CONTENT;
        if (t->state == ASH_THINK_CONTENT) {
            ash_buf_add(content, s.p + i, s.n - i);
            break;
        }
        if (t->state == ASH_THINK_START)
            at_start(t, s.p[i], content);
        else if (t->state == ASH_THINK_INSIDE)
            inside(t, s.p[i], reasoning);
    }
    return content->failed ? content->failed : reasoning->failed;
}

int ash_think_flush(ash_think *t, ash_buf *reasoning, ash_buf *content)
{
    give_held(t, t->state == ASH_THINK_INSIDE ? reasoning : content);
    return content->failed ? content->failed : reasoning->failed;
}
