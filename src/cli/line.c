/* Owns the reading of messages: libedit, opened for a terminal, its history, pastes, Ctrl-C. Main thread. */
#include "cli/line.h"

#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "base/buf.h"
#include "base/library.h"
#include "base/limits.h"
#include "cli/engine_open.h"

static const char quotes[] = "\"\"\"", blanks[] = " \t\r\n";

/* libedit's functions. */
typedef struct line_editor {
    EditLine *(*init)(const char *program, FILE *in, FILE *out, FILE *errors);
    void (*end)(EditLine *el);
    int (*set)(EditLine *el, int what, ...);
    const char *(*gets)(EditLine *el, int *count);
    const LineInfo *(*line)(EditLine *el);
    int (*wgetc)(EditLine *el, wchar_t *out);
    int (*winsert)(EditLine *el, const wchar_t *text);
    History *(*history_init)(void);
    void (*history_end)(History *h);
    int (*history)(History *h, HistEvent *ev, int what, ...);
} line_editor;

struct ash_line {
    line_editor lib;
    EditLine *el; /* NULL: lines are read as they are */
    History *history;
    char *line; /* getline's */
    size_t cap;
    ash_buf message;
};

/* By Debian's name or everyone else's. */
static bool open_editor(line_editor *lib)
{
    static const ash_symbol symbols[] = {
        {"el_init", offsetof(line_editor, init)},
        {"el_end", offsetof(line_editor, end)},
        {"el_set", offsetof(line_editor, set)},
        {"el_gets", offsetof(line_editor, gets)},
        {"el_line", offsetof(line_editor, line)},
        {"el_wgetc", offsetof(line_editor, wgetc)},
        {"el_winsertstr", offsetof(line_editor, winsert)},
        {"history_init", offsetof(line_editor, history_init)},
        {"history_end", offsetof(line_editor, history_end)},
        {"history", offsetof(line_editor, history)},
    };
    ash_err err = ASH_ERR_INIT;
    size_t n = sizeof symbols / sizeof *symbols;
    return !ash_library_open("libedit.so.2", symbols, n, lib, &err) ||
           !ash_library_open("libedit.so.0", symbols, n, lib, &err);
}

static char *prompt_text(EditLine *el __attribute__((unused)))
{
    static char text[] = "> ";
    return text;
}

/* Within quotes. */
static char *more_text(EditLine *el __attribute__((unused)))
{
    static char text[] = ". ";
    return text;
}

static void insert(const line_editor *lib, EditLine *el, wchar_t c)
{
    const wchar_t text[2] = {c == '\r' ? '\n' : c, 0};
    if (c >= ' ' || c == '\n' || c == '\r' || c == '\t') lib->winsert(el, text);
}

/* What the terminal sends between the marks of a paste becomes part of the line, its line breaks too: the
 * reader sees it before it is sent. */
static unsigned char take_paste(EditLine *el, int key __attribute__((unused)))
{
    static const wchar_t end[] = L"\033[201~";
    line_editor lib;
    wchar_t c;
    size_t matched = 0;
    if (!open_editor(&lib)) return CC_REFRESH_BEEP;
    while (end[matched] && lib.wgetc(el, &c) == 1) {
        if (c == end[matched]) {
            matched++;
            continue;
        }
        for (size_t i = 0; i < matched; i++) insert(&lib, el, end[i]);
        matched = c == end[0];
        if (!matched) insert(&lib, el, c);
    }
    return CC_REFRESH;
}

static void switch_pastes(const char *to)
{
    const char *term = getenv("TERM");
    if (isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0) {
        printf("\033[?2004%s", to);
        fflush(stdout);
    }
}

