/* Owns reading the command line and making --help, shell completion and the manual page from the same tables.
 * Refuses unknown options, missing and superfluous arguments with exit status 2. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/nearest.h"
#include "cli/cli.h"
#include "cli/term.h"

/* Options that every command takes. */
static const ash_cli_option common[] = {
    {"env-file", 0, "FILE", "read FILE instead of ./.env"},
    {"quiet", 'q', NULL, "no progress, no notices"},
    {"yes", 'y', NULL, "consent to what would be asked"},
    {"progress", 0, "HOW", "auto, plain, json or none"},
    {"color", 0, "WHEN", "auto, always or never"},
    {"help", 'h', NULL, "this text"},
    {0},
};
static const ash_cli_option json_option = {"json", 0, NULL, "print JSON"};

int ash_cli_usage(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("ashley: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return ASH_EXIT_USAGE;
}

static const ash_cli_option *in_table(const ash_cli_option *t, const char *name, size_t n,
                                      char letter)
{
    for (; t && t->name; t++)
        if (letter ? t->letter == letter : strlen(t->name) == n && !memcmp(t->name, name, n))
            return t;
    return NULL;
}

static const ash_key_info *config_flag(const char *name, size_t n)
{
    size_t n_keys;
    const ash_key_info *keys = ash_config_keys(&n_keys);
    for (size_t i = 0; i < n_keys; i++)
        if (keys[i].flag && strlen(keys[i].flag) == n && !memcmp(keys[i].flag, name, n))
            return &keys[i];
    return NULL;
}

static int unknown_option(const ash_cli *cli, const char *arg)
{
    const char *names[256];
    size_t n = 0, n_keys;
    for (const ash_cli_option *o = cli->command->options; o && o->name; o++) names[n++] = o->name;
    for (const ash_cli_option *o = common; o->name; o++) names[n++] = o->name;
    const ash_key_info *keys = ash_config_keys(&n_keys);
    for (size_t i = 0; i < n_keys && n < 256; i++)
        if (keys[i].flag) names[n++] = keys[i].flag;
    char word[128];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(arg + strspn(arg, "-"), "="),
             arg + strspn(arg, "-"));
    const char *near = ash_nearest(word, names, n);
    return ash_cli_usage("%s takes no option '%s'%s%s%s; see `ashley %s --help`",
                         cli->command->name, arg, near ? "; did you mean '--" : "",
                         near ? near : "", near ? "'?" : "", cli->command->name);
}

/* Puts a recognised option where it belongs. */
static int take(ash_cli *cli, const ash_cli_option *o, const char *value)
{
    if (in_table(common, o->name, strlen(o->name), 0) == o || o == &json_option) {
        if (!strcmp(o->name, "help")) {
            ash_cli_help(cli->command);
            return -1;
        }
        if (!strcmp(o->name, "env-file"))
            cli->env_file = value;
        else if (!strcmp(o->name, "progress"))
            cli->progress = value;
        else if (!strcmp(o->name, "color"))
            cli->color = value;
        cli->quiet |= !strcmp(o->name, "quiet");
        cli->yes |= !strcmp(o->name, "yes");
        cli->json |= !strcmp(o->name, "json");
        return 0;
    }
    if (cli->n_given == ASH_CLI_MAX_FLAGS)
        return ash_cli_usage("more than %d options", ASH_CLI_MAX_FLAGS);
    cli->given[cli->n_given].option = o;
    cli->given[cli->n_given++].value = value ? value : "";
    return 0;
}

static int take_config(ash_cli *cli, const ash_key_info *key, const char *value, const char *shown)
{
    if (cli->n_flags == ASH_CLI_MAX_FLAGS)
        return ash_cli_usage("more than %d options", ASH_CLI_MAX_FLAGS);
    cli->flags[cli->n_flags++] = (ash_config_flag){key->key, value, shown};
    return 0;
}

