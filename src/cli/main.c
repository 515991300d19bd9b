/* Owns the entry of the program and the table of commands.
 * Refuses unknown commands with exit status 2 and the nearest known one. */
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/nearest.h"
#include "cli/cli.h"

static const ash_cli_option run_options[] = {
    {"system", 0, "TEXT", "system prompt"},
    {"max-tokens", 'n', "N", "most tokens to answer with (default: to the end of the context)"},
    {"temperature", 't', "T", "0 is greedy (default 0.8)"},
    {"seed", 0, "N", "same seed, same text (default: random)"},
    {"stats", 0, NULL, "print tokens per second to standard error"},
    {0},
};
static const ash_cli_option tokenize_options[] = {
    {"file", 'f', "FILE", "read the text from FILE instead of standard input"},
    {"no-bos", 0, NULL, "add neither BOS nor EOS"},
    {"special", 0, NULL, "match special tokens in the text"},
    {0},
};
static const ash_cli_option render_options[] = {
    {"template", 0, "FILE", "the Jinja template, in place of MODEL"},
    {"context", 0, "FILE", "JSON object with messages, tools, add_generation_prompt, ..."},
    {0},
};
static const ash_cli_option eval_options[] = {
    {"ids", 0, "1,2,3", "the prompt as token ids"},
    {"all", 0, NULL, "logits of every position instead of the last one"},
    {"greedy", 0, "N", "the prompt's ids and N more, chosen greedily"},
    {0},
};
static const ash_cli_option perplexity_options[] = {
    {"ctx", 0, "N", "tokens of a window (default 512)"},
    {"all", 0, NULL, "what each token takes, too (with --json)"},
    {0},
};
static const ash_cli_option bench_options[] = {
    {"prefill", 'p', "N,N", "prompt lengths (default 128,512; 0 for none)"},
    {"decode", 'n', "N", "tokens to decode (default 64; 0 for none)"},
    {"sequences", 's', "N,N", "sequences decoded at once (default 1)"},
    {"repeat", 'r', "N", "runs of each test (default 5)"},
    {"synthetic", 0, "SHAPE:FORMAT",
     "random weights of a real shape in place of MODEL (mistral-7b:q4_0, ...:gptq-4b-128g)"},
    {"weights", 0, "SIZE", "memory for weights: of a larger mixture experts come and go"},
    {0},
};
static const ash_cli_option plan_options[] = {
    {"what-if", 0, "+ID,-ID", "the plan with models put in and taken out"},
    {0},
};
static const ash_cli_option list_options[] = {
    {"disk", 0, NULL, "what models, the hub cache and the state folder take of the disk, and what could go"},
    {0},
};
static const ash_cli_option doctor_options[] = {
    {"quick", 0, NULL, "measure nothing"},
    {"root", 0, "DIR", "look at DIR/proc and DIR/sys in place of this machine's"},
    {0},
};
static const ash_cli_option pull_options[] = {
    {"revision", 0, "REV", "branch, tag or commit (default: the catalogue's, else main)"},
    {"verify", 0, NULL, "hash what is here already, and fetch anew what is damaged"},
    {0},
};
static const ash_cli_option client_options[] = {
    {"url", 0, "URL", "the server (default: from ASHLEY_HOST and ASHLEY_PORT)"},
    {0},
};

#define MODEL_FORMS                                                                                \
    "MODEL is an id of the catalogue, a checkpoint's folder, a file (.gguf, .safetensors, .bin, "  \
    ".pt,\n"                                                                                       \
    ".pth, *.index.json), or an entry of the hub cache: org/repo, org/repo:QUANT for one of its "  \
    "GGUF\n"                                                                                       \
    "files, or models--ORG--NAME."

