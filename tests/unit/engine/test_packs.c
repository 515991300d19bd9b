/* Pack files: the same logits bit for bit from the pack and the checkpoint, anything wrong with a file is
 * found and packed again, and nothing that the state folder can be stops a load. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/model.h"
#include "engine/pack_room.h"
#include "jobs.h"

enum { IDS = 24, VOCAB = 300 };

typedef struct place {
    char state[64], packs[80], model[64];
} place;

static void enter(place *p)
{
    tiny_model m = TINY_DEFAULT;
    snprintf(p->state, sizeof p->state, "/tmp/ashley-packs-XXXXXX");
    assert_non_null(mkdtemp(p->state));
    snprintf(p->packs, sizeof p->packs, "%s/packs", p->state);
    assert_true(tiny_file(&m, p->model));
}

static void empty(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
}

static void leave(place *p)
{
    chmod(p->state, 0700);
    empty(p->packs);
    rmdir(p->packs);
    unlink(p->packs);
    rmdir(p->state);
    unlink(p->model);
}

/* The path of the only pack file; false if there is none. */
static bool find_pack(const place *p, char path[256])
{
    int n = 0;
    DIR *d = opendir(p->packs);
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (len < 5 || strcmp(e->d_name + len - 5, ".pack")) continue;
        snprintf(path, 256, "%s/%s", p->packs, e->d_name);
        n++;
    }
    if (d) closedir(d);
    assert_true(n <= 1);
    return n == 1;
}

typedef struct result {
    float logits[VOCAB];
    bool mapped;
    bool has_key;
    uint8_t key[ASH_SHA256_BYTES];
} result;

/* Loads, and waits for what is done in the background; the logits come through a forward of the model. */
static int load(const place *p, uint64_t budget, bool whole, result *out)
{
    ash_err err = ASH_ERR_INIT;
    ash_engine_opts o = {.path = p->model, .threads = 2, .cpu = ash_cpu_get()->level, .state_dir = p->state,
                         .disk_budget = budget, .bare = true};
    ash_model *m = NULL;
    ash_nn *nn = NULL;
    ash_run run = {0};
    int32_t table[1] = {0};
    ash_batch_row rows[IDS];
    memset(out, 0, sizeof *out);
    int rc = ash_model_open(&o, &m, &err);
    if (!rc) rc = ash_nn_open(&m->sizes.nn, &nn, &err);
    if (!rc) rc = ash_model_load(m, &o, nn->pool, &err);
    if (!rc) rc = ash_kv_open(&m->sizes.kv, 1, &run.kv, &err);
    if (rc) fprintf(stderr, "load: %s\n", err.msg);
    if (!rc) {
        run.nn = nn;
        run.scratch = aligned_alloc(64, (m->net->row_bytes * IDS + 63) / 64 * 64 + 64);
        for (int i = 0; i < IDS; i++)
            rows[i] = (ash_batch_row){.token = 3 + i * 7 % 280, .pos = i, .table = table,
                                      .wants_logits = i == IDS - 1};
        const ash_batch batch = {.rows = rows, .n = IDS, .logits = out->logits};
        m->net->arch->forward(m->net, &run, &batch);
        out->mapped = m->map == NULL;
        ash_packs_start(m->packs, m->region);
        if (whole) ash_packs_wait(m->packs);
        const uint8_t *key = ash_model_key(m);
        out->has_key = key != NULL;
        if (key) memcpy(out->key, key, sizeof out->key);
    }
    free(run.scratch);
    ash_kv_close(run.kv);
    ash_nn_close(nn);
    ash_model_close(m);
    usleep(80000); /* nor is a pack that has just been written taken for verified */
    return rc;
}

static void same_logits(const result *a, const result *b)
{
    assert_memory_equal(a->logits, b->logits, sizeof a->logits);
}

