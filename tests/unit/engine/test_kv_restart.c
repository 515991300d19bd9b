/* A warm prompt over restarts: what is restored is what would be computed, bit for bit; what is changed, cut,
 * foreign or missing is computed again and kept again; a process killed at any moment leaves nothing that is
 * believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "../scratch_dir.h"
#include "base/fs.h"
#include "jobs.h"

static const char warm[] = "you are a small model, and this is what you were told before anything was said";
static char model_path[64];

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static int make_model(void **state)
{
    tiny_model m = TINY_DEFAULT;
    m.tokenizer = true;
    m.type = ASH_DTYPE_Q8_0;
    m.template = "{% for m in messages %}{{ '<s>' + m.role + m.content }}{% endfor %}";
    bool ok = tiny_file(&m, model_path);
    sleep_ms(60); /* a file that has just changed is not believed to be what it is */
    return ok ? 0 : -1;
}

static int remove_model(void **state)
{
    return unlink(model_path);
}

static ash_engine *open_engine(const char *state_dir, const char *prompt, ash_cpu_level level)
{
    ash_engine_opts o = {.path = model_path, .cpu = level, .threads = 2, .state_dir = state_dir,
                         .disk_budget = 1 << 30, .warm_prompt = prompt};
    ash_engine *e;
    ash_err err = ASH_ERR_INIT;
    if (ash_engine_open(&o, &e, &err))
        fail_msg("engine: %s", err.msg);
    return e;
}

/* The first chat after the prompt, with a seed and every log-probability. */
static void chat(ash_engine *e, told *t)
{
    char text[256];
    uint64_t id;
    ash_ids ids = ASH_IDS_INIT;
    ash_err err = ASH_ERR_INIT;
    snprintf(text, sizeof text, "<s>system%s<s>userhello", warm);
    assert_int_equal(ash_tokenizer_encode(ash_engine_tokenizer(e), text, strlen(text), ASH_ENCODE_SPECIAL,
                                          NULL, 0, &ids, &err), 0);
    ash_job j = job_of(ids.p, ids.n, 60, t);
    j.want_logprobs = true;
    j.sampling.temperature = 1;
    j.sampling.seed = 3;
    told_init(t);
    assert_int_equal(ash_engine_submit(e, &j, &id, &err), 0);
    told_wait(t);
    assert_int_equal(t->n_ids, 60);
    ash_ids_release(&ids);
}

static void expect_same(const told *a, const told *b)
{
    assert_memory_equal(a->ids, b->ids, sizeof a->ids);
    assert_memory_equal(a->logprobs, b->logprobs, sizeof a->logprobs);
    assert_int_equal(a->n_text, b->n_text);
    assert_memory_equal(a->text, b->text, a->n_text);
}

/* Tokens of prompts that were not restored. The evaluation has the scheduler note what was before it. */
static uint64_t computed(ash_engine *e)
{
    static float logits[512];
    ash_engine_stats s;
    assert_int_equal(ash_engine_eval(e, &(int32_t){5}, 1, false, logits, NULL), 0);
    ash_engine_get_stats(e, &s);
    return s.prompt_tokens;
}

/* Files of prompts in the folder; *path gets the last one's. */
static int kept(const char *state_dir, char path[512])
{
    char dir[256];
    int n = 0;
    snprintf(dir, sizeof dir, "%s/kv", state_dir);
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strlen(e->d_name) > 3 && !strcmp(e->d_name + strlen(e->d_name) - 3, ".kv")) {
            snprintf(path, 512, "%s/%.200s", dir, e->d_name);
            n++;
        }
    if (d)
        closedir(d);
    return n;
}

/* It is written after the engine is open. */
static void await_kept(const char *state_dir, int n, char path[512])
{
    while (kept(state_dir, path) < n) sleep_ms(5);
}

static void a_restart_restores(void **state)
{
    static told plain, first, second;
    char path[512];
    for (int level = 0; level <= (int)ash_cpu_get()->level; level++) {
        ash_engine *e = open_engine(NULL, NULL, (ash_cpu_level)level);
        chat(e, &plain);
        assert_int_equal(plain.usage.cached_tokens, 0);
        ash_engine_close(e);
        e = open_engine(*state, warm, (ash_cpu_level)level);
        assert_true(computed(e) > 64);
        await_kept(*state, level + 1, path); /* every table its own */
        chat(e, &first);
        ash_engine_close(e);
        e = open_engine(*state, warm, (ash_cpu_level)level);
        assert_int_equal(computed(e), 0);
        chat(e, &second);
        assert_true(second.usage.cached_tokens >= first.usage.cached_tokens);
        ash_engine_close(e);
        expect_same(&plain, &first);
        expect_same(&plain, &second);
    }
}

