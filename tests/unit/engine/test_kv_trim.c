/* Memory of free KV blocks goes back to the machine once a while had no need of it, and only that: by what
 * the kernel says of the pool's pages, and of an engine's process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/pages.h"
#include "engine/kv_trim.h"
#include "jobs.h"

#define SECOND 1000000000ll

enum { BLOCKS = 64, KEEP = 4, LONG_NS = 1 << 30, CHAT = 600, KEPT = ASH_MAX_BATCH / ASH_KV_TOKENS };

typedef struct pool {
    ash_prefix_cache *cache;
    ash_kv *kv;
    ash_kv_trim trim;
    int32_t taken[BLOCKS];
} pool;

static pool *open_pool(int k_dim)
{
    const ash_kv_shape shape = {.layers = 2, .kv_heads = 1, .k_dim = k_dim, .v_dim = k_dim,
                                .type = ASH_KV_F16};
    pool *p = calloc(1, sizeof *p);
    assert_non_null(p);
    assert_int_equal(ash_kv_open(&shape, BLOCKS, &p->kv, NULL), 0);
    assert_int_equal(ash_prefix_cache_open(BLOCKS, ASH_KV_TOKENS, &p->cache, NULL), 0);
    p->trim = (ash_kv_trim){.cache = p->cache, .kv = p->kv, .keep = KEEP};
    return p;
}

static void close_pool(pool *p)
{
    ash_prefix_cache_close(p->cache);
    ash_kv_close(p->kv);
    free(p);
}

/* Takes n blocks and fills each with its number. */
static void take(pool *p, int n)
{
    for (int i = 0; i < n; i++) {
        p->taken[i] = ash_prefix_cache_take(p->cache, false);
        assert_true(p->taken[i] >= 0);
        memset(ash_kv_block(p->kv, p->taken[i]), p->taken[i] + 1, (size_t)p->kv->block_bytes);
    }
}

static void expect_filled(const pool *p, int from, int to)
{
    for (int i = from; i < to; i++) {
        const uint8_t *at = ash_kv_block(p->kv, p->taken[i]);
        for (int64_t k = 0; k < p->kv->block_bytes; k++) assert_int_equal(at[k], p->taken[i] + 1);
    }
}

/* Bytes of the pool that have memory. */
static int64_t resident(const pool *p)
{
    int64_t all = p->kv->blocks * p->kv->block_bytes;
    return all - (int64_t)ash_pages_untouched(p->kv->data, (uint64_t)all);
}

/* Blocks of four pages and a half; those from 11 to 50 are not needed, and go in that order or the other. */
static void expect_the_unneeded_to_go(bool last_first)
{
    pool *p = open_pool(72);
    int64_t now = 1;
    assert_int_equal(p->kv->block_bytes, 18432);
    assert_true(ash_kv_trim_turn(&p->trim, now, LONG_NS) == INT64_MAX);
    take(p, BLOCKS);
    assert_true(ash_kv_trim_turn(&p->trim, now, LONG_NS) == INT64_MAX); /* all are in use */
    for (int i = 0; i < 40; i++)
        ash_prefix_cache_give(p->cache, p->taken + (last_first ? 50 - i : 11 + i), 1);
    assert_int_equal(ash_prefix_cache_spare(p->cache), 40);
    int64_t at = ash_kv_trim_turn(&p->trim, now, LONG_NS);
    assert_true(at > now && at < now + 60 * SECOND);
    assert_true(ash_kv_trim_turn(&p->trim, at - 1, LONG_NS) == at);
    assert_int_equal(resident(p), BLOCKS * p->kv->block_bytes);
    assert_true(ash_kv_trim_turn(&p->trim, at, LONG_NS) == INT64_MAX);
    assert_int_equal(ash_prefix_cache_spare(p->cache), KEEP);
    assert_int_equal(ash_prefix_cache_resident(p->cache), BLOCKS - 40 + KEEP);
    /* but for two half pages whose other halves are in use */
    int64_t left = resident(p) - (BLOCKS - 40 + KEEP) * p->kv->block_bytes;
    assert_true(left >= 0 && left <= 4096);
    expect_filled(p, 0, 11);
    expect_filled(p, 51, BLOCKS);
    assert_int_equal(ash_prefix_cache_room(p->cache, false), 40);
    take(p, 40); /* what was kept first */
    assert_int_equal(ash_prefix_cache_spare(p->cache), 0);
    expect_filled(p, 0, 40);
    assert_int_equal(resident(p), BLOCKS * p->kv->block_bytes);
    close_pool(p);
}

static void what_a_while_did_not_need_goes(void **state)
{
    expect_the_unneeded_to_go(false);
    expect_the_unneeded_to_go(true);
}

static void what_is_used_again_and_again_stays(void **state)
{
    pool *p = open_pool(72);
    int64_t now = 1, at = 0;
    take(p, 40);
    ash_prefix_cache_give(p->cache, p->taken, 40);
    for (int i = 0; i < 200; i++, now += SECOND) { /* chats of 30 blocks, one after the other */
        take(p, 30);
        ash_prefix_cache_give(p->cache, p->taken, 30);
        at = ash_kv_trim_turn(&p->trim, now, LONG_NS);
        assert_true(at > now);
        assert_true(ash_prefix_cache_resident(p->cache) >= 30);
    }
    assert_int_equal(ash_prefix_cache_resident(p->cache), 30); /* the ten that they do not need have gone */
    assert_true(ash_kv_trim_turn(&p->trim, at, LONG_NS) > at); /* the while in which they were needed */
    at = ash_kv_trim_turn(&p->trim, at + 60 * SECOND, LONG_NS);
    assert_int_equal(ash_prefix_cache_resident(p->cache), KEEP);
    assert_true(at == INT64_MAX);
    close_pool(p);
}

