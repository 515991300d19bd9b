/* What the commands of the program share: the option table, parsing, exit codes, configuration.
 *
 * Every command is one row of ash_cli_commands; its options are a table from which --help, shell
 * completion and the man pages are made. Main thread only. */
#ifndef ASHLEY_CLI_CLI_H
#define ASHLEY_CLI_CLI_H

#include "base/buf.h"
#include "config/catalogue.h"
#include "config/options.h"
#include "config/persona.h"
#include "provider/provider.h"

/* Exit statuses, as documented for users. */
enum {
    ASH_EXIT_DONE = 0,
    ASH_EXIT_FAILED = 1,
    ASH_EXIT_USAGE = 2,
    ASH_EXIT_NO_ROOM = 3,
    ASH_EXIT_NOT_FOUND = 4,
    ASH_EXIT_NETWORK = 5,
    ASH_EXIT_BAD_INPUT = 6,
    ASH_EXIT_AUTH = 7,
    ASH_EXIT_TIMEOUT = 8,
};

typedef struct ash_cli_option {
    const char *name; /* "greedy" for --greedy; NULL ends a table */
    char letter;      /* 'p' for -p, 0 for none */
    const char *arg;  /* what follows, "N"; NULL for a switch */
    const char *help;
} ash_cli_option;

typedef struct ash_cli ash_cli;

typedef struct ash_cli_command {
    const char *name;
    const char *args;              /* "MODEL [PROMPT]" */
    const char *summary;           /* one line */
    const char *details;           /* paragraphs for --help, or NULL */
    const ash_cli_option *options; /* ends with name NULL; may be NULL */
    int min_args, max_args;        /* positional; max -1: any number */
    bool json;                     /* takes --json */
    int (*run)(ash_cli *cli);      /* returns an exit status */
} ash_cli_command;

enum { ASH_CLI_MAX_FLAGS = 64, ASH_CLI_MAX_ARGS = 256 };

struct ash_cli {
    const ash_cli_command *command;
    const char *args[ASH_CLI_MAX_ARGS];
    int n_args;
    struct {
        const ash_cli_option *option;
        const char *value;
    } given[ASH_CLI_MAX_FLAGS];
    int n_given;
    ash_config_flag flags[ASH_CLI_MAX_FLAGS]; /* configuration keys given as flags */
    size_t n_flags;
    const char *env_file;
    bool json, quiet, yes;
    const char *progress; /* auto plain json none */
    const char *color;    /* auto always never */
    ash_config *config;   /* after ash_cli_configure */
    ash_catalogue *catalogue;
};

extern const ash_cli_command ash_cli_commands[]; /* ends with name NULL */
const ash_cli_command *ash_cli_find(const char *name);

/* Parses argv after the command's name. 0, or an exit status >= 1 with the message printed; -1 when
 * --help was printed. */
int ash_cli_parse(ash_cli *cli, int argc, char **argv);
/* The value of an option, NULL if not given ("" for a switch that was). */
const char *ash_cli_get(const ash_cli *cli, const char *name);
/* Whether keys and values are kept in 8 bits: as the preload entry says, else the catalogue's, else
 * ASHLEY_KV. Both entries may be NULL. */
bool ash_cli_kv_q8(const ash_cli *cli, const ash_catalogue_entry *entry, const ash_preload *preload);
/* A whole number option in [lo, hi]; *out stays as it is if not given. Prints and returns
 * ASH_EXIT_USAGE if it is wrong. */
int ash_cli_int(const ash_cli *cli, const char *name, long lo, long hi, long *out);
/* A comma list of whole numbers in [lo, hi] into out[max]; the count, or -1 with the message
 * printed. */
int ash_cli_ints(const char *what, const char *text, long lo, long hi, long *out, int max);

/* Reads configuration and catalogue; quiet notices. 0 or an exit status with the message printed.
 */
int ash_cli_configure(ash_cli *cli);
void ash_cli_release(ash_cli *cli);
/* The time budgets of a request that asks for none. */
ash_budgets ash_cli_budgets(const ash_config *config);
/* Prints "ashley: MESSAGE" to standard error and returns the exit status of the error's code. */
int ash_cli_fail(const ash_err *err);
int ash_cli_usage(const char *fmt, ...) ASH_PRINTF(1, 2);
int ash_cli_exit_status(int code);

/* The checkpoint file of what the user called MODEL, as in the catalogue or a path. *path is the
 * caller's (free); *entry (may be NULL) is the catalogue's. 0 or an exit status, message printed.
 */
int ash_cli_locate(ash_cli *cli, const char *model, char **path, const ash_catalogue_entry **entry);
/* Where MODEL is, for commands that look at what is there: also if only a part of it is (place->path
 * NULL, place->partial not), and without consent. Release place. 0 or an exit status, message printed. */
int ash_cli_place(ash_cli *cli, const char *model, ash_catalogue_place *place,
                  const ash_catalogue_entry **entry);
/* What a running server, where the configuration or --url has one, does with a model of that id or
 * repository (may be NULL): *use is constant text for people, NULL if nothing, or no server runs. 0, or an
 * exit status with the message printed. */
int ash_cli_server_uses(ash_cli *cli, const char *id, const char *repo, const char **use);
/* Asks a yes-or-no question on the terminal; false without one, or with --quiet. */
bool ash_cli_ask(const ash_cli *cli, const char *question);
/* Prints v, which is taken; NULL is out of memory. Returns an exit status. */
int ash_cli_print_json(json_t *v);
/* All of standard input, or of `file`, into out (initialised here). */
int ash_cli_read(const char *file, size_t max, ash_buf *out);

/* Help and completion, made from the tables. */
void ash_cli_help(const ash_cli_command *c);
void ash_cli_help_all(void);

int ash_cmd_serve(ash_cli *cli);
int ash_cmd_run(ash_cli *cli);
int ash_cmd_chat(ash_cli *cli);
int ash_cmd_plan(ash_cli *cli);
int ash_cmd_list(ash_cli *cli);
int ash_cmd_rm(ash_cli *cli);
int ash_cmd_show(ash_cli *cli);
int ash_cmd_verify(ash_cli *cli);
int ash_cmd_pull(ash_cli *cli);
int ash_cmd_ps(ash_cli *cli);
int ash_cmd_load(ash_cli *cli);
int ash_cmd_unload(ash_cli *cli);
int ash_cmd_doctor(ash_cli *cli);
int ash_cmd_version(ash_cli *cli);
int ash_cmd_tokenize(ash_cli *cli);
int ash_cmd_detokenize(ash_cli *cli);
int ash_cmd_render(ash_cli *cli);
int ash_cmd_eval(ash_cli *cli);
int ash_cmd_perplexity(ash_cli *cli);
int ash_cmd_bench(ash_cli *cli);
int ash_cmd_completion(ash_cli *cli);
int ash_cmd_man(ash_cli *cli);

#endif