/* One argument that starts with '-'; *i moves over the value it takes. */
static int parse_option(ash_cli *cli, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *value = NULL;
    const ash_cli_option *o;
    const ash_key_info *key = NULL;
    bool letter = arg[1] != '-';
    const char *name = letter ? arg + 1 : arg + 2;
    size_t n = strcspn(name, "=");
    if (letter) {
        o = in_table(cli->command->options, "", 0, arg[1]);
        o = o ? o : in_table(common, "", 0, arg[1]);
        value = o && arg[2] ? arg + 2 : NULL;
        if (o && !o->arg && arg[2]) o = NULL;
    } else {
        o = in_table(cli->command->options, name, n, 0);
        o = o ? o : in_table(common, name, n, 0);
        if (!o && cli->command->json && n == 4 && !memcmp(name, "json", 4)) o = &json_option;
        key = o ? NULL : config_flag(name, n);
        value = name[n] == '=' ? name + n + 1 : NULL;
    }
    if (!o && !key) return unknown_option(cli, arg);
    bool wants = key ? true : o->arg != NULL;
    if (wants && !value) {
        if (*i + 1 >= argc) return ash_cli_usage("%s needs a value", arg);
        value = argv[++*i];
    } else if (!wants && value) {
        return ash_cli_usage("--%s takes no value", o->name);
    }
    return key ? take_config(cli, key, value, arg) : take(cli, o, value);
}

static bool one_of(const char *word, const char *a, const char *b, const char *c, const char *d)
{
    return !strcmp(word, a) || !strcmp(word, b) || !strcmp(word, c) || !strcmp(word, d);
}

int ash_cli_parse(ash_cli *cli, int argc, char **argv)
{
    bool only_args = false;
    for (int i = 0; i < argc; i++) {
        if (!only_args && !strcmp(argv[i], "--")) {
            only_args = true;
        } else if (!only_args && argv[i][0] == '-' && argv[i][1]) {
            int status = parse_option(cli, argc, argv, &i);
            if (status) return status;
        } else if (cli->n_args == ASH_CLI_MAX_ARGS) {
            return ash_cli_usage("more than %d arguments", ASH_CLI_MAX_ARGS);
        } else {
            cli->args[cli->n_args++] = argv[i];
        }
    }
    const ash_cli_command *c = cli->command;
    if (cli->n_args < c->min_args || (c->max_args >= 0 && cli->n_args > c->max_args))
        return ash_cli_usage("usage: ashley %s%s%s [OPTIONS]", c->name, *c->args ? " " : "", c->args);
    if (!one_of(cli->progress, "auto", "plain", "json", "none"))
        return ash_cli_usage("--progress is auto, plain, json or none, not '%s'", cli->progress);
    if (!one_of(cli->color, "auto", "always", "never", "never"))
        return ash_cli_usage("--color is auto, always or never, not '%s'", cli->color);
    return 0;
}

const char *ash_cli_get(const ash_cli *cli, const char *name)
{
    for (int i = cli->n_given - 1; i >= 0; i--) /* the last one counts */
        if (!strcmp(cli->given[i].option->name, name)) return cli->given[i].value;
    return NULL;
}

int ash_cli_ints(const char *what, const char *text, long lo, long hi, long *out, int max)
{
    int n = 0;
    for (const char *p = text;; p++) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || v < lo || v > hi) {
            ash_cli_usage("%s: '%.40s' is no whole number from %ld to %ld", what, p, lo, hi);
            return -1;
        }
        if (n == max) {
            ash_cli_usage("%s: more than %d numbers", what, max);
            return -1;
        }
        out[n++] = v;
        p = end;
        if (!*p) return n;
    }
}

int ash_cli_int(const ash_cli *cli, const char *name, long lo, long hi, long *out)
{
    const char *text = ash_cli_get(cli, name);
    if (!text) return 0;
    char what[64];
    snprintf(what, sizeof what, "--%s", name);
    return ash_cli_ints(what, text, lo, hi, out, 1) == 1 ? 0 : ASH_EXIT_USAGE;
}

/* ---- help -------------------------------------------------------------------------------------
 */

/* Words between the margin and the terminal's right edge; elsewhere lines as they are, as tools want them. */
static void help_words(const char *text, int margin)
{
    int columns = ash_term_columns(STDOUT_FILENO), at = margin;
    if (columns < margin + 20) {
        printf("%s\n", text);
        return;
    }
    for (const char *word = text; *word;) {
        int n = (int)strcspn(word, " \n");
        if (at > margin && at + 1 + n >= columns) {
            printf("\n%*s", margin, "");
            at = margin;
        }
        at += printf("%s%.*s", at > margin ? " " : "", n, word);
        word += n + (word[n] != 0);
    }
    putchar('\n');
}

