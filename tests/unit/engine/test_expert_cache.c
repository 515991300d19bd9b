/* Weights larger than memory: the same logits bit for bit from a cache of few experts, never more
 * of them in memory than allowed, a pack file that is the same as one written from memory, and a
 * clear refusal of all that cannot work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/rng.h"
#include "engine/model.h"
#include "jobs.h"
#include "mixture.h"

/* ---- a cache of a made-up binding ------------------------------------------------------------ */

enum { PAGE = 4096, LAYERS = 4, EXPERTS = 10, HEAD = 3 * PAGE, LEAD = 2 * PAGE };

/* Each expert has matrices of 1, 2 and 2.5 pages; between layers lies a vector, before all of it
 * another. */
typedef struct made {
    ash_binding b;
    ash_bind_item items[1 + LAYERS * (1 + 3 * EXPERTS)];
    ash_linear matrix; /* nobody looks at it */
    uint8_t *content;
    char *region;
    size_t region_bytes;
    int fd;
    ash_rng rng;
} made;

static void add(made *m, int layer, int expert, uint64_t bytes)
{
    ash_bind_item *it = &m->items[m->b.n_items++];
    *it = (ash_bind_item){.bytes = bytes, .layer = layer, .expert = expert, .apart = expert > 0};
    it->offset = expert ? (m->b.bytes + PAGE - 1) / PAGE * PAGE : m->b.bytes;
    m->b.bytes = it->offset + bytes;
}

