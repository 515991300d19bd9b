/* The catalogue: what entries give, which are quarantined and why, names that are none, and where
 * files are found or why not. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/limits.h"
#include "config/catalogue.h"

static char folder[] = "/tmp/ashley-catalogue-XXXXXX";

static int enter(void **state)
{
    return !mkdtemp(folder) || chdir(folder);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    return remove(path);
}

static int leave(void **state)
{
    return chdir("/") || nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *path, const char *text)
{
    char *dir = strdup(path);
    char *slash = strrchr(dir, '/');
    if (slash) {
        *slash = 0;
        assert_int_equal(ash_fs_mkdirs(dir, NULL), 0);
    }
    free(dir);
    ash_err err = ASH_ERR_INIT;
    if (ash_fs_replace(path, text, strlen(text), &err)) fail_msg("%s", err.msg);
}

static int try_open(const char *text, ash_catalogue **c, ash_err *err)
{
    put("c.json", text);
    return ash_catalogue_open(&(ash_catalogue_opts){.path = "c.json", .hub_dir = "hub"}, c, err);
}

static ash_catalogue *opened(const char *text)
{
    ash_catalogue *c;
    ash_err err = ASH_ERR_INIT;
    if (try_open(text, &c, &err)) fail_msg("%s", err.msg);
    return c;
}

static void a_whole_entry(void **state)
{
    put("t.jinja", "{{ messages }}");
    ash_catalogue *c =
        opened("{\"a\":{\"repo\":\"org/name-1.0\",\"revision\":\"x/"
               "y\",\"format\":\"gguf\",\"files\":[\"*Q4_0*\"],"
               "\"size\":\"small\",\"description\":\"d\",\"template\":\"@t.jinja\",\"context\":"
               "4096,\"memory\":\"5GB\","
               "\"disk\":123,\"warning\":\"w\",\"sha256\":{\"f\":\"00112233445566778899aabbccddeeff"
               "00112233445566778899aabbccddeeff\"},\"fallback\":\"on-not-ready\",\"draft\":\"b\","
               "\"queue_timeout\":\"1.5s\",\"load_timeout\":20,\"idle_timeout\":0,\"extra\":[1],"
               "\"keep_alive\":\"2m\"},\"b\":{}}");
    assert_int_equal(ash_catalogue_count(c), 2);
    const ash_catalogue_entry *e = ash_catalogue_find(c, "a");
    assert_null(e->bad);
    assert_string_equal(e->repo, "org/name-1.0");
    assert_string_equal(e->revision, "x/y");
    assert_string_equal(e->format, "gguf");
    assert_int_equal(e->n_files, 1);
    assert_string_equal(e->files[0], "*Q4_0*");
    assert_string_equal(e->size, "small");
    assert_string_equal(e->template_text, "{{ messages }}");
    assert_int_equal(e->context, 4096);
    assert_int_equal(e->memory, 5000000000);
    assert_int_equal(e->disk, 123);
    assert_string_equal(e->warning, "w");
    assert_string_equal(e->draft, "b");
    assert_int_equal(e->n_sha256, 1);
    assert_int_equal(e->fallback, ASH_FALLBACK_ON_NOT_READY);
    assert_int_equal(e->queue_ms, 1500);
    assert_int_equal(e->load_ms, 20000);
    assert_int_equal(e->first_token_ms, 0);
    assert_int_equal(e->idle_ms, -1);
    assert_true(e->has_keep_alive);
    assert_int_equal(e->keep_alive_ms, 120000);
    assert_non_null(json_object_get(e->json, "extra"));
    const ash_catalogue_entry *b = ash_catalogue_at(c, 1);
    assert_string_equal(b->id, "b");
    assert_false(b->has_keep_alive);
    assert_null(b->bad);
    assert_string_equal(b->format, "auto");
    assert_null(b->draft);
    assert_int_equal(b->fallback, ASH_FALLBACK_UNSET);
    assert_null(ash_catalogue_at(c, 2));
    ash_catalogue_close(c);
}

static void bad_files(void **state)
{
    static const struct {
        const char *text;
        int rc;
        const char *say;
    } t[] = {
        {"", ASH_EFORMAT, "c.json: JSON line 1 column 0"},
        {"{\n \"a\": {},\n \"b\": }", ASH_EFORMAT, "c.json: JSON line 3 column 7"},
        {"{} x", ASH_EFORMAT, "c.json: JSON line 1"},
        {"{\"a\":{},\"a\":{}}", ASH_EFORMAT, "duplicate"},
        {"[]", ASH_EFORMAT, "c.json: expected an object of ids at the top, not an array"},
    };
    ash_catalogue *c;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        ash_err err = ASH_ERR_INIT;
        int rc = try_open(t[i].text, &c, &err);
        if (rc != t[i].rc || c || !strstr(err.msg, t[i].say))
            fail_msg("%s: %d %s", t[i].text, rc, err.msg);
    }
    ash_err err = ASH_ERR_INIT;
    ash_catalogue_opts none = {.path = "none.json"};
    assert_int_equal(ash_catalogue_open(&none, &c, &err), ASH_ENOENT);
    assert_non_null(strstr(err.msg, "none.json"));
    none.optional = true;
    assert_int_equal(ash_catalogue_open(&none, &c, &err), 0);
    assert_int_equal(ash_catalogue_count(c), 0);
    ash_catalogue_close(c);

    ash_buf b;
    ash_buf_init(&b, 1 << 20);
    for (int i = 0; i <= ASH_MAX_CATALOGUE_ENTRIES; i++)
        ash_buf_printf(&b, "%c\"m%d\":{}", i ? ',' : '{', i);
    ash_buf_addc(&b, '}');
    assert_int_equal(try_open(b.data, &c, &err), ASH_ELIMIT);
    ash_buf_release(&b);
}

static void bad_entries(void **state)
{
    static const struct {
        const char *entry, *say;
    } t[] = {
        {"\"x\":1", "expected an object, not a number"},
        {"\"\":{}", "an id has 1 to"},
        {"\"a b\":{}", "an id has 1 to"},
        {"\"openai\":{}", "the id 'openai' is the upstream's"},
        {"\"x\":{\"repo\":\"name\"}", "'repo' is 'name'; expected org/name"},
        {"\"x\":{\"repo\":\"a/../b\"}", "'repo'"},
        {"\"x\":{\"repo\":\"../etc\"}", "'repo'"},
        {"\"x\":{\"repo\":\"a/b.git\"}", "'repo'"},
        {"\"x\":{\"repo\":7}", "'repo' must be a string, not a number"},
        {"\"x\":{\"revision\":\"../x\"}", "'revision' must be"},
        {"\"x\":{\"format\":\"zip\"}",
         "'format' is 'zip'; expected one of gptq, gguf, safetensors, pytorch, auto"},
        {"\"x\":{\"size\":\"huge\"}", "'size' is 'huge'"},
        {"\"x\":{\"fallback\":\"maybe\"}", "'fallback' is 'maybe'"},
        {"\"x\":{\"context\":0}", "'context' must be from 1"},
        {"\"x\":{\"context\":\"4k\"}", "'context' must be an integer"},
        {"\"x\":{\"memory\":\"much\"}", "'memory': expected a size"},
        {"\"x\":{\"disk\":-1}", "'disk' must be from 0"},
        {"\"x\":{\"load_timeout\":\"soon\"}", "'load_timeout': expected a time"},
        {"\"x\":{\"keep_alive\":\"long\"}", "'keep_alive': expected a time"},
        {"\"x\":{\"keep_alive\":-2}", "'keep_alive': expected a time"},
        {"\"x\":{\"idle_timeout\":-1}", "'idle_timeout' must be from 0"},
        {"\"x\":{\"queue_timeout\":true}", "'queue_timeout' must be an integer"},
        {"\"x\":{\"files\":\"f\"}", "'files' must be an array"},
        {"\"x\":{\"files\":[\"a\",\"../b\"]}", "'files[1]' must be a name or pattern"},
        {"\"x\":{\"files\":[\"/b\"]}", "'files[0]'"},
        {"\"x\":{\"files\":[\"a\\u0000b\"]}", "'files[0]'"},
        {"\"x\":{\"sha256\":{\"f\":\"12\"}}", "'sha256' of 'f' must be 64"},
        {"\"x\":{\"sha256\":[]}", "'sha256' must be an object"},
        {"\"x\":{\"template\":\"@/etc/passwd\"}", "'template': expected a file after @"},
        {"\"x\":{\"template\":\"@../out.jinja\"}", "'template': '../out.jinja' is outside"},
        {"\"x\":{\"template\":\"@link.jinja\"}", "'template': 'link.jinja' is outside"},
        {"\"x\":{\"template\":\"@none.jinja\"}", "none.jinja"},
        {"\"x\":{\"template\":\"@bad.jinja\"}", "is not UTF-8"},
        {"\"x\":{\"path\":\"\"}", "'path' is empty"},
        {"\"x\":{\"warning\":true}", "'warning' must be a string"},
    };
    put("bad.jinja", "\xFF");
    put("sub/c.json", "");
    put("out.jinja", "secret");
    assert_int_equal(symlink("../out.jinja", "sub/link.jinja"), 0);
    put("sub/bad.jinja", "\xFF");
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char text[512];
        ash_catalogue *c;
        ash_err err = ASH_ERR_INIT;
        snprintf(text, sizeof text, "{\"good\":{},%s,\"last\":{}}", t[i].entry);
        put("sub/c.json", text);
        if (ash_catalogue_open(&(ash_catalogue_opts){.path = "sub/c.json"}, &c, &err))
            fail_msg("%s: %s", t[i].entry, err.msg);
        assert_int_equal(ash_catalogue_count(c), 3);
        const ash_catalogue_entry *e = ash_catalogue_at(c, 1);
        if (!e->bad || !strstr(e->bad, t[i].say))
            fail_msg("%s: %s", t[i].entry, e->bad ? e->bad : "taken");
        assert_null(ash_catalogue_at(c, 0)->bad);
        assert_null(ash_catalogue_at(c, 2)->bad);
        ash_catalogue_place p;
        assert_int_equal(ash_catalogue_locate(c, e, true, &p, NULL), 0);
        assert_string_equal(p.code, "bad_entry");
        assert_null(p.path);
        ash_catalogue_close(c);
    }
}

/* Locates `id` (resolving it) and compares the path's end, or the code. */
static void expect_place(ash_catalogue *c, const char *id, bool consent, const char *path,
                         const char *code, const char *say)
{
    const ash_catalogue_entry *e;
    ash_catalogue_place p;
    ash_err err = ASH_ERR_INIT;
    if (ash_catalogue_resolve(c, id, &e, &err) || ash_catalogue_locate(c, e, consent, &p, &err))
        fail_msg("%s: %s", id, err.msg);
    size_t n = p.path ? strlen(p.path) : 0, m = path ? strlen(path) : 0;
    if (path && (n < m || strcmp(p.path + n - m, path)))
        fail_msg("%s: %s, %s: %s", id, p.path, p.code, p.reason);
    if (!path && (p.path || strcmp(p.code, code) || !strstr(p.reason, say) || !*p.hint))
        fail_msg("%s: %s, %s: %s", id, p.path, p.code, p.reason);
    ash_catalogue_place_release(&p);
}

