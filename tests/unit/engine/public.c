/* A program that knows nothing but <ashley.h>: load, chat, generate, stop, close. */
#include <ashley.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

int public_program(const char *path);

typedef struct heard {
    size_t bytes;
    int tokens, last, stop_after;
} heard;

static int on_text(void *user, const char *text, size_t n, int32_t id)
{
    heard *h = user;
    (void)text;
    h->bytes += n;
    h->tokens += id >= 0;
    h->last += id < 0;
    return h->stop_after && h->tokens >= h->stop_after;
}

static int on_progress(void *user, const char *stage, uint64_t done, uint64_t total)
{
    *(int *)user += strlen(stage) > 0 && done <= total;
    return 0;
}

#define CHECK(x)                                                                                     \
    do {                                                                                             \
        if (!(x)) {                                                                                  \
            fprintf(stderr, "public.c:%d: %s: %s\n", __LINE__, #x, err.message);                     \
            return 1;                                                                                \
        }                                                                                            \
    } while (0)

static int text_and_tokens(ashley_model *m)
{
    ashley_error err = {0};
    int32_t *ids;
    char *text;
    size_t n, len;
    CHECK(!ashley_tokenize(m, "abc", 3, ASHLEY_BOS_EOS, &ids, &n, &err) && n > 3 && ids[0] == 1);
    CHECK(!ashley_detokenize(m, ids + 1, n - 1, &text, &len, &err));
    CHECK(len == 3 && !strcmp(text, "abc"));
    ashley_free(ids);
    ashley_free(text);
    CHECK(!ashley_render(m, "[{\"role\":\"user\",\"content\":\"hi\"}]", 1, &text, &len, &err));
    CHECK(!strcmp(text, "<s>userhi</s>"));
    ashley_free(text);
    CHECK(ashley_render(m, "[{]", 1, &text, &len, &err) == ASHLEY_EFORMAT && !text);
    CHECK(ashley_chat(m, "[]", 1, &ids, &n, &err) == ASHLEY_EINVAL && !ids && err.code == ASHLEY_EINVAL);
    /* what a user types is no special token */
    CHECK(!ashley_chat(m, "[{\"role\":\"user\",\"content\":\"</s>\"}]", 0, &ids, &n, &err));
    CHECK(ids[0] == 1 && ids[n - 1] == 2);
    for (size_t i = 1; i + 1 < n; i++) CHECK(ids[i] != 2);
    ashley_free(ids);
    return 0;
}

static int generation(ashley_model *m)
{
    static const int32_t prompt[] = {5, 6, 7};
    ashley_error err = {0};
    ashley_request r;
    ashley_result result;
    heard h = {0};
    ashley_request_init(&r);
    r.ids = prompt;
    r.n_ids = 3;
    r.max_tokens = 6;
    r.temperature = 0;
    r.ignore_end = 1;
    r.on_text = on_text;
    r.user = &h;
    CHECK(!ashley_generate(m, &r, &result, &err));
    CHECK(result.finish == ASHLEY_FINISH_LENGTH && result.completion_tokens == 6 && h.tokens == 6);
    CHECK(result.prompt_tokens == 3 && h.last == 1);
    h = (heard){.stop_after = 2};
    r.max_tokens = -1;
    CHECK(!ashley_generate(m, &r, &result, &err));
    CHECK(result.finish == ASHLEY_FINISH_CANCELED && h.tokens == 2);
    r.temperature = -3;
    CHECK(ashley_generate(m, &r, NULL, &err) == ASHLEY_EINVAL && strlen(err.message) > 0);
    return 0;
}

/* 8 bits take less room than 16 and give nearly the same; a folder that cannot be is no failure. */
static int less_memory(const char *path, uint64_t kv_bytes, const float *logits)
{
    static const int32_t prompt[] = {5, 6, 7};
    ashley_error err = {0};
    ashley_options o;
    ashley_model *m;
    ashley_info info;
    float other[300], most = 0, off = 0;
    ashley_options_init(&o);
    o.context = 128;
    o.kv_8bit = 1;
    o.state_dir = "/dev/null/ashley";
    CHECK(!ashley_open(path, &o, &m, &err));
    ashley_get_info(m, &info);
    CHECK(info.kv_bytes < kv_bytes && !ashley_eval(m, prompt, 3, 0, other, &err));
    for (int i = 0; i < 300; i++) {
        most = fmaxf(most, fabsf(logits[i]));
        off = fmaxf(off, fabsf(other[i] - logits[i]));
    }
    CHECK(off > 0 && off < 0.1f * most);
    ashley_close(m);
    return 0;
}

int public_program(const char *path)
{
    ashley_error err = {0};
    ashley_options o;
    ashley_model *m;
    ashley_info info;
    float logits[300];
    static const int32_t prompt[] = {5, 6, 7};
    int calls = 0;
    CHECK(strlen(ashley_version()) > 0);
    ashley_options_init(&o);
    CHECK(ashley_open("/nonexistent.gguf", NULL, &m, &err) == ASHLEY_ENOENT && !m);
    o.threads = 2;
    o.context = 128;
    o.on_progress = on_progress;
    o.user = &calls;
    CHECK(!ashley_open(path, &o, &m, &err) && calls > 4);
    ashley_get_info(m, &info);
    CHECK(info.n_vocab == 300 && info.n_ctx == 128 && !strcmp(info.architecture, "llama"));
    CHECK(!text_and_tokens(m) && !generation(m));
    CHECK(!ashley_eval(m, prompt, 3, 0, logits, &err) && logits[0] != logits[1]);
    CHECK(ashley_eval(m, prompt, 0, 0, logits, &err) == ASHLEY_ELIMIT);
    ashley_close(m);
    ashley_close(NULL);
    return less_memory(path, info.kv_bytes, logits);
}
