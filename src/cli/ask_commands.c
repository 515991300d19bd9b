/* Owns the commands that talk to a model in the terminal: run (one prompt) and chat. */
#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/library.h"
#include "cli/asker.h"
#include "cli/engine_open.h"
#include "cli/term.h"

static int add_message(json_t *messages, const char *role, const char *p, size_t n)
{
    return json_array_append_new(messages, json_pack("{s:s, s:s%}", "role", role, "content", p, n));
}

static json_t *new_messages(const ash_cli *cli, const ash_asker *a)
{
    json_t *messages = json_array();
    const char *system = ash_cli_get(cli, "system");
    system = system ? system : ash_asker_system(a);
    if (messages && system) add_message(messages, "system", system, strlen(system));
    return messages;
}

static void print_stats(const ash_asker *a)
{
    const ash_answer_usage *u = ash_asker_usage(a);
    if (u->completion_tokens == 0) return;
    fprintf(stderr,
            "[%u prompt tokens (%u known) in %.0f ms; %u tokens in %.0f ms, %.1f a second]\n",
            u->prompt_tokens, u->cached_tokens, u->prefill_ms, u->completion_tokens, u->decode_ms,
            u->decode_ms > 0.0 ? (u->completion_tokens - 1) / u->decode_ms * 1e3 : 0.0);
}

/* Sends what the conversation holds and takes the answer into it. */
static int exchange(const ash_cli *cli, ash_asker *a, json_t *messages)
{
    ash_buf text;
    ash_buf_init(&text, ASH_MAX_TEXT);
    int status = ash_asker_ask(a, messages, &text);
    if (text.len && text.data[text.len - 1] != '\n') putchar('\n');
    fflush(stdout);
    if (!status || (status == 130 && text.len))
        add_message(messages, "assistant", ash_buf_cstr(&text), text.len);
    if (ash_cli_get(cli, "stats")) print_stats(a);
    ash_buf_release(&text);
    return status;
}

int ash_cmd_run(ash_cli *cli)
{
    ash_asker *a;
    ash_buf input = {0};
    const char *prompt = cli->args[1];
    int status = ash_asker_open(cli, cli->args[0], &a);
    if (status) return status;
    if (!strcmp(prompt, "-")) {
        status = ash_cli_read(NULL, ASH_MAX_TEXT, &input);
        prompt = ash_buf_cstr(&input);
    }
    json_t *messages = new_messages(cli, a);
    if (!status && (!messages || add_message(messages, "user", prompt, strlen(prompt))))
        status = ash_cli_usage("the prompt is not UTF-8 text");
    if (!status) status = exchange(cli, a, messages);
    json_decref(messages);
    ash_buf_release(&input);
    ash_asker_close(a);
    return status;
}

/* ---- chat -------------------------------------------------------------------------------------
 */

static char *prompt_text(EditLine *el __attribute__((unused)))
{
    static char text[] = "> ";
    return text;
}

/* libedit, opened for a terminal. */
typedef struct line_editor {
    EditLine *(*init)(const char *program, FILE *in, FILE *out, FILE *errors);
    void (*end)(EditLine *el);
    int (*set)(EditLine *el, int what, ...);
    const char *(*gets)(EditLine *el, int *count);
    History *(*history_init)(void);
    void (*history_end)(History *h);
    int (*history)(History *h, HistEvent *ev, int what, ...);
} line_editor;

typedef struct line_reader {
    line_editor lib;
    EditLine *el; /* NULL: lines are read as they are */
    History *history;
    char *line;
    size_t cap;
} line_reader;

/* By Debian's name or everyone else's. */
static bool open_editor(line_editor *lib)
{
    static const ash_symbol symbols[] = {
        {"el_init", offsetof(line_editor, init)},
        {"el_end", offsetof(line_editor, end)},
        {"el_set", offsetof(line_editor, set)},
        {"el_gets", offsetof(line_editor, gets)},
        {"history_init", offsetof(line_editor, history_init)},
        {"history_end", offsetof(line_editor, history_end)},
        {"history", offsetof(line_editor, history)},
    };
    ash_err err = ASH_ERR_INIT;
    size_t n = sizeof symbols / sizeof *symbols;
    return !ash_library_open("libedit.so.2", symbols, n, lib, &err) ||
           !ash_library_open("libedit.so.0", symbols, n, lib, &err);
}