static void a_step_gives_back_what_it_has_time_for(void **state)
{
    pool *p = open_pool(72);
    take(p, 40);
    ash_prefix_cache_give(p->cache, p->taken, 40);
    int64_t at = ash_kv_trim_turn(&p->trim, 1, 1);
    for (uint32_t left = 39; left > KEEP; left--) { /* a block at least */
        assert_true(ash_kv_trim_turn(&p->trim, at, 1) == at);
        assert_int_equal(ash_prefix_cache_spare(p->cache), left);
    }
    assert_true(ash_kv_trim_turn(&p->trim, at, 1) == INT64_MAX);
    assert_int_equal(ash_prefix_cache_spare(p->cache), KEEP);
    close_pool(p);
}

/* Several blocks to a page: only pages that are wholly of one block may go, of which there are none. */
static void small_blocks_lose_nothing(void **state)
{
    pool *p = open_pool(4);
    assert_true(p->kv->block_bytes < 4096);
    take(p, 60);
    ash_prefix_cache_give(p->cache, p->taken + 1, 50);
    int64_t at = ash_kv_trim_turn(&p->trim, 1, LONG_NS);
    ash_kv_trim_turn(&p->trim, at, LONG_NS);
    assert_int_equal(ash_prefix_cache_spare(p->cache), KEEP);
    expect_filled(p, 0, 1);
    expect_filled(p, 51, 60);
    close_pool(p);
}

/* ---- an engine ------------------------------------------------------------------------------ */

static atomic_llong ahead; /* of the machine's clock */

int64_t __real_ash_clock_ns(void);
int64_t __wrap_ash_clock_ns(void);

int64_t __wrap_ash_clock_ns(void)
{
    return __real_ash_clock_ns() + atomic_load(&ahead);
}

static int64_t process_bytes(void)
{
    long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d %lld", &pages), 1);
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

/* n chats at once, of that seed and those after it. */
static void run_chats(ash_engine *e, uint64_t seed, int n, told *t)
{
    static int32_t ids[CHAT];
    uint64_t id;
    for (int i = 0; i < n; i++) {
        prompt_ids(ids, CHAT, seed + (uint64_t)i);
        ash_job j = job_of(ids, CHAT, 2, &t[i]);
        told_init(&t[i]);
        assert_int_equal(ash_engine_submit(e, &j, &id, NULL), 0);
    }
    for (int i = 0; i < n; i++) told_wait(&t[i]);
}

static ash_engine_stats idle_stats(const ash_engine *e)
{
    ash_engine_stats s;
    while (ash_engine_get_stats(e, &s), s.running) usleep(1000);
    return s;
}

/* Sanitizers keep memory of their own beside the program's: the process tells nothing of the engine. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { PROCESS_TELLS = 0 };
#else
enum { PROCESS_TELLS = 1 };
#endif

static bool is_what_it_took(int64_t said, int64_t took)
{
    enum { SLACK = 1 << 20 };
    return !PROCESS_TELLS || llabs(took - said) < took * 3 / 100 + SLACK;
}

/* What the process has grown by is what the engine says it has touched, within 3 %, after many chats, while
 * blocks wait to be used again, and after they were given back; and a text is the same on new pages. */
static void an_engine_takes_what_it_says(void **state)
{
    enum { POOL = 8 << 20, CHATS = 16 };
    static told t, again[CHATS];
    tiny_model m = TINY_DEFAULT;
    m.tokenizer = true;
    m.layers = m.kv_heads = 4;
    m.ctx = 2 * CHAT;
    const ash_engine_opts opts = {.cpu = ash_cpu_get()->level, .threads = 1, .kv_bytes = POOL};
    ash_engine *e = engine_of(&m, opts);
    assert_non_null(e);
    run_chats(e, 0, 1, &t);
    int64_t before = process_bytes(), said = (int64_t)ash_engine_untouched(e);
    run_chats(e, 1, CHATS, again);
    ash_engine_stats s = idle_stats(e);
    uint32_t spare = s.kv_blocks_resident - s.kv_blocks_cached;
    int64_t block = POOL / s.kv_blocks;
    assert_true(s.kv_blocks_cached >= s.kv_blocks / 2);
    assert_true(spare >= s.kv_blocks / 8); /* of what was evicted */
    int64_t took = process_bytes() - before, touched = said - (int64_t)ash_engine_untouched(e);
    assert_true(is_what_it_took(touched, took));

    do { /* a while ends, and another, of which something else tells the scheduler */
        static float logits[1000];
        atomic_fetch_add(&ahead, 20 * SECOND);
        assert_int_equal(ash_engine_eval(e, again[0].ids, 1, false, logits, NULL), 0);
        s = idle_stats(e);
    } while (s.kv_blocks_resident - s.kv_blocks_cached > KEPT);
    if (PROCESS_TELLS)
        assert_true(took - (process_bytes() - before) > (int64_t)(spare - KEPT) * block / 2);
    took = process_bytes() - before;
    touched = said - (int64_t)ash_engine_untouched(e);
    assert_true(is_what_it_took(touched, took));

    run_chats(e, 0, 1, again);
    assert_int_equal(again[0].usage.cached_tokens, 0); /* it was evicted */
    assert_int_equal(again[0].n_ids, t.n_ids);
    assert_memory_equal(again[0].ids, t.ids, (size_t)t.n_ids * sizeof *t.ids);
    ash_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_while_did_not_need_goes),
        cmocka_unit_test(what_is_used_again_and_again_stays),
        cmocka_unit_test(a_step_gives_back_what_it_has_time_for),
        cmocka_unit_test(small_blocks_lose_nothing),
        cmocka_unit_test(an_engine_takes_what_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