const ash_cli_command ash_cli_commands[] = {
    {"serve", "", "start the server: preload PRELOAD_MODELS, answer at once",
     "Configuration comes from .env, the environment and flags; see `ashley doctor`.", NULL, 0, 0,
     false, ash_cmd_serve},
    {"run", "MODEL PROMPT", "answer one prompt and exit", MODEL_FORMS, run_options, 2, 2, false,
     ash_cmd_run},
    {"chat", "[MODEL]", "chat in the terminal", "Type /help in the chat for its commands.",
     run_options, 0, 1, false, ash_cmd_chat},
    {"plan", "[MODEL...]", "what PRELOAD_MODELS will take of memory, disk and time, before anything moves",
     "Of the models named, else of PRELOAD_MODELS: bytes to fetch, disk after, memory while loading and "
     "then,\nwhat would be evicted, time, and a verdict. Headers are read, no weights. Exits with 3 if a "
     "model does\nnot fit, 4 if one is not to be had, 6 if one cannot be used, 7 if one waits for consent.",
     plan_options, 0, -1, true, ash_cmd_plan},
    {"list", "", "the models of the catalogue and whether they are on this machine", NULL,
     list_options, 0, 0, true, ash_cmd_list},
    {"rm", "MODEL", "take a model out of the hub cache, with its packed weights and kept prompts",
     "Of a repository with several GGUF files only the one that is named goes. Files elsewhere are "
     "left\nalone. A model that a running server has in memory, or that is being fetched, stays. "
     "Exits with 7\nwithout consent (a question on the terminal, or --yes).",
     client_options, 1, 1, true, ash_cmd_rm},
    {"show", "MODEL", "format, architecture, sizes, context, tokenizer and template of a model",
     MODEL_FORMS
     "\nOf a sharded checkpoint the configuration and the index are enough: it then tells which "
     "files\nare missing and exits with 4.",
     NULL, 1, 1, true, ash_cmd_show},
    {"verify", "MODEL",
     "check a model's files: structure, every number, hashes, tokenizer, template",
     MODEL_FORMS
     "\nHashes are those of the catalogue and of the hub cache. Reads all files once; exits with "
     "6 if\nanything is wrong.",
     NULL, 1, 1, true, ash_cmd_verify},
    {"pull", "MODEL", "fetch a model from the hub into its cache, or go on where it stopped",
     "MODEL is an id of the catalogue, or org/repo, or org/repo:QUANT for one of its GGUF files.\n"
     "Only the files that the model needs are fetched; their hashes are checked while they come. Prints\n"
     "where the model is. What is large is asked for on a terminal, or needs --yes.",
     pull_options, 1, 1, true, ash_cmd_pull},
    {"ps", "", "the models of a running server and their states", NULL, client_options, 0, 0, true,
     ash_cmd_ps},
    {"load", "MODEL", "have a running server load a model", NULL, client_options, 1, 1, true,
     ash_cmd_load},
    {"unload", "MODEL", "have a running server unload a model", NULL, client_options, 1, 1, true,
     ash_cmd_unload},
    {"doctor", "", "check this machine and the configuration, and tell what to change",
     "Processor, memory and disk with what they reach, limits of control groups, the hub cache, what each "
     "setting\ndoes, and for slow start, time-outs and too little memory what to change. Exits with 1 if "
     "something that is\nasked for will not work.",
     doctor_options, 0, 0, true, ash_cmd_doctor},
    {"tokenize", "MODEL", "text to token ids",
     "Reads standard input, prints a JSON array of ids. BOS and EOS are added as the model says.",
     tokenize_options, 1, 1, false, ash_cmd_tokenize},
    {"detokenize", "MODEL", "token ids to text", "Reads a JSON array of ids from standard input.",
     NULL, 1, 1, false, ash_cmd_detokenize},
    {"render", "[MODEL]", "render a chat template, byte for byte", NULL, render_options, 0, 1,
     false, ash_cmd_render},
    {"eval", "MODEL", "logits or greedy ids of a prompt of ids", MODEL_FORMS, eval_options, 1, 1,
     true, ash_cmd_eval},
    {"perplexity", "MODEL FILE", "perplexity of a text", NULL, perplexity_options, 2, 2, true,
     ash_cmd_perplexity},
    {"bench", "[MODEL]", "prefill and decode speed, and the fraction of the machine's limits", NULL,
     bench_options, 0, 1, true, ash_cmd_bench},
    {"completion", "bash|zsh|fish", "print a shell completion script", NULL, NULL, 1, 1, false,
     ash_cmd_completion},
    {"man", "", "print the manual page, as man(1) reads it", NULL, NULL, 0, 0, false, ash_cmd_man},
    {"version", "", "version, kernel set, libraries", NULL, NULL, 0, 0, true, ash_cmd_version},
    {0},
};

const ash_cli_command *ash_cli_find(const char *name)
{
    for (const ash_cli_command *c = ash_cli_commands; c->name; c++)
        if (!strcmp(c->name, name)) return c;
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[64];
    size_t n = 0;
    for (const ash_cli_command *c = ash_cli_commands; c->name; c++) names[n++] = c->name;
    const char *near = ash_nearest(name, names, n);
    return ash_cli_usage("no command '%s'%s%s%s; see `ashley --help`", name,
                         near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* Where a standard stream is missing the next file opened would take its place, the ledger for one, and then
 * what is printed. Reads find an end there, writes fail. */
static void fill_streams(void)
{
    int fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO) fd = open("/dev/null", O_RDONLY);
    if (fd >= 0) close(fd);
}

int main(int argc, char **argv)
{
    fill_streams();
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file limit is an error of write, like a full disk */
    if (argc < 2) {
        ash_cli_help_all();
        return ASH_EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        const ash_cli_command *c = argc > 2 ? ash_cli_find(argv[2]) : NULL;
        if (c)
            ash_cli_help(c);
        else
            ash_cli_help_all();
        return argc > 2 && !c ? unknown_command(argv[2]) : ASH_EXIT_DONE;
    }
    const char *name = !strcmp(argv[1], "--version") ? "version" : argv[1];
    const ash_cli_command *c = ash_cli_find(name);
    if (!c) return unknown_command(name);
    ash_cli cli = {.command = c, .progress = "auto", .color = "auto"};
    int status = ash_cli_parse(&cli, argc - 2, argv + 2);
    if (status == 0) status = c->run(&cli);
    ash_cli_release(&cli);
    if (fflush(stdout) != 0 && status == 0) status = ASH_EXIT_FAILED;
    return status < 0 ? ASH_EXIT_DONE : status;
}