static void places(void **state)
{
    put("models/flat.gguf", "GGUF....");
    put("models/in-folder/x-Q4_0.gguf", "GGUF");
    put("models/two/a.gguf", "GGUF");
    put("models/two/b.gguf", "GGUF");
    put("models/split/m-00001-of-00002.gguf", "GGUF");
    put("models/split/m-00002-of-00002.gguf", "GGUF");
    put("models/split/mmproj-m.gguf", "GGUF");
    put("models/fake.gguf", "no");
    put("models/weights/model.safetensors", "x");
    put("hub/models--org--hubbed/refs/main", "0123456789012345678901234567890123456789");
    put("hub/models--org--hubbed/blobs/abc", "GGUF");
    assert_int_equal(ash_fs_mkdirs("hub/models--org--hubbed/snapshots/"
                                   "0123456789012345678901234567890123456789/sub",
                                   NULL),
                     0);
    assert_int_equal(symlink("../../blobs/abc",
                             "hub/models--org--hubbed/snapshots/"
                             "0123456789012345678901234567890123456789/h.Q4_0.gguf"),
                     0);
    assert_int_equal(symlink("../../../blobs/abc",
                             "hub/models--org--hubbed/snapshots/"
                             "0123456789012345678901234567890123456789/sub/h.Q8_0.gguf"),
                     0);
    ash_catalogue *c = opened(
        "{\"by-path\":{\"path\":\"models/flat.gguf\"},\"gone\":{\"path\":\"models/gone.gguf\"},"
        "\"named\":{\"files\":[\"flat.gguf\"]},\"in-folder\":{},\"two\":{},\"split\":{},"
        "\"fake\":{\"path\":\"models/fake.gguf\"},\"weights\":{},\"absent\":{},"
        "\"wild\":{\"files\":[\"*.gguf\"]},\"gptq\":{\"format\":\"gptq\",\"repo\":\"a/b\"},"
        "\"big\":{\"format\":\"safetensors\",\"warning\":\"It is big.\"},"
        "\"cached\":{\"repo\":\"org/hubbed\",\"files\":[\"*Q4_0*\"]},"
        "\"pinned\":{\"repo\":\"org/hubbed\",\"files\":[\"*Q8*\"],"
        "\"revision\":\"0123456789012345678901234567890123456789\"}}");
    expect_place(c, "by-path", false, "models/flat.gguf", NULL, NULL);
    expect_place(c, "gone", false, NULL, "not_downloaded", "no file './models/gone.gguf'");
    expect_place(c, "named", false, "models/flat.gguf", NULL, NULL);
    expect_place(c, "in-folder", false, "models/in-folder/x-Q4_0.gguf", NULL, NULL);
    expect_place(c, "two", false, NULL, "unsupported_format", "2 files could be meant: ");
    expect_place(c, "split", false, "m-00001-of-00002.gguf", NULL, NULL);
    expect_place(c, "fake", false, NULL, "unsupported_format", "is not a GGUF file");
    expect_place(c, "weights", false, NULL, "not_downloaded",
                 "1 of 2 files are missing, the first is config.json");
    expect_place(c, "absent", false, NULL, "not_downloaded", "not downloaded");
    expect_place(c, "wild", false, NULL, "not_downloaded", "not downloaded");
    expect_place(c, "gptq", false, NULL, "not_downloaded", "repository 'a/b' is not on this");
    expect_place(c, "big", false, NULL, "consent_needed", "It is big. This machine has ");
    expect_place(c, "big", true, NULL, "not_downloaded", "repository is not known");
    expect_place(c, "cached", false, "/h.Q4_0.gguf", NULL, NULL);
    expect_place(c, "pinned", false, "/sub/h.Q8_0.gguf", NULL, NULL);
    expect_place(c, "org/hubbed:Q8_0", false, "/sub/h.Q8_0.gguf", NULL, NULL);
    expect_place(c, "org/hubbed", false, NULL, "unsupported_format", "2 files could be meant");
    expect_place(c, "org/other", false, NULL, "not_downloaded", "repository 'org/other'");
    ash_catalogue_close(c);
}