static void other_prompts_are_others(void **state)
{
    char path[512];
    ash_engine *e = open_engine(*state, warm, ash_cpu_get()->level);
    await_kept(*state, 1, path);
    ash_engine_close(e);
    e = open_engine(*state, "something else", ash_cpu_get()->level);
    assert_true(computed(e) > 0);
    await_kept(*state, 2, path);
    ash_engine_close(e);
}

static ino_t inode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

static void what_is_wrong_is_computed_again(void **state)
{
    static told plain, t;
    char path[512];
    ash_engine *e = open_engine(NULL, NULL, ash_cpu_get()->level);
    chat(e, &plain);
    ash_engine_close(e);
    e = open_engine(*state, warm, ash_cpu_get()->level);
    uint64_t all = computed(e);
    await_kept(*state, 1, path);
    ash_engine_close(e);
    ash_buf b;
    assert_int_equal(ash_fs_read(path, 1 << 24, &b, NULL), 0);
    for (int wrong = 0; wrong < 6; wrong++) {
        size_t n = b.len, at = wrong == 0 ? 20 : wrong == 1 ? 4096 : wrong == 2 ? b.len - 1 : 0;
        n = wrong == 3 ? n - 1 : wrong == 4 ? 100 : wrong == 5 ? 0 : n;
        b.data[at] ^= wrong < 3;
        assert_int_equal(ash_fs_replace(path, b.data, n, NULL), 0);
        b.data[at] ^= wrong < 3;
        ino_t bad = inode_of(path);
        e = open_engine(*state, warm, ash_cpu_get()->level);
        assert_int_equal(computed(e), all);
        chat(e, &t);
        expect_same(&plain, &t);
        while (inode_of(path) == bad) sleep_ms(5); /* it is kept again */
        ash_engine_close(e);
        e = open_engine(*state, warm, ash_cpu_get()->level);
        assert_int_equal(computed(e), 0);
        ash_engine_close(e);
    }
    ash_buf_release(&b);
}

/* No folder and no room cost the next start its time, nothing else. */
static void what_cannot_be_kept_is_computed(void **state)
{
    static told t;
    char file[256], path[512];
    snprintf(file, sizeof file, "%s/file", (char *)*state);
    assert_int_equal(ash_fs_replace(file, "x", 1, NULL), 0);
    ash_engine *e = open_engine(file, warm, ash_cpu_get()->level);
    chat(e, &t);
    ash_engine_close(e);
    ash_engine_opts o = {.path = model_path, .cpu = ash_cpu_get()->level, .state_dir = *state,
                         .disk_budget = 4096, .warm_prompt = warm};
    assert_int_equal(ash_engine_open(&o, &e, NULL), 0);
    sleep_ms(200);
    chat(e, &t);
    ash_engine_close(e);
    assert_int_equal(kept(*state, path), 0);
}

/* ---- evicted prefixes ----------------------------------------------------------------------- */

enum { CHATS = 5, LONG = 330 };

/* A pool of 16 blocks: two such chats and a bit. */
static ash_engine *open_tight(const char *state_dir)
{
    ash_engine_opts o = {.path = model_path, .cpu = ash_cpu_get()->level, .threads = 2, .ctx = 512,
                         .kv_bytes = 1, .state_dir = state_dir, .disk_budget = 1 << 30};
    ash_engine *e;
    ash_err err = ASH_ERR_INIT;
    if (ash_engine_open(&o, &e, &err))
        fail_msg("engine: %s", err.msg);
    return e;
}

/* The first start learns what the file holds; from the second on evicted prefixes are kept. */
static ash_engine *open_tight_again(const char *state_dir)
{
    char known[256];
    snprintf(known, sizeof known, "%s/packs/known", state_dir);
    ash_engine *e = open_tight(state_dir);
    while (!ash_fs_is_file(known)) sleep_ms(5);
    ash_engine_close(e);
    return open_tight(state_dir);
}

static void long_chat(ash_engine *e, int which, told *t)
{
    int32_t ids[LONG];
    uint64_t id;
    prompt_ids(ids, LONG, 50 + (uint64_t)which);
    ash_job j = job_of(ids, LONG, 40, t);
    j.want_logprobs = true;
    j.sampling.temperature = 1;
    j.sampling.seed = which;
    told_init(t);
    assert_int_equal(ash_engine_submit(e, &j, &id, NULL), 0);
    told_wait(t);
    assert_int_equal(t->n_ids, 40);
    sleep_ms(20); /* idle: what is next to go is written */
}