/* Of one row, the first logit: 12345 where the forward ended before it. */
static float first_logit(const char *folder, const atomic_bool *give_way)
{
    char path[512];
    ash_err err = ASH_ERR_INIT;
    snprintf(path, sizeof path, "%s/hf/%s", getenv("ASHLEY_TEST_DATA"), folder);
    ash_engine_opts o = {.path = path, .threads = 2, .cpu = ash_cpu_get()->level, .bare = true};
    ash_model *m;
    ash_run run = {.give_way = give_way};
    const int32_t table[1] = {0};
    const ash_batch_row row = {.token = 3, .table = table, .wants_logits = true};
    assert_int_equal(ash_model_open(&o, &m, &err), 0);
    assert_int_equal(ash_nn_open(&m->sizes.nn, &run.nn, &err), 0);
    assert_int_equal(ash_model_load(m, &o, run.nn->pool, &err), 0);
    assert_int_equal(ash_kv_open(&m->sizes.kv, 1, &run.kv, &err), 0);
    run.scratch = aligned_alloc(64, (m->net->row_bytes + 63) / 64 * 64);
    float *logits = calloc((size_t)m->net->hp.n_vocab, sizeof *logits);
    assert_non_null(logits);
    logits[0] = 12345;
    m->net->arch->forward(m->net, &run, &(ash_batch){.rows = &row, .n = 1, .logits = logits});
    float first = logits[0];
    free(logits);
    free(run.scratch);
    ash_kv_close(run.kv);
    ash_nn_close(run.nn);
    ash_model_close(m);
    return first;
}

static void a_forward_gives_way(void **state)
{
    const atomic_bool yes = true, no = false;
    for (int i = 0; i < 2; i++) {
        const char *folder = i ? "deepseek-v2-lite" : "llama-f32";
        assert_true(first_logit(folder, &yes) == 12345);
        assert_true(first_logit(folder, &no) != 12345);
        assert_true(first_logit(folder, &no) == first_logit(folder, NULL));
    }
}

static void the_second_start_maps(void **state)
{
    place p;
    result first, second, third;
    char path[256];
    enter(&p);
    assert_int_equal(load(&p, 0, true, &first), 0);
    assert_false(first.mapped);
    assert_true(first.has_key);
    assert_true(find_pack(&p, path));
    assert_int_equal(load(&p, 0, true, &second), 0);
    assert_true(second.mapped);
    same_logits(&first, &second);
    assert_memory_equal(first.key, second.key, sizeof first.key);
    /* without what is known the files are summed again, and the pack is verified again */
    char known[128];
    snprintf(known, sizeof known, "%s/known", p.packs);
    assert_int_equal(unlink(known), 0);
    assert_int_equal(load(&p, 0, true, &third), 0);
    assert_false(third.mapped);
    assert_memory_equal(first.key, third.key, sizeof first.key);
    assert_int_equal(load(&p, 0, true, &third), 0);
    assert_true(third.mapped);
    leave(&p);
}

/* The template is read beside the weights: what is wrong with it is found all the same, mapped or packed. */
static void a_template_is_refused_beside_mapped_weights(void **state)
{
    place p;
    result r;
    char path[256];
    enter(&p);
    for (int kept = 0; kept < 2; kept++) {
        if (kept) assert_int_equal(load(&p, 0, true, &r), 0);
        assert_int_equal(find_pack(&p, path), kept);
        ash_err err = ASH_ERR_INIT;
        ash_engine *e;
        ash_engine_opts o = {.path = p.model, .threads = 2, .cpu = ash_cpu_get()->level,
                             .state_dir = p.state, .bare = true, .template_text = "{% if %}"};
        assert_int_equal(ash_engine_open(&o, &e, &err), ASH_EFORMAT);
        assert_non_null(strstr(err.msg, "chat template of the catalogue"));
        o.template_text = "{{ messages }}";
        o.state_dir = kept ? p.state : NULL;
        assert_int_equal(ash_engine_open(&o, &e, &err), 0);
        assert_string_equal(ash_engine_info(e)->template_from, "catalogue");
        ash_engine_close(e);
    }
    leave(&p);
}

static void flip(const char *path, off_t at)
{
    uint8_t b;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &b, 1, at), 1);
    b ^= 0x10;
    assert_int_equal(pwrite(fd, &b, 1, at), 1);
    close(fd);
}

