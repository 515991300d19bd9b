/* Owns the choice of the files that a model needs from a repository's list. Refuses a choice
 * between several GGUF files that nobody made, sets with parts missing, and pins that the hub's
 * hashes contradict. Pure. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hub/hub_private.h"

#define SMALL (16u << 20)
enum { NAMED = 400 }; /* bytes of candidates in a message */

typedef struct choice {
    ash_hub_plan plan; /* first: what callers hold */
    const ash_hub_want *want;
    bool *taken; /* of the tree's files */
} choice;

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcasecmp(s + n - m, end);
}

static bool in_root(const char *path)
{
    return !strchr(path, '/');
}

static bool digits(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] < '0' || p[i] > '9') return false;
    return n > 0;
}

/* STEM-00001-of-00003.gguf: the stem's length, part and parts; 0 if the name is of no split file.
 * Five digits or six (DeepSeek's safetensors have six after "of"). */
static size_t split_name(const char *path, const char *end, unsigned *part, unsigned *parts)
{
    size_t n = strlen(path), e = strlen(end);
    if (!ends_with(path, end)) return 0;
    n -= e;
    for (size_t width = 5; width <= 6; width++) {
        size_t tail = 1 + 5 + 4 + width; /* -NNNNN-of-MMMMM */
        if (n <= tail) return 0;
        const char *p = path + n - tail;
        if (p[0] == '-' && digits(p + 1, 5) && !memcmp(p + 6, "-of-", 4) && digits(p + 10, width)) {
            *part = (unsigned)strtoul(p + 1, NULL, 10);
            *parts = (unsigned)strtoul(p + 10, NULL, 10);
            return n - tail;
        }
    }
    return 0;
}

static int no_weights(const choice *c, const char *what, ash_err *err)
{
    const ash_hub_tree *t = c->plan.tree;
    bool gguf = false, safetensors = false, torch = false;
    for (size_t i = 0; i < t->n_files; i++) {
        gguf |= ends_with(t->files[i].path, ".gguf");
        safetensors |= ends_with(t->files[i].path, ".safetensors");
        torch |= ends_with(t->files[i].path, ".bin") || ends_with(t->files[i].path, ".pth");
    }
    bool any = gguf || safetensors || torch;
    return ash_err_set(err, ASH_ENOENT, "'%s' has no %s%s%s%s%s%s", t->repo, what,
                       any ? "; it has" : "", gguf ? " GGUF" : "",
                       safetensors ? " safetensors" : "", torch ? " PyTorch" : "",
                       t->whole ? "" : " (in the cache; the hub was not asked)");
}

/* All parts of one split set, or the one file. */
static int take_set(choice *c, size_t first, const char *end, ash_err *err)
{
    const ash_hub_tree *t = c->plan.tree;
    unsigned part, parts = 1, p, n, found = 0;
    size_t stem = split_name(t->files[first].path, end, &part, &parts);
    if (!stem) {
        c->taken[first] = true;
        return 0;
    }
    for (size_t i = 0; i < t->n_files; i++) {
        const char *path = t->files[i].path;
        if (split_name(path, end, &p, &n) != stem || n != parts ||
            memcmp(path, t->files[first].path, stem))
            continue;
        c->taken[i] = true;
        found++;
    }
    if (found == parts) return 0;
    return ash_err_set(err, ASH_EFORMAT, "'%s' has %u of the %u parts of '%.200s'%s", t->repo,
                       found, parts, t->files[first].path, t->whole ? "" : " in the cache");
}

/* ---- GGUF ---- */

/* Whether a name has the quantisation as a word of its own: Q4_K is no part of Q4_K_M. */
static bool has_quant(const char *path, const char *quant)
{
    size_t n = strlen(quant);
    for (const char *p = path; (p = strcasestr(p, quant)); p++) {
        char before = p == path ? '-' : p[-1], after = p[n];
        if (strchr("-._/", before) && strchr("-./", after)) return true; /* after: '\0' too */
    }
    return false;
}

static bool matches(const ash_hub_want *w, const char *path)
{
    for (size_t i = 0; i < w->n_files; i++)
        if (!fnmatch(w->files[i], path, FNM_CASEFOLD) &&
            (in_root(path) || strchr(w->files[i], '/') || ends_with(path, ".gguf")))
            return true;
    return !w->n_files;
}

static bool is_gguf(const char *path)
{
    return ends_with(path, ".gguf") && !strcasestr(path, "mmproj") && !strcasestr(path, "imatrix");
}

/* Whether file i is the first part of a set (or a set of its own). */
static bool first_part(const ash_hub_tree *t, size_t i)
{
    unsigned part, parts;
    return !split_name(t->files[i].path, ".gguf", &part, &parts) || part == 1;
}

/* The sets that `quant` (may be NULL) and the patterns mean: their number, the first one, all
 * names. */
