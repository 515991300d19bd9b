/* Which files of a repository a model needs: one format, all shards, the side files that are read,
 * no copies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lists.h"

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The choice as "a b c"; on failure the error's message. */
static int choose(const char *const *names, const ash_hub_want *want, char out[1000])
{
    ash_hub_tree *t = lists_make(names);
    ash_hub_plan *p;
    ash_err err = ASH_ERR_INIT;
    int rc = ash_hub_choose(t, want, &p, &err);
    out[0] = 0;
    size_t used = 0;
    for (size_t i = 0; !rc && i < p->n_files; i++)
        used += (size_t)snprintf(out + used, 1000 - used, "%s%s", i ? " " : "", p->files[i]->path);
    if (!rc && p->weights) snprintf(out + used, 1000 - used, " > %s", p->weights);
    if (rc)
        snprintf(out, 1000, "%s", err.msg);
    else
        ash_hub_plan_close(p);
    ash_hub_tree_close(t);
    return rc;
}

static void chosen(const char *const *names, ash_hub_want want, const char *expected)
{
    char got[1000];
    int rc = choose(names, &want, got);
    assert_string_equal(got, expected);
    assert_int_equal(rc, 0);
}

static void refused(const char *const *names, ash_hub_want want, int code, const char *word)
{
    char got[1000];
    assert_int_equal(choose(names, &want, got), code);
    if (!strstr(got, word)) fail_msg("'%s' is not in '%s'", word, got);
}

static void folders(void **state)
{
    const char *const *whole =
        NAMES("README.md", "config.json", "tokenizer.json", "model.safetensors*",
              "pytorch_model.bin*", "flax_model.msgpack*", "original/consolidated.00.pth*",
              "original/params.json", "onnx/model.onnx*", "model.Q4_K_M.gguf*");
    chosen(whole, (ash_hub_want){0}, "config.json tokenizer.json model.safetensors");
    chosen(whole, (ash_hub_want){.format = "gptq"}, "config.json tokenizer.json model.safetensors");
    chosen(whole, (ash_hub_want){.format = "pytorch"},
           "config.json tokenizer.json pytorch_model.bin");
    chosen(whole, (ash_hub_want){.format = "gguf"}, "model.Q4_K_M.gguf > model.Q4_K_M.gguf");
    chosen(NAMES("config.json", "a.bin*", "training_args.bin", "optimizer.pt*"), (ash_hub_want){0},
           "config.json a.bin");
    chosen(NAMES("gptq_model-4bit-128g.safetensors*", "other.safetensors*", "quantize_config.json"),
           (ash_hub_want){0}, "quantize_config.json gptq_model-4bit-128g.safetensors");
    refused(NAMES("a.safetensors*", "b.safetensors*"), (ash_hub_want){0}, ASH_ENOENT, "several");
    refused(NAMES("README.md"), (ash_hub_want){0}, ASH_ENOENT, "no GGUF");
    refused(NAMES("a.gguf*"), (ash_hub_want){.format = "safetensors"}, ASH_ENOENT, "it has GGUF");
}

static void shards(void **state)
{
    chosen(NAMES("model.safetensors.index.json", "model-00001-of-000002.safetensors*",
                 "model-00002-of-000002.safetensors*", "consolidated.safetensors*",
                 "model-00001-of-00002.bin*"),
           (ash_hub_want){0},
           "model.safetensors.index.json model-00001-of-000002.safetensors "
           "model-00002-of-000002.safetensors");
    refused(NAMES("model.safetensors.index.json", "model-00001-of-00003.safetensors*",
                  "model-00003-of-00003.safetensors*"),
            (ash_hub_want){0}, ASH_EFORMAT, "2 of the 3 parts");
    refused(NAMES("model.safetensors.index.json"), (ash_hub_want){0}, ASH_EFORMAT,
            "none of its files");
    chosen(NAMES("pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin*"),
           (ash_hub_want){0}, "pytorch_model.bin.index.json pytorch_model-00001-of-00001.bin");
}