/* Every byte of what the head holds, of the table, and some of the data. */
static void every_flipped_byte_is_found(void **state)
{
    place p;
    result r;
    char path[256];
    uint8_t key[ASH_SHA256_BYTES];
    ash_pack_file f;
    enter(&p);
    assert_int_equal(load(&p, 0, true, &r), 0);
    assert_true(find_pack(&p, path));
    const char *name = strrchr(path, '/') + 1;
    assert_true(ash_sha256_parse(name, key));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    ash_engine_opts o = {.path = p.model, .cpu = ASH_CPU_SCALAR, .bare = true};
    ash_engine_plan plan;
    assert_int_equal(ash_engine_plan_read(&o, &plan, NULL), 0);
    for (off_t at = 0; at < 4096 + 32; at++) {
        flip(path, at);
        ash_err err = ASH_ERR_INIT;
        assert_int_equal(ash_pack_file_open(path, key, plan.weight_bytes, &f, &err), ASH_EFORMAT);
        flip(path, at);
    }
    assert_int_equal(ash_pack_file_open(path, key, plan.weight_bytes, &f, NULL), 0);
    assert_int_equal(ash_pack_file_verify(&f, plan.weight_bytes, NULL, NULL, NULL), 0);
    for (uint64_t at = 0; at < plan.weight_bytes; at += 997) {
        flip(path, ASH_PACK_DATA + (off_t)at);
        assert_int_equal(ash_pack_file_verify(&f, plan.weight_bytes, NULL, NULL, NULL), ASH_EFORMAT);
        flip(path, ASH_PACK_DATA + (off_t)at);
    }
    ash_pack_file_close(&f);
    /* and a load with a damaged one packs, and writes it anew */
    result again;
    flip(path, ASH_PACK_DATA + 1000);
    assert_int_equal(load(&p, 0, true, &again), 0);
    assert_false(again.mapped);
    same_logits(&r, &again);
    assert_int_equal(load(&p, 0, true, &again), 0);
    assert_true(again.mapped);
    same_logits(&r, &again);
    leave(&p);
}

static void a_cut_file_is_packed_again(void **state)
{
    place p;
    result first, r;
    char path[256];
    enter(&p);
    assert_int_equal(load(&p, 0, true, &first), 0);
    assert_true(find_pack(&p, path));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    const off_t lengths[] = {0, 1, 95, 4095, 4096, 4127, ASH_PACK_DATA - 1, ASH_PACK_DATA, ASH_PACK_DATA + 1,
                             st.st_size - 1, st.st_size + 1};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        assert_int_equal(truncate(path, lengths[i]), 0);
        assert_int_equal(load(&p, 0, true, &r), 0);
        assert_false(r.mapped);
        same_logits(&first, &r);
        assert_int_equal(stat(path, &st), 0); /* written anew */
    }
    assert_int_equal(load(&p, 0, true, &r), 0);
    assert_true(r.mapped);
    leave(&p);
}

static void another_users_file_is_packed_again(void **state)
{
    place p;
    result first, r;
    char path[256];
    struct stat st;
    if (geteuid()) skip(); /* only root gives files away */
    enter(&p);
    assert_int_equal(load(&p, 0, true, &first), 0);
    assert_true(find_pack(&p, path));
    assert_int_equal(chown(path, 12345, 12345), 0);
    assert_int_equal(load(&p, 0, true, &r), 0);
    assert_false(r.mapped);
    same_logits(&first, &r);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, 0);
    leave(&p);
}

static void a_changed_checkpoint_has_another_key(void **state)
{
    place p;
    result first, r;
    enter(&p);
    assert_int_equal(load(&p, 0, true, &first), 0);
    struct stat st;
    assert_int_equal(stat(p.model, &st), 0);
    flip(p.model, st.st_size - 3);
    const struct timespec times[2] = {st.st_atim, st.st_mtim}; /* as if it had not changed */
    assert_int_equal(utimensat(AT_FDCWD, p.model, times, 0), 0);
    usleep(80000);
    char path[256];
    assert_true(find_pack(&p, path));
    assert_int_equal(load(&p, 0, true, &r), 0);
    assert_false(r.mapped);
    assert_true(r.has_key);
    assert_memory_not_equal(first.key, r.key, sizeof r.key);
    /* touched only: the same key again, once it is summed */
    flip(p.model, st.st_size - 3);
    usleep(80000);
    assert_int_equal(load(&p, 0, true, &r), 0);
    assert_false(r.mapped);
    assert_memory_equal(first.key, r.key, sizeof r.key);
    leave(&p);
}