static void help_row(char letter, const char *name, const char *arg, const char *help)
{
    char left[64], shortly[8] = "    ";
    if (letter) snprintf(shortly, sizeof shortly, "-%c, ", letter);
    snprintf(left, sizeof left, "%s--%s%s%s", shortly, name, arg ? " " : "", arg ? arg : "");
    printf("  %-31s ", left);
    help_words(help, 34);
}

void ash_cli_help(const ash_cli_command *c)
{
    printf("ashley %s%s%s\n\n%s\n", c->name, *c->args ? " " : "", c->args, c->summary);
    if (c->details) {
        putchar('\n');
        help_words(c->details, 0);
    }
    printf("\nOptions:\n");
    for (const ash_cli_option *o = c->options; o && o->name; o++)
        help_row(o->letter, o->name, o->arg, o->help);
    if (c->json) help_row(0, json_option.name, NULL, json_option.help);
    for (const ash_cli_option *o = common; o->name; o++)
        help_row(o->letter, o->name, o->arg, o->help);
    putchar('\n');
    help_words("Configuration (also in .env and the environment, by the name in brackets):", 0);
    size_t n;
    const ash_key_info *keys = ash_config_keys(&n);
    for (size_t i = 0; i < n; i++) {
        if (!keys[i].flag) continue;
        char help[256];
        snprintf(help, sizeof help, "%s [%s%s%s]", keys[i].help, keys[i].key,
                 keys[i].initial ? "=" : "", keys[i].initial ? keys[i].initial : "");
        help_row(0, keys[i].flag, "VALUE", help);
    }
}

static const char exit_statuses[] =
    "0 done, 1 failed, 2 usage, 3 does not fit,\n"
    "4 not found, 5 network, 6 corrupt or refused input, 7 key or consent missing, 8 timed out.";

void ash_cli_help_all(void)
{
    printf("ashley %s: language models on your own machine, ready before the first chat request\n\n"
           "usage: ashley COMMAND [ARGUMENTS] [OPTIONS]\n\n",
           ASHLEY_VERSION);
    for (const ash_cli_command *c = ash_cli_commands; c->name; c++)
        printf("  %-11s ", c->name), help_words(c->summary, 14);
    printf("\n`ashley COMMAND --help` tells more. Exit statuses: %s\n", exit_statuses);
}

/* ---- completion -------------------------------------------------------------------------------
 */

static void print_flags(const ash_cli_command *c, const char *before, const char *between)
{
    size_t n;
    const ash_key_info *keys = ash_config_keys(&n);
    for (const ash_cli_option *o = c->options; o && o->name; o++)
        printf("%s%s%s", before, o->name, between);
    if (c->json) printf("%sjson%s", before, between);
    for (const ash_cli_option *o = common; o->name; o++) printf("%s%s%s", before, o->name, between);
    for (size_t i = 0; i < n; i++)
        if (keys[i].flag) printf("%s%s%s", before, keys[i].flag, between);
}

static void complete_bash(void)
{
    printf("_ashley() {\n    local cur=${COMP_WORDS[COMP_CWORD]} cmd=${COMP_WORDS[1]} words=\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then words='");
    for (const ash_cli_command *c = ash_cli_commands; c->name; c++) printf("%s ", c->name);
    printf("--help --version'\n    else\n        case $cmd in\n");
    for (const ash_cli_command *c = ash_cli_commands; c->name; c++) {
        printf("        %s) words='", c->name);
        print_flags(c, "--", " ");
        printf("' ;;\n");
    }
    printf("        esac\n    fi\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
           "complete -o default -F _ashley ashley\n");
}

static void complete_zsh(void)
{
    printf("#compdef ashley\nif (( CURRENT == 2 )); then\n  local -a commands=(\n");
    for (const ash_cli_command *c = ash_cli_commands; c->name; c++)
        printf("    \"%s:%s\"\n", c->name, c->summary);
    printf("  )\n  _describe command commands\nelse\n  case $words[2] in\n");
    for (const ash_cli_command *c = ash_cli_commands; c->name; c++) {
        printf("  %s) compadd -- ", c->name);
        print_flags(c, "--", " ");
        printf(";;\n");
    }
    printf("  esac\n  _files\nfi\n");
}