static size_t count_sets(const choice *c, const char *quant, size_t *first, char names[NAMED])
{
    const ash_hub_tree *t = c->plan.tree;
    size_t n = 0, used = 0;
    names[0] = 0;
    for (size_t i = 0; i < t->n_files; i++) {
        const char *path = t->files[i].path;
        if (!is_gguf(path) || !matches(c->want, path) || (quant && !has_quant(path, quant)) ||
            !first_part(t, i))
            continue;
        if (!n++) *first = i;
        size_t need = strlen(path) + 3;
        if (used + need < NAMED - 5)
            used += (size_t)snprintf(names + used, NAMED - used, "%s%s", used ? ", " : "", path);
        else if (used < NAMED - 5)
            memcpy(names + used, ", ...", 6), used = NAMED;
    }
    return n;
}

static int choose_gguf(choice *c, ash_err *err)
{
    char names[NAMED], all[NAMED];
    size_t first = 0, n = count_sets(c, c->want->quant, &first, names);
    const ash_hub_tree *t = c->plan.tree;
    if (n > 1 && !c->want->quant && !c->want->n_files) {
        size_t usual = 0;
        if (count_sets(c, "Q4_K_M", &usual, all) == 1) first = usual, n = 1;
    }
    if (n > 1)
        return ash_err_set(err, ASH_ENOENT,
                           "%zu GGUF files of '%s' could be meant, name one as %s:QUANT: %.250s", n,
                           t->repo, t->repo, names);
    if (!n) {
        ash_hub_want any = {0};
        choice open = {.plan = c->plan, .want = &any};
        if (!count_sets(&open, NULL, &first, all)) return no_weights(c, "GGUF file", err);
        return ash_err_set(err, ASH_ENOENT, "'%s' has no GGUF file for '%.60s'; it has: %.300s",
                           t->repo,
                           c->want->quant     ? c->want->quant
                           : c->want->n_files ? c->want->files[0]
                                              : "",
                           all);
    }
    c->plan.weights = t->files[first].path;
    return take_set(c, first, ".gguf", err);
}

/* ---- folders of safetensors or PyTorch files ---- */

static bool training_state(const char *name)
{
    static const char *const names[] = {"training_args.bin", "optimizer.*", "scheduler.*",
                                        "scaler.pt",         "rng_state*",  "trainer_state*"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!fnmatch(names[i], name, FNM_CASEFOLD)) return true;
    return false;
}

/* The only file of the root that matches one of the patterns: its index, or SIZE_MAX with *several.
 */
static size_t only(const ash_hub_tree *t, const char *const *patterns, bool *several)
{
    size_t found = SIZE_MAX;
    *several = false;
    for (size_t i = 0; i < t->n_files; i++) {
        const char *path = t->files[i].path;
        bool yes = false;
        for (size_t k = 0; patterns[k]; k++) yes |= !fnmatch(patterns[k], path, FNM_CASEFOLD);
        if (!yes || !in_root(path) || training_state(path)) continue;
        if (found != SIZE_MAX) *several = true;
        found = i;
    }
    return *several ? SIZE_MAX : found;
}

/* The shards of NAME.safetensors.index.json: those named after it; if there are none, all files of
 * the kind. */
static int take_shards(choice *c, size_t index, const char *end, ash_err *err)
{
    const ash_hub_tree *t = c->plan.tree;
    const char *path = t->files[index].path;
    size_t stem = strlen(path) - strlen(end) - strlen(".index.json"), taken = 0;
    unsigned part, parts;
    c->taken[index] = true;
    for (size_t i = 0; i < t->n_files; i++)
        if (in_root(t->files[i].path) && split_name(t->files[i].path, end, &part, &parts) == stem &&
            !memcmp(t->files[i].path, path, stem))
            return take_set(c, i, end, err);
    for (size_t i = 0; i < t->n_files; i++)
        if (in_root(t->files[i].path) && ends_with(t->files[i].path, end) &&
            !training_state(t->files[i].path)) {
            c->taken[i] = true;
            taken++;
        }
    return taken ? 0
                 : ash_err_set(err, ASH_EFORMAT, "'%s' has '%.200s' but none of its files", t->repo,
                               path);
}

/* In the order of format/checkpoint.h. ASH_EAGAIN: there is none of this kind. */
static int choose_kind(choice *c, bool torch, ash_err *err)
{
    static const char *const steps[2][5][4] = {
        {{"model.safetensors.index.json"},
         {"model.safetensors"},
         {"*.safetensors.index.json"},
         {"gptq_model-*.safetensors"},
         {"*.safetensors"}},
        {{"pytorch_model.bin.index.json"},
         {"pytorch_model.bin"},
         {"*.bin.index.json"},
         {"*.bin", "*.pt", "*.pth"},
         {NULL}},
    };
    const char *end = torch ? ".bin" : ".safetensors";
    bool several = false;
    for (size_t s = 0; s < 5 && steps[torch][s][0]; s++) {
        size_t i = only(c->plan.tree, steps[torch][s], &several);
        if (several)
            return ash_err_set(err, ASH_ENOENT,
                               "several files of '%s' could be meant ('%s'): name them in the "
                               "catalogue's \"files\"",
                               c->plan.tree->repo, steps[torch][s][0]);
        if (i == SIZE_MAX) continue;
        if (ends_with(c->plan.tree->files[i].path, ".index.json"))
            return take_shards(c, i, end, err);
        c->taken[i] = true;
        return 0;
    }
    return ASH_EAGAIN;
}