/* Neither a file in the folder's place nor a small budget costs more than the pack. */
static void a_folder_that_does_not_do_is_done_without(void **state)
{
    place p;
    result r;
    char path[256];
    enter(&p);
    int fd = open(p.packs, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(load(&p, 0, true, &r), 0);
    assert_true(r.has_key);
    unlink(p.packs);
    assert_int_equal(load(&p, 100000, true, &r), 0);
    assert_false(find_pack(&p, path));
    leave(&p);
}

/* Removing takes the longest unused, leaves what another process holds, and counts what is not a pack. */
static void room_is_made_by_use(void **state)
{
    place p;
    char path[160];
    ash_known_list none = {0};
    enter(&p);
    assert_int_equal(mkdir(p.packs, 0700), 0);
    static char data[64 << 10];
    memset(data, 1, sizeof data);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%d.pack", p.packs, i);
        assert_int_equal(ash_fs_replace(path, data, sizeof data, NULL), 0);
        const struct timespec t[2] = {{.tv_sec = 1000 + i}, {.tv_sec = 1000 + i}};
        assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
    }
    snprintf(path, sizeof path, "%s/x.pack.tmp", p.packs);
    assert_int_equal(ash_fs_replace(path, data, sizeof data, NULL), 0);
    snprintf(path, sizeof path, "%s/0.pack", p.packs);
    int held = open(path, O_RDONLY);
    assert_int_equal(flock(held, LOCK_SH), 0);
    assert_int_equal(ash_pack_room(p.packs, 256 << 10, 128 << 10, &none, NULL), 0);
    assert_true(ash_fs_is_file(path));
    snprintf(path, sizeof path, "%s/1.pack", p.packs);
    assert_false(ash_fs_is_file(path));
    snprintf(path, sizeof path, "%s/2.pack", p.packs);
    assert_true(ash_fs_is_file(path));
    snprintf(path, sizeof path, "%s/x.pack.tmp", p.packs);
    assert_false(ash_fs_is_file(path));
    assert_int_equal(ash_pack_room(p.packs, 256 << 10, 250 << 10, &none, NULL), ASH_ENOSPC);
    assert_int_equal(ash_pack_room(p.packs, 256 << 10, 257 << 10, &none, NULL), ASH_ENOSPC);
    close(held);
    leave(&p);
}

/* Killed at any moment: what is there is whole or not taken. */
static void killed_while_writing(void **state)
{
    place p;
    result first, r;
    enter(&p);
    assert_int_equal(load(&p, 0, false, &first), 0);
    empty(p.packs);
    for (int i = 0; i < 12; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            load(&p, 0, true, &r);
            _exit(0);
        }
        usleep((useconds_t)(i * 3000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        usleep(80000);
        assert_int_equal(load(&p, 0, i % 2, &r), 0);
        same_logits(&first, &r);
        if (i % 3 == 2) empty(p.packs);
    }
    leave(&p);
}

/* Two processes that start with nothing at once: both right, one pack, which the third maps. */
static void two_at_once(void **state)
{
    place p;
    result r;
    char path[256];
    enter(&p);
    for (int round = 0; round < 4; round++) {
        pid_t children[2];
        empty(p.packs);
        for (int i = 0; i < 2; i++) {
            assert_true((children[i] = fork()) >= 0);
            if (children[i] == 0) _exit(load(&p, 0, true, &r) || !r.has_key);
        }
        for (int i = 0; i < 2; i++) {
            int status;
            assert_int_equal(waitpid(children[i], &status, 0), children[i]);
            assert_int_equal(status, 0);
        }
        assert_true(find_pack(&p, path));
        assert_int_equal(load(&p, 0, true, &r), 0);
        assert_true(r.mapped);
    }
    leave(&p);
}

/* A disk that takes no more: nothing half-written stays, the next start with room keeps a pack. */
static void no_room_on_the_disk(void **state)
{
    place p;
    result r;
    char path[256];
    enter(&p);
    for (rlim_t most = 0; most < 3 << 20; most += 700000) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            const struct rlimit limit = {most, most};
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &limit);
            _exit(load(&p, 0, true, &r));
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_false(find_pack(&p, path));
    }
    assert_int_equal(load(&p, 0, true, &r), 0);
    assert_true(find_pack(&p, path));
    leave(&p);
}