#define COMMIT "0123456789012345678901234567890123456789"

/* Checkpoints of several files: which path stands for them, and what is missing. */
static void folders(void **state)
{
    static const char index[] =
        "{\"metadata\":{},\"weight_map\":{\"a\":\"m-00001-of-000003.safetensors\","
        "\"b\":\"m-00003-of-000003.safetensors\",\"c\":\"m-00001-of-000003.safetensors\","
        "\"d\":\"m-00002-of-000003.safetensors\"}}";
    static const char *const sharded[] = {"models/whole", "models/half",
                                          "hub/models--org--sharded/snapshots/" COMMIT};
    char path[200];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/model.safetensors.index.json", sharded[i]);
        put(path, index);
        snprintf(path, sizeof path, "%s/config.json", sharded[i]);
        put(path, "{}");
        for (int k = 1; k <= (i == 1 ? 1 : 3); k++) {
            snprintf(path, sizeof path, "%s/m-%05d-of-000003.safetensors", sharded[i], k);
            put(path, "x");
        }
    }
    put("hub/models--org--sharded/refs/main", COMMIT);
    put("hub/models--org--sharded/refs/gptq-4bit-32g-actorder_True", COMMIT);
    /* a link of the cache whose blob has not come yet */
    put("hub/models--org--coming/refs/main", COMMIT);
    put("hub/models--org--coming/snapshots/" COMMIT "/config.json", "{}");
    assert_int_equal(symlink("../../blobs/none",
                             "hub/models--org--coming/snapshots/" COMMIT "/model.safetensors"),
                     0);
    put("hub/models--org--one/snapshots/" COMMIT "/config.json", "{}"); /* fetched by its commit */
    put("hub/models--org--one/snapshots/" COMMIT "/model.safetensors", "x");
    put("models/no-index/config.json", "{}");
    put("models/no-index/model-00001-of-00002.safetensors", "x");
    put("models/no-index/model-00002-of-00002.safetensors", "x");
    put("models/bare/config.json", "{}");
    put("models/mixed/config.json", "{}");
    put("models/mixed/model.safetensors", "x");
    put("models/mixed/pytorch_model.bin", "x");
    put("models/mixed/training_args.bin", "x");
    put("models/mixed/q4.gguf", "GGUF");
    put("models/several/config.json", "{}");
    put("models/several/a-act-order.safetensors", "x");
    put("models/several/b-no-act-order.safetensors", "x");
    put("models/torch/config.json", "{}");
    put("models/torch/pytorch_model.bin.index.json",
        "{\"weight_map\":{\"a\":\"pytorch_model-00001-of-00002.bin\",\"b\":\"../x\"}}");
    put("models/torch/pytorch_model-00001-of-00002.bin", "x");
    put("models/parts/m-00001-of-00003.gguf", "GGUF");
    put("models/parts/m-00003-of-00003.gguf", "GGUF");
    put("models/late/m-00002-of-00002.gguf", "GGUF");
    ash_catalogue *c =
        opened("{\"whole\":{\"format\":\"safetensors\",\"warning\":\"Big.\"},\"half\":{\"warning\":"
               "\"Big.\"},"
               "\"by-path\":{\"path\":\"models/whole\"},\"no-index\":{},\"bare\":{},\"mixed\":{},"
               "\"mixed-pt\":{\"path\":\"models/mixed\",\"format\":\"pytorch\"},"
               "\"mixed-gguf\":{\"path\":\"models/mixed\",\"format\":\"gguf\"},"
               "\"mixed-gptq\":{\"path\":\"models/"
               "mixed\",\"format\":\"gptq\",\"files\":[\"*.safetensors\"]},"
               "\"wrong\":{\"path\":\"models/whole\",\"format\":\"pytorch\"},"
               "\"several\":{\"format\":\"gptq\"},"
               "\"one\":{\"path\":\"models/"
               "several\",\"files\":[\"*-no-act-order.safetensors\",\"*.json\"]},"
               "\"torch\":{\"format\":\"auto\"},\"parts\":{},\"late\":{\"format\":\"gguf\"},"
               "\"branch\":{\"repo\":\"org/sharded\",\"revision\":\"gptq-4bit-32g-actorder_True\"},"
               "\"cached\":{\"repo\":\"org/sharded\",\"format\":\"safetensors\"}}");
    expect_place(c, "whole", false, "models/whole", NULL, NULL);
    expect_place(c, "by-path", false, "models/whole", NULL, NULL);
    expect_place(c, "half", false, NULL, "consent_needed", "Big.");
    expect_place(c, "half", true, NULL, "not_downloaded",
                 "2 of 3 files are missing, the first is m-00002-of-000003.safetensors");
    expect_place(c, "no-index", false, NULL, "not_downloaded",
                 "the first is model.safetensors.index.json");
    expect_place(c, "bare", false, NULL, "not_downloaded", "no weights in './models/bare'");
    expect_place(c, "mixed", false, "models/mixed", NULL, NULL);
    expect_place(c, "mixed-pt", false, "models/mixed/pytorch_model.bin", NULL, NULL);
    expect_place(c, "mixed-gguf", false, "models/mixed/q4.gguf", NULL, NULL);
    expect_place(c, "mixed-gptq", false, "models/mixed", NULL, NULL);
    expect_place(c, "wrong", false, NULL, "not_downloaded",
                 "no weights of format pytorch, but others");
    expect_place(c, "several", false, "models/several", NULL, NULL); /* the reader names them */
    expect_place(c, "one", false, "models/several/b-no-act-order.safetensors", NULL, NULL);
    expect_place(c, "torch", false, "models/torch", NULL, NULL); /* so is a path in an index */
    expect_place(c, "parts", false, NULL, "not_downloaded",
                 "1 of 3 files are missing, the first is m-00002-of-00003.gguf");
    expect_place(c, "late", false, NULL, "not_downloaded",
                 "1 of 2 files are missing, the first is m-00001-of-00002.gguf");
    expect_place(c, "cached", false, "org--sharded/snapshots/" COMMIT, NULL, NULL);
    expect_place(c, "branch", false, "org--sharded/snapshots/" COMMIT, NULL, NULL);
    expect_place(c, "org/sharded", false, "org--sharded/snapshots/" COMMIT, NULL, NULL);
    expect_place(c, "models--org--sharded", false, "org--sharded/snapshots/" COMMIT, NULL, NULL);
    expect_place(c, "hub/models--org--sharded", false, "org--sharded/snapshots/" COMMIT, NULL,
                 NULL);
    expect_place(c, "org/one", false, "org--one/snapshots/" COMMIT, NULL, NULL);
    expect_place(c, "org/coming", false, NULL, "not_downloaded",
                 "1 of 1 files are missing, the first is model.safetensors");
    expect_place(c, "models/mixed/pytorch_model.bin", false, "models/mixed/pytorch_model.bin", NULL,
                 NULL);
    expect_place(c, "./models/torch/pytorch_model.bin.index.json", false,
                 "models/torch/pytorch_model.bin.index.json", NULL, NULL);
    expect_place(c, "./models", false, NULL, "unsupported_format", "files could be meant");

    const ash_catalogue_entry *e = ash_catalogue_find(c, "half");
    ash_catalogue_place p;
    assert_int_equal(ash_catalogue_locate(c, e, true, &p, NULL), 0);
    assert_string_equal(p.partial, "./models/half");
    assert_int_equal(p.n_files, 3);
    assert_int_equal(p.n_missing, 2);
    ash_catalogue_place_release(&p);
    ash_catalogue_place_release(&p);
    ash_catalogue_close(c);
}