static void ggufs(void **state)
{
    const char *const *many = NAMES("m.Q4_K_M.gguf*", "m.Q4_K_S.gguf*", "m.Q4_0.gguf*",
                                    "m-mmproj-f16.gguf*", "BF16/m-BF16-00001-of-00002.gguf*",
                                    "BF16/m-BF16-00002-of-00002.gguf*", "config.json");
    chosen(many, (ash_hub_want){0}, "m.Q4_K_M.gguf > m.Q4_K_M.gguf");
    chosen(many, (ash_hub_want){.quant = "q4_0"}, "m.Q4_0.gguf > m.Q4_0.gguf");
    chosen(many, (ash_hub_want){.quant = "BF16"},
           "BF16/m-BF16-00001-of-00002.gguf BF16/m-BF16-00002-of-00002.gguf > "
           "BF16/m-BF16-00001-of-00002.gguf");
    refused(many, (ash_hub_want){.quant = "Q4_K"}, ASH_ENOENT, "it has: BF16/");
    refused(many, (ash_hub_want){.quant = "F16"}, ASH_ENOENT, "no GGUF file for 'F16'");
    chosen(many, (ash_hub_want){.format = "gguf", .files = NAMES("*q4_k_s.gguf"), .n_files = 1},
           "m.Q4_K_S.gguf > m.Q4_K_S.gguf");
    refused(many, (ash_hub_want){.format = "gguf", .files = NAMES("*Q4_K*.gguf"), .n_files = 1},
            ASH_ENOENT, "2 GGUF files");
    refused(NAMES("a.Q5_0.gguf*", "b.Q8_0.gguf*"), (ash_hub_want){0}, ASH_ENOENT,
            "a.Q5_0.gguf, b.Q8_0.gguf");
    refused(NAMES("a-00001-of-00002.gguf*"), (ash_hub_want){0}, ASH_EFORMAT, "1 of the 2 parts");
    chosen(NAMES("only.gguf*"), (ash_hub_want){0}, "only.gguf > only.gguf");
}

static void patterns(void **state)
{
    ash_hub_want w = {.format = "gptq",
                      .files = NAMES("model.safetensors", "*.json", "tokenizer.model"),
                      .n_files = 3};
    chosen(NAMES("README.md", "config.json", "onnx/config.json", "model.safetensors*",
                 "other.safetensors*"),
           w, "config.json model.safetensors");
    refused(NAMES("config.json", "other.safetensors*"), w, ASH_ENOENT, "that the catalogue's");
    ash_hub_want deep = {.files = NAMES("sub/*"), .n_files = 1};
    chosen(NAMES("a.safetensors*", "sub/a.safetensors*"), deep, "sub/a.safetensors");
}

static void pins(void **state)
{
    static const char other[] = "ff23456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    ash_hub_pin good = {"model.*", LISTS_SHA256}, bad = {"model.safetensors", other},
                small = {"config.json", other};
    const char *const *names = NAMES("config.json", "model.safetensors*");
    chosen(names, (ash_hub_want){.pins = &good, .n_pins = 1}, "config.json model.safetensors");
    refused(names, (ash_hub_want){.pins = &bad, .n_pins = 1}, ASH_EFORMAT, "ff23");
    ash_hub_tree *t = lists_make(names);
    ash_hub_plan *p;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_hub_choose(t, &(ash_hub_want){.pins = &small, .n_pins = 1}, &p, &err), 0);
    assert_ptr_equal(p->pins[0], other); /* of a small file only its content tells */
    assert_null(p->pins[1]);
    ash_hub_plan_close(p);
    ash_hub_tree_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders),  cmocka_unit_test(shards), cmocka_unit_test(ggufs),
        cmocka_unit_test(patterns), cmocka_unit_test(pins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
