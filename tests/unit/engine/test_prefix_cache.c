/* The prefix cache: sharing, eviction in order of use, the rights of background work, and a long random
 * run against a simple model of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "engine/prefix_cache.h"

enum { BLOCK = 4 };

static ash_prefix_cache *make(uint32_t blocks)
{
    ash_prefix_cache *c;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_prefix_cache_open(blocks, BLOCK, &c, &err), 0);
    return c;
}

/* Takes and publishes n blocks over ids; out[] their numbers. */
static void fill(ash_prefix_cache *c, const int32_t *ids, uint32_t n, bool background, int32_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        int32_t b = ash_prefix_cache_take(c, background);
        assert_true(b >= 0);
        out[i] = ash_prefix_cache_publish(c, i ? out[i - 1] : -1, b, ids + i * BLOCK, background);
    }
}

static void shares_what_was_published(void **state)
{
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    static const int32_t other[] = {1, 2, 3, 4, 5, 6, 7, 9, 9, 10, 11, 12};
    ash_prefix_cache *c = make(8);
    int32_t a[3], b[3];
    fill(c, ids, 3, false, a);
    ash_prefix_cache_give(c, a, 3);
    assert_int_equal(ash_prefix_cache_cached(c), 3);
    assert_int_equal(ash_prefix_cache_used(c), 0);
    assert_int_equal(ash_prefix_cache_extend(c, -1, ids, 3, false, b), 3);
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(ash_prefix_cache_used(c), 3);
    ash_prefix_cache_give(c, b, 3);
    assert_int_equal(ash_prefix_cache_extend(c, -1, other, 3, false, b), 1);
    assert_int_equal(ash_prefix_cache_extend(c, b[0], other + BLOCK, 2, false, b + 1), 0);
    ash_prefix_cache_give(c, b, 1);
    /* the same tokens after another start are another prefix */
    assert_int_equal(ash_prefix_cache_extend(c, -1, ids + BLOCK, 2, false, b), 0);
    ash_prefix_cache_close(c);
}

static void equal_blocks_become_one(void **state)
{
    static const int32_t ids[] = {1, 2, 3, 4};
    ash_prefix_cache *c = make(4);
    int32_t a, b;
    fill(c, ids, 1, false, &a);
    fill(c, ids, 1, false, &b);
    assert_int_equal(a, b);
    assert_int_equal(ash_prefix_cache_used(c), 1);
    ash_prefix_cache_give(c, &a, 1);
    assert_int_equal(ash_prefix_cache_cached(c), 0);
    ash_prefix_cache_give(c, &b, 1);
    assert_int_equal(ash_prefix_cache_cached(c), 1);
    ash_prefix_cache_close(c);
}

static void parts_are_found_by_what_they_begin_with(void **state)
{
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8}, ask[] = {5, 6, 9, 9}, odd[] = {6, 6, 7, 8};
    ash_prefix_cache *c = make(8);
    int32_t a, found = -1;
    fill(c, ids, 1, false, &a);
    int32_t part = ash_prefix_cache_take(c, false), same = ash_prefix_cache_take(c, false);
    ash_prefix_cache_publish_part(c, a, part, ids + 4, 3, false);
    ash_prefix_cache_publish_part(c, a, same, ids + 4, 2, false); /* adds nothing */
    ash_prefix_cache_give(c, &part, 1);
    ash_prefix_cache_give(c, &same, 1);
    assert_int_equal(ash_prefix_cache_cached(c), 1);
    assert_int_equal(ash_prefix_cache_nearest(c, a, ids + 4, 4, false, &found), 3);
    assert_int_equal(found, part);
    assert_int_equal(ash_prefix_cache_nearest(c, a, ids + 4, 1, false, &found), 1);
    assert_int_equal(ash_prefix_cache_nearest(c, a, ask, 4, false, &found), 2);
    assert_int_equal(ash_prefix_cache_nearest(c, a, odd, 4, false, &found), 0);
    assert_int_equal(ash_prefix_cache_nearest(c, -1, ids + 4, 4, false, &found), 0);
    /* a part is no whole block */
    assert_int_equal(ash_prefix_cache_extend(c, a, ids + 4, 1, false, &found), 0);
    /* a whole one serves as well, also while it is in use */
    int32_t b = ash_prefix_cache_take(c, false);
    assert_int_equal(ash_prefix_cache_publish(c, a, b, ids + 4, false), b);
    assert_int_equal(ash_prefix_cache_nearest(c, a, ids + 4, 4, false, &found), 4);
    assert_int_equal(found, b);
    ash_prefix_cache_give(c, &b, 1);
    ash_prefix_cache_give(c, &a, 1);
    ash_prefix_cache_clear(c);
    assert_int_equal(ash_prefix_cache_room(c, true), 8);
    assert_int_equal(ash_prefix_cache_nearest(c, -1, ids, 4, false, &found), 0);
    ash_prefix_cache_close(c);
}