static void evicted_prefixes_come_back(void **state)
{
    static told plain[CHATS], t;
    char path[512];
    for (int i = 0; i < CHATS; i++) {
        ash_engine *e = open_tight(NULL);
        long_chat(e, i, &plain[i]);
        assert_int_equal(plain[i].usage.cached_tokens, 0);
        ash_engine_close(e);
    }
    ash_engine *e = open_tight_again(*state);
    for (int i = 0; i < CHATS; i++) {
        long_chat(e, i, &t);
        assert_int_equal(t.usage.cached_tokens, 0);
        expect_same(&plain[i], &t);
    }
    for (int round = 0; round < 3; round++) { /* the last one after a restart */
        if (round == 2) {
            ash_engine_close(e);
            e = open_tight(*state);
        }
        for (int i = 0; i < CHATS; i++) {
            long_chat(e, i, &t);
            expect_same(&plain[i], &t);
            assert_true(t.usage.cached_tokens >= LONG / 32 * 32 - 64 || round == 2);
            if (round == 2 && i < 2)
                assert_true(t.usage.cached_tokens >= LONG / 32 * 32 - 64);
        }
    }
    ash_engine_close(e);
    assert_int_equal(kept(*state, path), 0);
}

/* Many at once, some cancelled: everything that ends says what it says alone. */
static void chats_from_disk_keep_company(void **state)
{
    static told plain[CHATS], t[4 * CHATS];
    ash_engine *e = open_tight_again(*state);
    for (int i = 0; i < CHATS; i++) long_chat(e, i, &plain[i]);
    uint64_t id[4 * CHATS];
    for (int i = 0; i < 4 * CHATS; i++) {
        int32_t ids[LONG];
        prompt_ids(ids, LONG, 50 + (uint64_t)(i % CHATS));
        ash_job j = job_of(ids, LONG, 40, &t[i]);
        j.want_logprobs = true;
        j.sampling.temperature = 1;
        j.sampling.seed = i % CHATS;
        j.background = i % 7 == 6;
        told_init(&t[i]);
        assert_int_equal(ash_engine_submit(e, &j, &id[i], NULL), 0);
        if (i % 4 == 3) {
            sleep_ms(i % 3);
            ash_engine_cancel(e, id[i - 2]);
        }
    }
    for (int i = 0; i < 4 * CHATS; i++) {
        told_wait(&t[i]);
        if (t[i].finish == ASH_FINISH_LENGTH)
            expect_same(&plain[i % CHATS], &t[i]);
        else
            assert_true(t[i].finish == ASH_FINISH_CANCELED || i % 7 == 6);
    }
    ash_engine_close(e);
}

static void spoilt_slots_are_computed_again(void **state)
{
    static told plain[CHATS], t;
    char dir[256], path[512];
    ash_engine *e = open_tight_again(*state);
    for (int i = 0; i < CHATS; i++) long_chat(e, i, &plain[i]);
    ash_engine_close(e);
    snprintf(dir, sizeof dir, "%s/kv", (char *)*state);
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *f; d && (f = readdir(d));)
        if (strstr(f->d_name, ".slots")) {
            snprintf(path, sizeof path, "%s/%.200s", dir, f->d_name);
            int fd = open(path, O_RDWR);
            char bad[2048];
            memset(bad, 0x55, sizeof bad);
            off_t first = 4096 + 64 * (1 << 16); /* data of slot 0, 1, ... */
            for (int i = 0; i < 400; i++) n += pwrite(fd, bad, sizeof bad, first + i * 4096) > 0;
            close(fd);
        }
    closedir(d);
    assert_int_equal(n, 400);
    e = open_tight(*state);
    for (int i = 0; i < CHATS; i++) {
        long_chat(e, i, &t);
        expect_same(&plain[i], &t);
        assert_int_equal(t.usage.cached_tokens, 0);
    }
    ash_engine_close(e);
}

static void a_kill_at_any_moment_harms_nothing(void **state)
{
    static told plain, t;
    char path[512];
    for (int i = 0; i < 25; i++) {
        pid_t child = fork();
        if (!child) {
            open_engine(*state, warm, ash_cpu_get()->level);
            sleep_ms(1000);
            _exit(0);
        }
        sleep_ms(2 * i);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        if (i % 5 == 4 && kept(*state, path))
            unlink(path); /* or all later ones would only read it */
    }
    ash_engine *e = open_engine(NULL, NULL, ash_cpu_get()->level);
    chat(e, &plain);
    ash_engine_close(e);
    for (int i = 0; i < 2; i++) {
        e = open_engine(*state, warm, ash_cpu_get()->level);
        chat(e, &t);
        expect_same(&plain, &t);
        await_kept(*state, 1, path);
        ash_engine_close(e);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_dir_make, scratch_dir_remove)
    const struct CMUnitTest tests[] = {
        TEST(a_kill_at_any_moment_harms_nothing), /* forks: first, while there is one thread */
        TEST(a_restart_restores),
        TEST(other_prompts_are_others),
        TEST(what_is_wrong_is_computed_again),
        TEST(what_cannot_be_kept_is_computed),
        TEST(evicted_prefixes_come_back),
        TEST(chats_from_disk_keep_company),
        TEST(spoilt_slots_are_computed_again),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