static void make(made *m)
{
    *m = (made){.fd = -1};
    ash_rng_init(&m->rng, 11);
    add(m, 0, 0, 300);
    for (int layer = 0; layer < LAYERS; layer++) {
        add(m, layer, 0, 1000);
        for (int role = 0; role < 3; role++)
            for (int e = 1; layer > 0 && e <= EXPERTS; e++)
                add(m, layer, e, role == 0 ? PAGE : role == 1 ? 2 * PAGE : 2 * PAGE + PAGE / 2);
    }
    m->b.items = m->items;
    m->region_bytes = (m->b.bytes / PAGE + 1) * PAGE;
    m->content = malloc(LEAD + m->region_bytes);
    assert_non_null(m->content);
    for (size_t i = 0; i < LEAD + m->region_bytes; i++)
        m->content[i] = (uint8_t)ash_rng_u64(&m->rng);
    char path[] = "/tmp/ashley-experts-XXXXXX";
    m->fd = mkstemp(path);
    assert_true(m->fd >= 0);
    unlink(path);
    assert_int_equal(pwrite(m->fd, m->content, LEAD + m->region_bytes, 0), LEAD + m->region_bytes);
    m->region =
        mmap(NULL, m->region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(m->region != MAP_FAILED);
}

static void unmake(made *m)
{
    munmap(m->region, m->region_bytes);
    close(m->fd);
    free(m->content);
}

static bool is_there(const made *m, uint64_t offset, uint64_t n)
{
    return !memcmp(m->region + offset, m->content + LEAD + offset, n);
}

static void check_held(const made *m, int layer, const int32_t *ids, int n)
{
    for (size_t i = 0; i < m->b.n_items; i++) {
        const ash_bind_item *it = &m->items[i];
        bool needed = !it->expert;
        for (int k = 0; k < n && it->layer == layer; k++)
            needed = needed || it->expert == ids[k] + 1;
        if (needed && !is_there(m, it->offset, it->bytes))
            fail_msg("item %zu of layer %d, expert %d, is not there", i, it->layer, it->expert);
    }
}

static uint64_t pages_in_memory(const made *m)
{
    unsigned char seen[512];
    uint64_t n = 0;
    assert_true(m->region_bytes / PAGE <= sizeof seen);
    assert_int_equal(mincore(m->region, m->region_bytes, seen), 0);
    for (size_t i = 0; i < m->region_bytes / PAGE; i++) n += seen[i] & 1;
    return n;
}

/* Ascending, different. */
static int draw(made *m, int most, int32_t *ids)
{
    int n = 0, want = 1 + (int)(ash_rng_u64(&m->rng) % (uint64_t)most);
    for (int32_t e = 0; e < EXPERTS; e++)
        if (ash_rng_u64(&m->rng) % (uint64_t)(EXPERTS - e) < (uint64_t)(want - n)) ids[n++] = e;
    return n;
}

static void holds_within_its_budget(void **state)
{
    for (uint64_t room = 2; room <= 33; room += room < 4 ? 1 : 9) {
        made m;
        ash_expert_sizes sizes;
        ash_expert_cache *c;
        ash_expert_counts counts;
        ash_err err = ASH_ERR_INIT;
        make(&m);
        ash_expert_sizes_of(&m.b, &sizes);
        assert_int_equal(sizes.n, (LAYERS - 1) * EXPERTS);
        assert_int_equal(sizes.fixed + sizes.experts, m.b.bytes);
        assert_int_equal(sizes.experts, (LAYERS - 1) * EXPERTS * 5 * PAGE);
        uint64_t budget = room * sizes.largest;
        assert_int_equal(ash_expert_cache_open(&m.b, m.region, m.fd, LEAD, budget, NULL, &c, &err),
                         0);
        const ash_moe_supply *s = ash_expert_cache_supply(c);
        uint64_t fixed = pages_in_memory(&m);
        for (int step = 0; step < 60; step++) {
            for (int layer = 1; layer < LAYERS; layer++) {
                int32_t ids[EXPERTS], next[EXPERTS];
                int n = draw(&m, s->most < EXPERTS ? s->most : EXPERTS, ids);
                s->hold(s->user, layer, ids, n, 1 + step % 3);
                check_held(&m, layer, ids, n);
                int ahead = draw(&m, s->most < EXPERTS ? s->most : EXPERTS, next);
                s->expect(s->user,
                          step % 2 ? layer : (layer + 1) % LAYERS + !((layer + 1) % LAYERS), next,
                          ahead, step % 2);
                check_held(&m, layer, ids, n); /* still */
                assert_true(pages_in_memory(&m) - fixed <= budget / PAGE);
            }
        }
        ash_expert_cache_counts(c, &counts);
        assert_true(counts.chosen > counts.found && counts.resident <= budget);
        assert_true(room < 30 ||
                    counts.found * 10 > counts.chosen * 8); /* nearly all fit: few come twice */
        assert_true(counts.foreseen > 0);
        assert_false(ash_expert_cache_lost(c));
        ash_expert_cache_close(c);
        unmake(&m);
    }
}

/* What decoding meets: choices of one token, once the room was full, with what was read ahead for them. */
static void counts_what_decoding_meets(void **state)
{
    static const struct {
        int32_t ids[2];
        int rows, ahead; /* ahead: an expert that is expected and not chosen, or -1 */
        uint64_t chosen, found;
    } holds[] = {
        {{0, 1}, 1, -1, 0, 0}, {{2, 3}, 1, -1, 0, 0}, /* the room is full from here on */
        {{4, 5}, 1, -1, 2, 0}, {{4, 5}, 1, -1, 4, 2}, {{6, 7}, 5, -1, 4, 2},
        {{6, 7}, 1, -1, 6, 4}, {{6, 7}, 1, 8, 8, 5},
    };
    made m;
    ash_expert_cache *c;
    ash_expert_counts counts;
    ash_err err = ASH_ERR_INIT;
    make(&m);
    assert_int_equal(ash_expert_cache_open(&m.b, m.region, m.fd, LEAD, 4 * 6 * PAGE, NULL, &c, &err), 0);
    const ash_moe_supply *s = ash_expert_cache_supply(c);
    for (size_t i = 0; i < sizeof holds / sizeof *holds; i++) {
        if (holds[i].ahead >= 0) s->expect(s->user, 1, &holds[i].ahead, 1, true);
        s->hold(s->user, 1, holds[i].ids, 2, holds[i].rows);
        ash_expert_cache_counts(c, &counts);
        if (counts.token_chosen != holds[i].chosen || counts.token_found != holds[i].found)
            fail_msg("after %zu: %llu of %llu found", i, (unsigned long long)counts.token_found,
                     (unsigned long long)counts.token_chosen);
    }
    ash_expert_cache_close(c);
    unmake(&m);
}

static void tells_a_cut_file(void **state)
{
    made m;
    ash_expert_cache *c;
    ash_err err = ASH_ERR_INIT;
    static const int32_t all[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    make(&m);
    assert_int_equal(ash_expert_cache_open(&m.b, m.region, m.fd, LEAD, 1, NULL, &c, &err),
                     ASH_ENOSPC);
    atomic_bool cancel = true;
    assert_int_equal(ash_expert_cache_open(&m.b, m.region, m.fd, LEAD, 1 << 20, &cancel, &c, &err),
                     ASH_ECANCELED);
    assert_int_equal(ash_expert_cache_open(&m.b, m.region, m.fd, LEAD, 1 << 20, NULL, &c, &err), 0);
    assert_int_equal(ftruncate(m.fd, LEAD + (off_t)m.items[40].offset), 0);
    const ash_moe_supply *s = ash_expert_cache_supply(c);
    s->hold(s->user, LAYERS - 1, all, EXPERTS, 1); /* returns, and says so */
    assert_true(ash_expert_cache_lost(c));
    ash_expert_cache_close(c);
    assert_int_equal(ash_expert_cache_open(&m.b, m.region, m.fd, LEAD, 1 << 20, NULL, &c, &err),
                     ASH_EFORMAT);
    assert_non_null(strstr(err.msg, "is cut"));
    ash_expert_cache_close(NULL);
    assert_false(ash_expert_cache_lost(NULL));
    unmake(&m);
}

/* ---- models ---------------------------------------------------------------------------------- */

enum { IDS = 40, MAX_VOCAB = 1024 };

typedef struct result {
    float logits[MAX_VOCAB];
    ash_expert_counts counts;
    ash_expert_sizes sizes;
    uint64_t weights; /* bytes in memory, as planned */
    ash_err err;
} result;

/* What a load told of itself. */
typedef struct load_story {
    ash_load_stage stage;
    uint64_t done, total; /* of the stage of packing, while it tells bytes */
    int calls;            /* with bytes */
    bool back;            /* something was less than before */
    uint64_t stop_at;     /* bytes at which it is cancelled; 0: never */
    atomic_bool cancel;
} load_story;

static void on_progress(void *user, ash_load_stage stage, uint64_t done, uint64_t total)
{
    load_story *t = user;
    t->back |= stage < t->stage || done > total;
    t->stage = stage;
    if (stage != ASH_LOAD_PACK || total <= 1) return;
    t->back |= done < t->done || (t->total && total != t->total);
    t->calls++;
    t->done = done;
    t->total = total;
    if (t->stop_at && done >= t->stop_at) atomic_store(&t->cancel, true);
}

/* Logits of IDS tokens, a few by themselves after the others. */
static int load_told(const char *model, const char *state_dir, uint64_t disk_budget, uint64_t weights_max,
                     load_story *t, result *out)
{
    ash_engine_opts o = {.path = model,
                         .threads = 2,
                         .cpu = ash_cpu_get()->level,
                         .state_dir = state_dir,
                         .disk_budget = disk_budget,
                         .progress = on_progress,
                         .user = t,
                         .cancel = &t->cancel,
                         .bare = true,
                         .weights_max = weights_max};
    ash_model *m = NULL;
    ash_nn *nn = NULL;
    ash_run run = {0};
    int32_t table[2] = {0, 1};
    ash_batch_row rows[IDS];
    *out = (result){.err = ASH_ERR_INIT};
    int rc = ash_model_open(&o, &m, &out->err);
    if (!rc) rc = ash_nn_open(&m->sizes.nn, &nn, &out->err);
    if (!rc) rc = ash_model_load(m, &o, nn->pool, &out->err);
    if (!rc) rc = ash_kv_open(&m->sizes.kv, 2, &run.kv, &out->err);
    if (!rc) {
        run.nn = nn;
        run.experts = ash_expert_cache_supply(m->cache);
        assert_true((run.experts != NULL) == (weights_max != 0));
        run.scratch = aligned_alloc(64, (m->net->row_bytes * IDS + 63) / 64 * 64 + 64);
        for (int i = 0; i < IDS; i++)
            rows[i] = (ash_batch_row){
                .token = 3 + i * 7 % 90, .pos = i, .table = table, .wants_logits = i >= 35};
        assert_true(m->net->hp.n_vocab <= MAX_VOCAB);
        ash_batch batch = {.rows = rows, .n = 35, .logits = out->logits};
        m->net->arch->forward(m->net, &run, &batch);
        for (int i = 35; i < IDS; i++) {
            batch = (ash_batch){.rows = rows + i, .n = 1, .logits = out->logits};
            m->net->arch->forward(m->net, &run, &batch);
        }
        assert_false(ash_model_lost(m));
        ash_expert_cache_counts(m->cache, &out->counts);
        out->sizes = m->experts;
        out->weights = m->sizes.plan.weight_bytes;
        ash_packs_start(m->packs, m->region);
        ash_packs_wait(m->packs);
    }
    free(run.scratch);
    ash_kv_close(run.kv);
    ash_nn_close(nn);
    ash_model_close(m);
    return rc;
}

static int load(const char *model, const char *state_dir, uint64_t weights_max, result *out)
{
    load_story t = {0};
    return load_told(model, state_dir, 0, weights_max, &t, out);
}

/* The only pack file of a state folder. */
static void find_pack(const char *dir, char path[256])
{
    char packs[80];
    int n = 0;
    snprintf(packs, sizeof packs, "%s/packs", dir);
    DIR *d = opendir(packs);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (len < 5 || strcmp(e->d_name + len - 5, ".pack")) continue;
        snprintf(path, 256, "%s/%s", packs, e->d_name);
        n++;
    }
    closedir(d);
    assert_int_equal(n, 1);
}

static void remove_dir(const char *dir)
{
    char packs[80];
    snprintf(packs, sizeof packs, "%s/packs", dir);
    DIR *d = opendir(packs);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
    rmdir(packs);
    rmdir(dir);
}

static void same_files(const char *a, const char *b)
{
    ash_map x, y;
    assert_int_equal(ash_fs_map(a, &x, NULL), 0);
    assert_int_equal(ash_fs_map(b, &y, NULL), 0);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    ash_fs_unmap(&x);
    ash_fs_unmap(&y);
}

static void computes_alike(void **state)
{
    char model[64], whole_dir[64], dir[64], path[256], other[256];
    static result whole, some;
    widen("deepseek-v2-lite", model);
    make_dir(whole_dir);
    make_dir(dir);
    assert_int_equal(load(model, whole_dir, 0, &whole), 0);
    assert_true(whole.sizes.n > 0);
    for (uint64_t more = 0; more < (uint64_t)whole.sizes.n - 2; more += 3) {
        uint64_t most = ash_expert_least(&whole.sizes) + more * whole.sizes.largest;
        assert_int_equal(load(model, dir, most, &some), 0);
        assert_memory_equal(whole.logits, some.logits, sizeof whole.logits);
        assert_int_equal(some.weights, most);
        assert_true(some.counts.chosen > some.counts.found);
        assert_true(some.counts.resident <= most - whole.sizes.fixed);
    }
    find_pack(whole_dir, path);
    find_pack(dir, other);
    same_files(path, other);
    remove_dir(whole_dir);
    remove_dir(dir);
    unwiden(model);
}

static void refuses(void **state)
{
    char model[64], dir[64];
    static result r;
    make_dir(dir);
    widen("deepseek-v2-lite", model);
    assert_int_equal(load(model, dir, 5000, &r), ASH_ENOSPC);
    assert_non_null(strstr(r.err.msg, "must be in memory"));
    assert_int_equal(load(model, NULL, 0, &r), 0);
    assert_int_equal(load(model, NULL, ash_expert_least(&r.sizes), &r), ASH_ENOENT);
    assert_non_null(strstr(r.err.msg, "state folder"));
    tiny_model m = TINY_DEFAULT;
    char path[64];
    assert_true(tiny_file(&m, path));
    assert_int_equal(load(path, dir, 5000, &r), ASH_ENOSPC);
    assert_non_null(strstr(r.err.msg, "no experts"));
    unlink(path);
    unwiden(model);
    remove_dir(dir);
}

/* Bytes of the weights of a model's folder. */
static uint64_t size_of(const char *model)
{
    char path[96];
    struct stat st;
    snprintf(path, sizeof path, "%s/model.safetensors", model);
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

/* Makes a model's folder and an empty state folder; the least that the model runs in. */
static uint64_t begin(char model[64], char dir[64])
{
    static result r;
    make_dir(dir);
    widen("deepseek-v2-lite", model);
    assert_int_equal(load(model, NULL, 0, &r), 0);
    return ash_expert_least(&r.sizes);
}

static void end(const char *model, const char *dir)
{
    remove_dir(dir);
    unwiden(model);
}

/* Three times bytes are gone through: what the files are, packing, the sums of what was made. */
static void tells_all_that_a_first_load_reads(void **state)
{
    char model[64], dir[64];
    static result r;
    uint64_t least = begin(model, dir), file = size_of(model);
    load_story first = {0};
    assert_int_equal(load_told(model, dir, 0, least, &first, &r), 0);
    assert_false(first.back);
    assert_true(first.calls > 2);
    assert_int_equal(first.done, first.total);
    assert_true(first.total > file + file / 2);
    load_story second = {0};
    assert_int_equal(load_told(model, dir, 0, least, &second, &r), 0);
    assert_false(second.back);
    assert_int_equal(second.calls, 0); /* nothing but the experts is read */
    end(model, dir);
}

/* What a first load learns by reading everything is not lost with it. */
static void learns_once(void **state)
{
    char model[64], dir[64];
    static result r;
    uint64_t least = begin(model, dir), file = size_of(model);
    load_story cut = {.stop_at = file + 1}; /* while it is packed */
    assert_int_equal(load_told(model, dir, 0, least, &cut, &r), ASH_ECANCELED);
    load_story again = {0};
    assert_int_equal(load_told(model, dir, 0, least, &again, &r), 0);
    assert_int_equal(again.total, cut.total - file);
    end(model, dir);
}

static void needs_its_disk_before_it_reads(void **state)
{
    char model[64], dir[64];
    static result r;
    uint64_t least = begin(model, dir);
    load_story t = {0};
    assert_int_equal(load_told(model, dir, 4096, least, &t, &r), ASH_EDISK);
    assert_int_equal(t.calls, 0);
    assert_non_null(strstr(r.err.msg, "ASHLEY_DISK_BUDGET"));
    assert_non_null(strstr(r.err.msg, "pack file"));
    assert_non_null(strstr(r.err.msg, dir));
    end(model, dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_within_its_budget),
        cmocka_unit_test(counts_what_decoding_meets),
        cmocka_unit_test(tells_a_cut_file),
        cmocka_unit_test(computes_alike),
        cmocka_unit_test(refuses),
        cmocka_unit_test(tells_all_that_a_first_load_reads),
        cmocka_unit_test(learns_once),
        cmocka_unit_test(needs_its_disk_before_it_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