static void a_part_that_is_used_stays(void **state)
{
    static const int32_t old[] = {1, 1}, new[] = {2, 2};
    ash_prefix_cache *c = make(4); /* of which 3 may be cached */
    int32_t found, part[2] = {ash_prefix_cache_take(c, true), ash_prefix_cache_take(c, true)};
    ash_prefix_cache_publish_part(c, -1, part[0], old, 2, true);
    ash_prefix_cache_give(c, &part[0], 1);
    ash_prefix_cache_publish_part(c, -1, part[1], new, 2, true);
    ash_prefix_cache_give(c, &part[1], 1);
    assert_int_equal(ash_prefix_cache_nearest(c, -1, old, 2, true, &found), 2);
    int32_t taken[3];
    for (int i = 0; i < 3; i++) taken[i] = ash_prefix_cache_take(c, true);
    assert_int_equal(ash_prefix_cache_nearest(c, -1, new, 2, true, &found), 0);
    assert_int_equal(ash_prefix_cache_nearest(c, -1, old, 2, false, &found), 2);
    assert_int_equal(ash_prefix_cache_take(c, true), -1); /* a chat's now */
    ash_prefix_cache_give(c, taken, 3);
    ash_prefix_cache_close(c);
}

static void unsaved_blocks_are_told_from_their_start(void **state)
{
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8}, title[] = {9, 9, 9, 9};
    ash_prefix_cache *c = make(8);
    int32_t a[2], b, part, chain[8];
    assert_int_equal(ash_prefix_cache_unsaved(c), -1);
    fill(c, ids, 2, false, a);
    part = ash_prefix_cache_take(c, false);
    ash_prefix_cache_publish_part(c, a[1], part, ids, 3, false);
    assert_int_equal(ash_prefix_cache_unsaved(c), -1); /* they are in use */
    ash_prefix_cache_give(c, &part, 1);
    ash_prefix_cache_give(c, a, 2);
    assert_int_equal(ash_prefix_cache_unsaved(c), a[0]);
    ash_prefix_cache_mark_saved(c, a[0]);
    assert_int_equal(ash_prefix_cache_unsaved(c), a[1]);
    assert_int_equal(ash_prefix_cache_chain(c, a[1], chain), 2);
    assert_int_equal(chain[0], a[0]);
    assert_int_equal(chain[1], a[1]);
    assert_memory_equal(ash_prefix_cache_ids(c, a[1]), ids + 4, sizeof ids / 2);
    ash_prefix_cache_mark_saved(c, a[1]);
    assert_int_equal(ash_prefix_cache_unsaved(c), -1); /* parts are not worth it */
    fill(c, title, 1, true, &b);
    ash_prefix_cache_give(c, &b, 1);
    assert_int_equal(ash_prefix_cache_unsaved(c), -1); /* nor is background work */
    assert_int_equal(ash_prefix_cache_extend(c, -1, title, 1, false, &b), 1);
    ash_prefix_cache_give(c, &b, 1);
    assert_int_equal(ash_prefix_cache_unsaved(c), b);
    ash_prefix_cache_clear(c);
    assert_int_equal(ash_prefix_cache_unsaved(c), -1);
    fill(c, ids, 2, false, a); /* a new block is not what was saved in its place */
    ash_prefix_cache_give(c, a, 2);
    assert_int_equal(ash_prefix_cache_unsaved(c), a[0]);
    ash_prefix_cache_close(c);
}