int ash_line_open(ash_line **out, ash_err *err)
{
    HistEvent ev;
    ash_line *l = *out = calloc(1, sizeof *l);
    if (!l) return ash_err_nomem(err, "a line");
    ash_buf_init(&l->message, ASH_MAX_TEXT);
    if (!isatty(STDIN_FILENO) || !open_editor(&l->lib)) return 0;
    l->el = l->lib.init("ashley", stdin, stdout, stderr);
    l->history = l->lib.history_init();
    if (!l->el || !l->history) return 0;
    l->lib.history(l->history, &ev, H_SETSIZE, 500);
    l->lib.set(l->el, EL_EDITOR, "emacs");
    l->lib.set(l->el, EL_HIST, l->lib.history, l->history);
    l->lib.set(l->el, EL_SIGNAL, 0);
    l->lib.set(l->el, EL_ADDFN, "take-paste", "takes a paste", take_paste);
    l->lib.set(l->el, EL_BIND, "\033[200~", "take-paste", NULL);
    return 0;
}

void ash_line_close(ash_line *l)
{
    if (!l) return;
    if (l->history) l->lib.history_end(l->history);
    if (l->el) l->lib.end(l->el);
    ash_buf_release(&l->message);
    free(l->line);
    free(l);
}

bool ash_line_edits(const ash_line *l)
{
    return l->el != NULL;
}

static const char *edited_line(ash_line *l, bool more)
{
    HistEvent ev;
    int count = 0;
    l->lib.set(l->el, EL_PROMPT, more ? more_text : prompt_text);
    switch_pastes("h");
    const char *got = l->lib.gets(l->el, &count);
    switch_pastes("l");
    if (!got || count <= 0) {
        putchar('\n');
        return NULL;
    }
    l->lib.history(l->history, &ev, H_ENTER, got);
    return got;
}

/* The next line, its end included; NULL at the end of the input and after Ctrl-C. */
static const char *next_line(ash_line *l, bool more)
{
    ash_cli_interrupt_clear(); /* the one that ended an answer, or the program would end with the next */
    if (l->el) return edited_line(l, more);
    if (isatty(STDIN_FILENO)) fputs(more ? more_text(NULL) : prompt_text(NULL), stdout), fflush(stdout);
    return getline(&l->line, &l->cap, stdin) < 0 ? NULL : l->line;
}

/* Whether Ctrl-C ended a line that had something in it. */
static bool thrown_away(ash_line *l)
{
    if (!l->el || !atomic_load(ash_cli_interrupt())) return false;
    const LineInfo *typed = l->lib.line(l->el);
    return typed->lastchar > typed->buffer;
}

/* Takes off blanks at the end, and whether `quotes` stand there, which go too. */
static bool ends_quoted(ash_buf *b)
{
    size_t n = b->len, q = sizeof quotes - 1;
    while (n && strchr(blanks, b->data[n - 1])) n--;
    if (n < q || memcmp(b->data + n - q, quotes, q) != 0) return false;
    b->len = n - q;
    b->data[b->len] = 0;
    return true;
}

/* What follows the opening quotes, up to the closing ones or the end of the input. False: thrown away. */
static bool read_quoted(ash_line *l, const char *first)
{
    /* quotes may have a line of their own */
    if (first[strspn(first, blanks)]) ash_buf_adds(&l->message, first);
    while (!ends_quoted(&l->message)) {
        const char *line = next_line(l, true);
        if (!line) return !atomic_load(ash_cli_interrupt());
        ash_buf_adds(&l->message, line);
    }
    return true;
}

const char *ash_line_read(ash_line *l)
{
    for (;;) {
        const char *line = next_line(l, false);
        if (!line && thrown_away(l)) continue;
        if (!line) return NULL;
        ash_buf_clear(&l->message);
        if (!strncmp(line, quotes, sizeof quotes - 1)) {
            if (!read_quoted(l, line + sizeof quotes - 1)) continue;
        } else {
            ash_buf_adds(&l->message, line);
        }
        if (l->message.failed) fprintf(stderr, "ashley: that is more than a message holds\n");
        if (l->message.failed || !l->message.len) continue;
        char *text = l->message.data;
        size_t n = l->message.len;
        while (n && strchr("\r\n", text[n - 1])) text[--n] = 0;
        if (text[strspn(text, blanks)]) return text;
    }
}
