/* Owns the commands that talk to a model in the terminal: run (one prompt) and chat. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/asker.h"
#include "cli/engine_open.h"
#include "cli/line.h"

static int add_message(json_t *messages, const char *role, const char *p, size_t n)
{
    return json_array_append_new(messages, json_pack("{s:s, s:s%}", "role", role, "content", p, n));
}

#define NO_SYSTEM "the system prompt is not UTF-8 text"

/* NULL if the system prompt is no text, or without memory. */
static json_t *new_messages(const ash_cli *cli, const ash_asker *a)
{
    json_t *messages = json_array();
    const char *system = ash_cli_get(cli, "system");
    system = system ? system : ash_asker_system(a);
    if (!system || !messages || !add_message(messages, "system", system, strlen(system))) return messages;
    json_decref(messages);
    return NULL;
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
    if (!status && !messages)
        status = ash_cli_usage(NO_SYSTEM);
    else if (!status && add_message(messages, "user", prompt, strlen(prompt)))
        status = ash_cli_usage("the prompt is not UTF-8 text");
    if (!status) status = exchange(cli, a, messages);
    json_decref(messages);
    ash_buf_release(&input);
    ash_asker_close(a);
    return status;
}

/* ---- chat -------------------------------------------------------------------------------------
 */

static void chat_help(void)
{
    puts("/new      start a new conversation\n/undo     take back the last question and answer\n"
         "/system T set the system prompt and start anew\n/quit     end (or Ctrl-D)\n"
         "\"\"\"       begins and ends a message of several lines\n"
         "Ctrl-C ends an answer, or throws away what was typed; where nothing was, it ends the program.");
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
        if (*messages && line[1] == 's' && add_message(*messages, "system", line + 8, strlen(line + 8)))
            fprintf(stderr, "ashley: " NO_SYSTEM "\n");
    } else if (!strcmp(line, "/undo")) {
        undo(*messages);
    } else {
        if (strcmp(line, "/help") != 0) printf("There is no %s.\n", line);
        chat_help();
    }
    return *messages != NULL;
}

int ash_cmd_chat(ash_cli *cli)
{
    ash_asker *a;
    ash_line *input;
    ash_err err = ASH_ERR_INIT;
    int status = ash_asker_open(cli, cli->n_args ? cli->args[0] : NULL, &a);
    if (status) return status;
    if (ash_line_open(&input, &err)) status = ash_cli_fail(&err);
    json_t *messages = status ? NULL : new_messages(cli, a);
    if (!status && !messages) status = ash_cli_usage(NO_SYSTEM);
    bool edits = input && ash_line_edits(input);
    if (edits && !cli->quiet) printf("%s. /help lists the commands.\n", ash_asker_model(a));
    for (const char *line; messages && (line = ash_line_read(input));) {
        if (*line == '/') {
            if (!chat_command(cli, a, line, &messages)) break;
            continue;
        }
        if (add_message(messages, "user", line, strlen(line))) {
            fprintf(stderr, "ashley: that is not UTF-8 text\n");
            continue;
        }
        status = exchange(cli, a, messages);
        if (status && status != 130) undo(messages);
        if (!edits && status) break;
    }
    ash_line_close(input);
    json_decref(messages);
    ash_asker_close(a);
    return edits && status != ASH_EXIT_USAGE ? ASH_EXIT_DONE : status;
}