static void oldest_goes_first_and_tails_before_heads(void **state)
{
    static const int32_t old[] = {1, 1, 1, 1, 2, 2, 2, 2}, new[] = {3, 3, 3, 3};
    ash_prefix_cache *c = make(4); /* of which 3 may be cached */
    int32_t a[2], b[2], d[2];
    fill(c, old, 2, false, a);
    ash_prefix_cache_give(c, a, 2);
    fill(c, new, 1, false, b);
    ash_prefix_cache_give(c, b, 1);
    assert_int_equal(ash_prefix_cache_room(c, false), 4);
    d[0] = ash_prefix_cache_take(c, false);
    d[1] = ash_prefix_cache_take(c, false); /* the second evicts: the tail of `old` */
    assert_int_equal(ash_prefix_cache_cached(c), 2);
    int32_t found[2];
    assert_int_equal(ash_prefix_cache_extend(c, -1, old, 2, false, found), 1);
    ash_prefix_cache_give(c, found, 1);
    assert_int_equal(ash_prefix_cache_extend(c, -1, new, 1, false, found), 1);
    ash_prefix_cache_give(c, found, 1);
    ash_prefix_cache_give(c, d, 2);
    ash_prefix_cache_clear(c);
    assert_int_equal(ash_prefix_cache_cached(c), 0);
    assert_int_equal(ash_prefix_cache_room(c, true), 4);
    ash_prefix_cache_close(c);
}

static void background_spares_chats(void **state)
{
    static const int32_t chat[] = {1, 1, 1, 1, 2, 2, 2, 2}, title[] = {3, 3, 3, 3};
    ash_prefix_cache *c = make(4);
    int32_t a[2], b[2], found[2];
    fill(c, chat, 2, false, a);
    ash_prefix_cache_give(c, a, 2);
    fill(c, title, 1, true, b);
    ash_prefix_cache_give(c, b, 1);
    assert_int_equal(ash_prefix_cache_room(c, true), 2);
    b[0] = ash_prefix_cache_take(c, true);
    b[1] = ash_prefix_cache_take(c, true); /* its own prefix goes */
    assert_int_equal(ash_prefix_cache_take(c, true), -1);
    assert_int_equal(ash_prefix_cache_extend(c, -1, chat, 2, true, found), 2);
    ash_prefix_cache_give(c, found, 2);
    int32_t more = ash_prefix_cache_take(c, false); /* a chat may have them */
    assert_true(more >= 0);
    ash_prefix_cache_give(c, &more, 1);
    ash_prefix_cache_give(c, b, 2);
    /* what background work made and a chat then used is a chat's */
    fill(c, title, 1, true, b);
    ash_prefix_cache_give(c, b, 1);
    assert_int_equal(ash_prefix_cache_extend(c, -1, title, 1, false, found), 1);
    ash_prefix_cache_give(c, found, 1);
    uint32_t room = ash_prefix_cache_room(c, true);
    assert_int_equal(room, 4 - ash_prefix_cache_cached(c));
    ash_prefix_cache_close(c);
}

static void a_quarter_is_kept_clear(void **state)
{
    int32_t ids[8 * BLOCK], a[8];
    for (int i = 0; i < 8 * BLOCK; i++) ids[i] = i;
    ash_prefix_cache *c = make(8);
    fill(c, ids, 8, false, a);
    ash_prefix_cache_give(c, a, 8);
    assert_int_equal(ash_prefix_cache_cached(c), 6);
    assert_int_equal(ash_prefix_cache_room(c, true), 2);
    assert_int_equal(ash_prefix_cache_extend(c, -1, ids, 8, false, a), 6); /* the head was kept */
    ash_prefix_cache_give(c, a, 6);
    ash_prefix_cache_close(c);
}