/* A file that is cut while it is mapped: the job fails, the process does not. */
static void cut_while_mapped(void **state)
{
    place p;
    result r;
    char path[256];
    static told t;
    int32_t ids[8];
    ash_engine *e;
    enter(&p);
    assert_int_equal(load(&p, 0, true, &r), 0);
    assert_true(find_pack(&p, path));
    ash_engine_opts o = {.path = p.model, .threads = 2, .cpu = ASH_CPU_SCALAR, .state_dir = p.state,
                         .bare = true};
    assert_int_equal(ash_engine_open(&o, &e, NULL), 0);
    prompt_ids(ids, 8, 1);
    ash_job j = job_of(ids, 8, 4, &t);
    uint64_t id;
    told_init(&t);
    assert_int_equal(ash_engine_submit(e, &j, &id, NULL), 0);
    told_wait(&t);
    assert_int_equal(t.finish, ASH_FINISH_LENGTH);
    assert_int_equal(truncate(path, 0), 0);
    told_init(&t);
    assert_int_equal(ash_engine_submit(e, &j, &id, NULL), 0);
    told_wait(&t);
    assert_int_equal(t.finish, ASH_FINISH_ERROR);
    assert_int_equal(t.err.code, ASH_EIO);
    float logits[VOCAB];
    assert_int_equal(ash_engine_eval(e, ids, 8, false, logits, NULL), ASH_EIO);
    ash_engine_close(e);
    assert_int_equal(load(&p, 0, true, &r), 0);
    assert_false(r.mapped);
    leave(&p);
}

/* Of the mapping that has `at` what is in this process. */
static uint64_t resident_of(const void *at)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512], *end;
    unsigned long from = 0, to = 0;
    uint64_t bytes = 0;
    while (f && !bytes && fgets(line, sizeof line, f)) {
        if (!strncmp(line, "Rss:", 4) && from <= (uintptr_t)at && (uintptr_t)at < to)
            bytes = strtoul(line + 4, NULL, 10) * 1024;
        unsigned long number = strtoul(line, &end, 16);
        if (*end == '-') from = number, to = strtoul(end + 1, NULL, 16);
    }
    if (f) fclose(f);
    return bytes;
}

static void what_nobody_touched_is_mapped_after_the_load(void **state)
{
    place p;
    tiny_model big = TINY_DEFAULT;
    big.vocab = 20000; /* an embedding of 5 MB, and a head of its own */
    big.tied = false;
    enter(&p);
    unlink(p.model);
    assert_true(tiny_file(&big, p.model));
    ash_err err = ASH_ERR_INIT;
    ash_engine_opts o = {.path = p.model, .threads = 2, .cpu = ash_cpu_get()->level, .state_dir = p.state,
                         .bare = true};
    for (int i = 0; i < 2; i++) {
        ash_model *m;
        ash_nn *nn;
        assert_int_equal(ash_model_open(&o, &m, &err), 0);
        assert_int_equal(ash_nn_open(&m->sizes.nn, &nn, &err), 0);
        assert_int_equal(ash_model_load(m, &o, nn->pool, &err), 0);
        ash_packs_start(m->packs, m->region);
        ash_packs_wait(m->packs);
        const uint64_t bytes = m->net->binding.bytes;
        assert_int_equal(m->map == NULL, i);
        if (i) assert_true(resident_of(m->region) < bytes - (4 << 20));
        assert_int_equal(ash_model_finish(m, &err), 0);
        for (int k = 0; i && k < 10000 && resident_of(m->region) < bytes; k++) usleep(1000);
        if (i) assert_true(resident_of(m->region) >= bytes);
        ash_nn_close(nn);
        ash_model_close(m);
        usleep(80000);
    }
    leave(&p);
}

int main(void)
{
    ash_log_set_level(ASH_LOG_NONE);
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_forward_gives_way),
                                       cmocka_unit_test(the_second_start_maps),
                                       cmocka_unit_test(a_template_is_refused_beside_mapped_weights),
                                       cmocka_unit_test(every_flipped_byte_is_found),
                                       cmocka_unit_test(a_cut_file_is_packed_again),
                                       cmocka_unit_test(another_users_file_is_packed_again),
                                       cmocka_unit_test(a_changed_checkpoint_has_another_key),
                                       cmocka_unit_test(a_folder_that_does_not_do_is_done_without),
                                       cmocka_unit_test(room_is_made_by_use),
                                       cmocka_unit_test(two_at_once),
                                       cmocka_unit_test(no_room_on_the_disk),
                                       cmocka_unit_test(cut_while_mapped),
                                       cmocka_unit_test(killed_while_writing),
                                       cmocka_unit_test(what_nobody_touched_is_mapped_after_the_load)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