/* Configuration, tokenizer and template: what format and text read. */
static void take_side_files(choice *c)
{
    static const char *const names[] = {"config.json",          "generation_config.json",
                                        "quantize_config.json", "quant_config.json",
                                        "tokenizer.json",       "tokenizer_config.json",
                                        "tokenizer.model",      "special_tokens_map.json",
                                        "added_tokens.json",    "vocab.json",
                                        "merges.txt",           "chat_template.jinja",
                                        "chat_template.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const ash_hub_file *f = ash_hub_tree_find(c->plan.tree, names[i]);
        if (f) c->taken[f - c->plan.tree->files] = true;
    }
}

/* The patterns' files; of sub-folders only where a pattern names one. */
static int take_patterns(choice *c, ash_err *err)
{
    const ash_hub_tree *t = c->plan.tree;
    bool gguf = false, weights = false;
    for (size_t i = 0; i < t->n_files; i++) {
        const char *path = t->files[i].path;
        if (!matches(c->want, path)) continue;
        if (is_gguf(path))
            gguf = true;
        else
            c->taken[i] = true;
        weights |= ends_with(path, ".safetensors") || ends_with(path, ".bin") ||
                   ends_with(path, ".pt") || ends_with(path, ".pth");
    }
    if (gguf && !weights) return choose_gguf(c, err);
    return weights ? 0 : no_weights(c, "weights that the catalogue's \"files\" name", err);
}

static int choose_files(choice *c, ash_err *err)
{
    const ash_hub_want *w = c->want;
    const char *format = w->format ? w->format : "auto";
    bool every = !strcmp(format, "auto");
    int rc = ASH_EAGAIN;
    if (w->quant || !strcmp(format, "gguf")) return choose_gguf(c, err);
    if (w->n_files) return take_patterns(c, err);
    if (strcmp(format, "pytorch")) rc = choose_kind(c, false, err);
    if (rc == ASH_EAGAIN && (every || !strcmp(format, "pytorch"))) rc = choose_kind(c, true, err);
    if (!rc) take_side_files(c);
    if (rc != ASH_EAGAIN) return rc;
    return every ? choose_gguf(c, err) : no_weights(c, format, err);
}

/* ---- the plan ---- */

static int small_first(const void *a, const void *b)
{
    const ash_hub_file *x = *(const ash_hub_file *const *)a, *y = *(const ash_hub_file *const *)b;
    bool large_x = x->size > SMALL, large_y = y->size > SMALL;
    return large_x != large_y ? large_x - large_y : strcmp(x->path, y->path);
}

static int pin(choice *c, size_t i, ash_err *err)
{
    const ash_hub_file *f = c->plan.files[i];
    const char *slash = strrchr(f->path, '/'), *name = slash ? slash + 1 : f->path;
    for (size_t k = 0; k < c->want->n_pins; k++) {
        const ash_hub_pin *p = &c->want->pins[k];
        if (fnmatch(p->file, f->path, 0) && fnmatch(p->file, name, 0)) continue;
        c->plan.pins[i] = p->sha256;
        if (f->sha256 && strcmp(f->sha256, p->sha256))
            return ash_err_set(
                err, ASH_EFORMAT,
                "'%.150s' of '%s': the catalogue's SHA-256 is %.64s, the hub announces %.64s: not "
                "fetched",
                f->path, c->plan.tree->repo, p->sha256, f->sha256);
    }
    return 0;
}

int ash_hub_choose(const ash_hub_tree *t, const ash_hub_want *want, ash_hub_plan **out,
                   ash_err *err)
{
    choice *c = calloc(1, sizeof *c);
    size_t cells = t->n_files + 1;
    *out = NULL;
    if (!c) return ash_err_nomem(err, "a choice of files");
    c->want = want;
    c->plan.tree = t;
    c->taken = calloc(cells, sizeof *c->taken);
    c->plan.files = calloc(cells, sizeof *c->plan.files);
    c->plan.pins = calloc(cells, sizeof *c->plan.pins);
    int rc = c->taken && c->plan.files && c->plan.pins ? choose_files(c, err)
                                                       : ash_err_nomem(err, "a choice of files");
    for (size_t i = 0; !rc && i < t->n_files; i++)
        if (c->taken[i]) {
            c->plan.files[c->plan.n_files++] = &t->files[i];
            c->plan.bytes += t->files[i].size; /* files and sizes have caps: no overflow */
        }
    if (!rc) qsort(c->plan.files, c->plan.n_files, sizeof *c->plan.files, small_first);
    for (size_t i = 0; !rc && i < c->plan.n_files; i++) rc = pin(c, i, err);
    free(c->taken);
    c->taken = NULL;
    if (rc)
        ash_hub_plan_close(&c->plan);
    else
        *out = &c->plan;
    return rc;
}

void ash_hub_plan_close(ash_hub_plan *p)
{
    if (!p) return;
    free(p->files);
    free(p->pins);
    free((choice *)p);
}