/* Sequences over a small alphabet come and go; after each, whatever is found must be what was put. */
static void random_run(void **state)
{
    enum { BLOCKS = 24, SEQS = 6, LEN = 6 };
    ash_prefix_cache *c = make(BLOCKS);
    int32_t content[BLOCKS][(LEN + 1) * BLOCK]; /* whole prefix that a block stands for */
    uint32_t depth[BLOCKS] = {0};
    int32_t seq[SEQS][LEN], ids[SEQS][LEN * BLOCK];
    uint32_t n[SEQS] = {0}, part[SEQS] = {0};
    bool background[SEQS] = {0};
    ash_rng r;
    ash_rng_init(&r, 7);
    for (int round = 0; round < 20000; round++) {
        int s = (int)(ash_rng_u64(&r) % SEQS);
        if (n[s]) {
            if (part[s]) { /* the last one, which is not published */
                ash_prefix_cache_publish_part(c, n[s] > 1 ? seq[s][n[s] - 2] : -1, seq[s][n[s] - 1],
                                              ids[s] + (n[s] - 1) * BLOCK, part[s], background[s]);
                depth[seq[s][n[s] - 1]] = n[s];
                memcpy(content[seq[s][n[s] - 1]], ids[s], n[s] * BLOCK * sizeof(int32_t));
            }
            ash_prefix_cache_give(c, seq[s], n[s]);
            n[s] = part[s] = 0;
            continue;
        }
        background[s] = ash_rng_u64(&r) % 4 == 0;
        uint32_t want = 1 + (uint32_t)(ash_rng_u64(&r) % LEN);
        for (int i = 0; i < LEN * BLOCK; i++)
            ids[s][i] = i % BLOCK ? 0 : (int32_t)(ash_rng_u64(&r) % 2);
        n[s] = ash_prefix_cache_extend(c, -1, ids[s], want, background[s], seq[s]);
        for (uint32_t i = 0; i < n[s]; i++) {
            assert_int_equal(depth[seq[s][i]], i + 1);
            assert_memory_equal(content[seq[s][i]], ids[s], (i + 1) * BLOCK * sizeof(int32_t));
        }
        for (; n[s] < want; n[s]++) {
            int32_t b = ash_prefix_cache_take(c, background[s]);
            if (b < 0)
                break;
            int32_t p = ash_prefix_cache_publish(c, n[s] ? seq[s][n[s] - 1] : -1, b,
                                                 ids[s] + n[s] * BLOCK, background[s]);
            if (p == b) {
                depth[b] = n[s] + 1;
                memcpy(content[b], ids[s], (n[s] + 1) * BLOCK * sizeof(int32_t));
            }
            seq[s][n[s]] = p;
        }
        int32_t last = n[s] == want && want < LEN ? ash_prefix_cache_take(c, background[s]) : -1;
        if (last >= 0) {
            int32_t near;
            uint32_t same = ash_prefix_cache_nearest(c, seq[s][n[s] - 1], ids[s] + n[s] * BLOCK, BLOCK,
                                                     background[s], &near);
            if (same) {
                assert_int_equal(depth[near], n[s] + 1);
                assert_memory_equal(content[near], ids[s], (n[s] * BLOCK + same) * sizeof(int32_t));
            }
            seq[s][n[s]++] = last;
            part[s] = 1 + (uint32_t)(ash_rng_u64(&r) % (BLOCK - 1));
        }
        uint32_t used = ash_prefix_cache_used(c), cached = ash_prefix_cache_cached(c);
        assert_true(used + cached <= BLOCKS);
        assert_int_equal(ash_prefix_cache_room(c, false), BLOCKS - used);
        assert_int_equal(ash_prefix_cache_resident(c), used + cached + ash_prefix_cache_spare(c));
        if (round % 7 == 0) {
            uint32_t spare = ash_prefix_cache_spare(c);
            int32_t shed = ash_prefix_cache_shed(c);
            assert_int_equal(shed >= 0, spare > 0);
            assert_true(shed < 0 || !ash_prefix_cache_has_memory(c, shed));
            assert_int_equal(ash_prefix_cache_spare(c), spare - (shed >= 0));
            assert_int_equal(ash_prefix_cache_room(c, false), BLOCKS - used);
        }
    }
    for (int s = 0; s < SEQS; s++) ash_prefix_cache_give(c, seq[s], n[s]);
    assert_int_equal(ash_prefix_cache_used(c), 0);
    ash_prefix_cache_clear(c);
    assert_int_equal(ash_prefix_cache_room(c, true), BLOCKS);
    ash_prefix_cache_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_what_was_published),
        cmocka_unit_test(equal_blocks_become_one),
        cmocka_unit_test(parts_are_found_by_what_they_begin_with),
        cmocka_unit_test(unsaved_blocks_are_told_from_their_start),
        cmocka_unit_test(a_part_that_is_used_stays),
        cmocka_unit_test(oldest_goes_first_and_tails_before_heads),
        cmocka_unit_test(background_spares_chats),
        cmocka_unit_test(a_quarter_is_kept_clear),
        cmocka_unit_test(random_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