static void open_reader(line_reader *r)
{
    *r = (line_reader){0};
    if (!isatty(STDIN_FILENO) || !open_editor(&r->lib)) return;
    HistEvent ev;
    r->el = r->lib.init("ashley", stdin, stdout, stderr);
    r->history = r->lib.history_init();
    if (!r->el || !r->history) return;
    r->lib.history(r->history, &ev, H_SETSIZE, 500);
    r->lib.set(r->el, EL_PROMPT, prompt_text);
    r->lib.set(r->el, EL_EDITOR, "emacs");
    r->lib.set(r->el, EL_HIST, r->lib.history, r->history);
    r->lib.set(r->el, EL_SIGNAL, 0);
}

static void close_reader(line_reader *r)
{
    if (r->history) r->lib.history_end(r->history);
    if (r->el) r->lib.end(r->el);
    free(r->line);
}

/* The next line without its end, NULL at the end of input. Borrowed until the next call. */
static const char *read_line(line_reader *r)
{
    HistEvent ev;
    int count = 0;
    if (!r->el) {
        if (isatty(STDIN_FILENO)) fputs(prompt_text(NULL), stdout), fflush(stdout);
        ssize_t n = getline(&r->line, &r->cap, stdin);
        if (n < 0) return NULL;
        r->line[strcspn(r->line, "\r\n")] = 0;
        return r->line;
    }
    const char *got = r->lib.gets(r->el, &count);
    if (!got || count <= 0) return NULL;
    if (r->history) r->lib.history(r->history, &ev, H_ENTER, got);
    free(r->line);
    r->line = strndup(got, strcspn(got, "\r\n"));
    return r->line;
}

static void chat_help(void)
{
    puts("/new      start a new conversation\n/undo     take back the last question and answer\n"
         "/system T set the system prompt and start anew\n/quit     end (or Ctrl-D)\n"
         "Ctrl-C ends an answer; a second one ends the program.");
}

static void undo(json_t *messages)
{
    size_t n = json_array_size(messages);
    while (n) {
        const char *role =
            json_string_value(json_object_get(json_array_get(messages, n - 1), "role"));
        if (role && !strcmp(role, "system")) return;
        bool user = role && !strcmp(role, "user");
        json_array_remove(messages, --n);
        if (user) return;
    }
}

/* A line that starts with '/'. False: end the chat. */
static bool chat_command(const ash_cli *cli, const ash_asker *a, const char *line,
                         json_t **messages)
{
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit")) return false;
    if (!strcmp(line, "/new") || !strncmp(line, "/system ", 8)) {
        json_decref(*messages);
        *messages = line[1] == 'n' ? new_messages(cli, a) : json_array();
        if (*messages && line[1] == 's')
            add_message(*messages, "system", line + 8, strlen(line + 8));
    } else if (!strcmp(line, "/undo")) {
        undo(*messages);
    } else {
        chat_help();
    }
    return *messages != NULL;
}

int ash_cmd_chat(ash_cli *cli)
{
    ash_asker *a;
    line_reader reader;
    int status = ash_asker_open(cli, cli->n_args ? cli->args[0] : NULL, &a);
    if (status) return status;
    json_t *messages = new_messages(cli, a);
    open_reader(&reader);
    if (reader.el && !cli->quiet) printf("%s. /help lists the commands.\n", ash_asker_model(a));
    for (const char *line; messages && (line = read_line(&reader));) {
        if (!*line) continue;
        if (*line == '/') {
            if (!chat_command(cli, a, line, &messages)) break;
            continue;
        }
        if (add_message(messages, "user", line, strlen(line))) {
            fprintf(stderr, "ashley: that is not UTF-8 text\n");
            continue;
        }
        ash_cli_interrupt_clear();
        status = exchange(cli, a, messages);
        if (status && status != 130) undo(messages);
        if (!reader.el && status) break;
    }
    close_reader(&reader);
    json_decref(messages);
    ash_asker_close(a);
    return reader.el ? ASH_EXIT_DONE : status;
}