static void names(void **state)
{
    put("f.gguf", "GGUF");
    put("f.bin", "x");
    ash_catalogue *c = opened("{\"smollm2-135m-instruct\":{}}");
    const ash_catalogue_entry *e, *again;
    assert_int_equal(ash_catalogue_resolve(c, "f.gguf", &e, NULL), 0);
    assert_true(e->resolved);
    assert_string_equal(e->id, "f.gguf");
    assert_int_equal(e->path[0], '/');
    assert_int_equal(ash_catalogue_resolve(c, "f.gguf", &again, NULL), 0);
    assert_ptr_equal(e, again);
    assert_int_equal(ash_catalogue_resolve(c, "./f.gguf", &e, NULL), 0);
    assert_int_equal(ash_catalogue_resolve(c, "org/name:Q4_0", &e, NULL), 0);
    assert_string_equal(e->repo, "org/name");
    assert_string_equal(e->files[0], "*Q4_0*.gguf");
    assert_int_equal(ash_catalogue_count(c), 4);

    assert_int_equal(ash_catalogue_resolve(c, "./f.bin", &e, NULL),
                     0); /* what it is, its content says */
    assert_string_equal(e->format, "auto");
    put("plain", "x");
    assert_int_equal(ash_catalogue_resolve(c, "./plain", &e, NULL), 0);

    static const struct {
        const char *name;
        int rc;
        const char *say;
    } t[] = {
        {"plain", ASH_ENOENT, "no model 'plain'"},
        {"smolm2", ASH_ENOENT,
         "no model 'smolm2' in c.json; did you mean 'smollm2-135m-instruct'?"},
        {"quite-another", ASH_ENOENT, "no model 'quite-another' in c.json"},
        {"", ASH_EINVAL, "expected a model"},
        {"./none.gguf", ASH_ENOENT, "no file './none.gguf'"},
        {"none.gguf", ASH_ENOENT, "no file 'none.gguf'"},
        {"none.safetensors", ASH_ENOENT, "no file 'none.safetensors'"},
        {"/none", ASH_ENOENT, "no file '/none'"},
        {"models--a", ASH_ENOENT, "no model"},
        {"a/b/c", ASH_ENOENT, "no model"},
        {"a/..", ASH_ENOENT, "no model"},
        {"a/b--c", ASH_ENOENT, "no model"},
        {"a/b:", ASH_EINVAL, "expected a quantization"},
        {"a/b:*", ASH_EINVAL, "expected a quantization"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        ash_err err = ASH_ERR_INIT;
        int rc = ash_catalogue_resolve(c, t[i].name, &e, &err);
        if (rc != t[i].rc || e || !strstr(err.msg, t[i].say))
            fail_msg("%s: %d %s", t[i].name, rc, err.msg);
    }
    for (int i = 0; i < 3000; i++) { /* names that clients make up do not grow without bound */
        char name[32];
        snprintf(name, sizeof name, "org/n%d", i);
        ash_err err = ASH_ERR_INIT;
        int rc = ash_catalogue_resolve(c, name, &e, &err);
        if (rc) {
            assert_int_equal(rc, ASH_ELIMIT);
            assert_int_equal(ash_catalogue_count(c), 2 * ASH_MAX_CATALOGUE_ENTRIES);
            break;
        }
        assert_int_not_equal(i, 2999);
    }
    ash_catalogue_close(c);
}

/* The catalogue that is shipped. */
static void ours(void **state)
{
    static const char *const ids[] = {
        "openhermes-2.5-mistral-7b-gptq",
        "nous-hermes-2-mistral-7b-gptq",
        "deepseek-math-7b",
        "deepseek-math-7b-gguf",
        "platypus2-13b-gptq",
        "chronos-hermes-13b-gptq",
        "undiplatypus2-13b-gptq",
        "deepseek-r1",
        "deepseek-coder-v2",
        "smollm2-135m-instruct",
    };
    char path[512];
    const char *golden = getenv("ASHLEY_TEST_DATA"); /* ROOT/tests/golden */
    int root = (int)(strlen(golden) - strlen("/tests/golden"));
    snprintf(path, sizeof path, "%.*s/pytorch_models.json", root, golden);
    ash_catalogue *c;
    ash_err err = ASH_ERR_INIT;
    if (ash_catalogue_open(&(ash_catalogue_opts){.path = path}, &c, &err)) fail_msg("%s", err.msg);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        const ash_catalogue_entry *e = ash_catalogue_find(c, ids[i]);
        assert_non_null(e);
        if (e->bad) fail_msg("%s: %s", e->id, e->bad);
        assert_non_null(e->description);
        assert_non_null(e->size);
        assert_true(e->context && e->disk && e->memory);
    }
    ash_catalogue_place p;
    assert_int_equal(ash_catalogue_locate(c, ash_catalogue_find(c, "deepseek-r1"), false, &p, &err),
                     0);
    assert_string_equal(p.code, "consent_needed");
    ash_catalogue_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_entry), cmocka_unit_test(bad_files), cmocka_unit_test(bad_entries),
        cmocka_unit_test(places),        cmocka_unit_test(folders),   cmocka_unit_test(names),
        cmocka_unit_test(ours),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