static void complete_fish(void)
{
    for (const ash_cli_command *c = ash_cli_commands; c->name; c++) {
        char before[128];
        printf("complete -c ashley -n __fish_use_subcommand -a %s -d \"%s\"\n", c->name,
               c->summary);
        snprintf(before, sizeof before,
                 "complete -c ashley -n \"__fish_seen_subcommand_from %s\" -l ", c->name);
        print_flags(c, before, "\n");
    }
}

int ash_cmd_completion(ash_cli *cli)
{
    const char *shell = cli->args[0];
    if (!strcmp(shell, "bash"))
        complete_bash();
    else if (!strcmp(shell, "zsh"))
        complete_zsh();
    else if (!strcmp(shell, "fish"))
        complete_fish();
    else
        return ash_cli_usage("completion for bash, zsh or fish, not '%s'", shell);
    return ASH_EXIT_DONE;
}

/* ---- the manual page ----------------------------------------------------------------------------
 */

/* Text for man(7): a backslash is written out, minus signs are ASCII's so that they can be copied, and a line
 * that begins like a request is none. Line breaks stay. */
static void man_text(const char *s)
{
    for (bool first = true; *s; s++) {
        if (first && (*s == '.' || *s == '\'')) fputs("\\&", stdout);
        first = *s == '\n';
        if (*s == '\\')
            fputs("\\e", stdout);
        else if (*s == '-')
            fputs("\\-", stdout);
        else
            putchar(*s);
    }
}

static void man_option(char letter, const char *name, const char *arg, const char *help)
{
    printf(".TP\n.B ");
    if (letter) printf("\\-%c, ", letter);
    fputs("\\-\\-", stdout);
    man_text(name);
    if (arg) putchar(' ');
    if (arg) man_text(arg);
    putchar('\n');
    man_text(help);
    putchar('\n');
}

static void man_options(const ash_cli_option *o)
{
    for (; o && o->name; o++) man_option(o->letter, o->name, o->arg, o->help);
}

static void man_command(const ash_cli_command *c)
{
    printf(".SS ashley ");
    man_text(c->name);
    if (*c->args) putchar(' ');
    man_text(c->args);
    putchar('\n');
    man_text(c->summary);
    printf(".\n");
    if (c->details) {
        printf(".PP\n");
        man_text(c->details);
        putchar('\n');
    }
    man_options(c->options);
    if (c->json) man_option(0, json_option.name, NULL, json_option.help);
}

int ash_cmd_man(ash_cli *cli)
{
    size_t n;
    const ash_key_info *keys = ash_config_keys(&n);
    printf(".TH ASHLEY 1 \"\" \"ashley %s\"\n.SH NAME\n"
           "ashley \\- language models on your own machine, ready before the first chat request\n"
           ".SH SYNOPSIS\n.B ashley\nCOMMAND [ARGUMENTS] [OPTIONS]\n.SH COMMANDS\n",
           ASHLEY_VERSION);
    for (const ash_cli_command *c = ash_cli_commands; c->name; c++) man_command(c);
    printf(".SH OPTIONS\nEvery command takes these, and the settings below as options.\n");
    man_options(common);
    printf(".SH CONFIGURATION\nBy these names in .env and the environment; options come first, then the "
           "environment.\n");
    for (size_t i = 0; i < n; i++) {
        printf(".TP\n.B %s", keys[i].key);
        if (keys[i].flag) printf(" (\\-\\-");
        if (keys[i].flag) man_text(keys[i].flag);
        printf("%s\n", keys[i].flag ? ")" : "");
        man_text(keys[i].help);
        if (keys[i].initial) printf(" [");
        if (keys[i].initial) man_text(keys[i].initial);
        printf("%s\n", keys[i].initial ? "]" : "");
    }
    printf(".SH EXIT STATUS\n");
    man_text(exit_statuses);
    putchar('\n');
    return ASH_EXIT_DONE;
}
