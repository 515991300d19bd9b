/* The ring between a connection and the hash: pieces come out as they went in, a buffer is in one place only,
 * and who waits for room is woken by who makes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <stdlib.h>

#include "hub/job.h"

enum { FOREVER_MS = 60000 };

typedef struct fixture {
    hub_ring ring;
    pthread_mutex_t lock;
    uint8_t *mine; /* the connection's buffer */
    uint64_t end;
} fixture;

static void begin(fixture *f)
{
    ash_err err = ASH_ERR_INIT;
    *f = (fixture){.mine = malloc(HUB_PIECE), .end = 0};
    assert_non_null(f->mine);
    pthread_mutex_init(&f->lock, NULL);
    assert_int_equal(hub_ring_open(&f->ring, &err), 0);
}

static void finish(fixture *f)
{
    hub_ring_close(&f->ring);
    pthread_mutex_destroy(&f->lock);
    free(f->mine);
}

static bool put(fixture *f)
{
    memset(f->mine, (int)(f->end & 0xFF), HUB_PIECE); /* the whole buffer is the connection's */
    if (!hub_ring_put(&f->ring, NULL, &f->mine, 100 + (size_t)f->end, f->end)) return false;
    f->end++;
    return true;
}

static void comes_out(fixture *f, uint64_t end)
{
    const hub_piece *p = hub_ring_first(&f->ring);
    assert_non_null(p);
    assert_true(p->end == end && p->n == 100 + end);
    assert_true(p->data[0] == (end & 0xFF) && p->data[HUB_PIECE - 1] == (end & 0xFF));
    hub_ring_pop(&f->ring);
}

static void pieces_come_out_as_they_went_in(void **state)
{
    fixture f;
    uint64_t next = 0;
    begin(&f);
    assert_null(hub_ring_first(&f.ring));
    for (int turn = 0; turn < 5 * HUB_PIECES; turn++) {
        for (int i = 0; i < 1 + turn % 3; i++) put(&f);
        for (int i = 0; i < 1 + (turn + 1) % 3 && next < f.end; i++) comes_out(&f, next++);
    }
    while (next < f.end) comes_out(&f, next++);
    assert_null(hub_ring_first(&f.ring));
    finish(&f);
}

static void a_full_one_takes_nothing(void **state)
{
    fixture f;
    begin(&f);
    for (int i = 0; i < HUB_PIECES; i++) assert_true(put(&f));
    uint8_t *mine = f.mine;
    assert_false(put(&f));
    assert_ptr_equal(f.mine, mine);
    for (uint64_t i = 0; i < HUB_PIECES; i++) comes_out(&f, i);
    finish(&f);
}

static void *make_room(void *user)
{
    fixture *f = user;
    pthread_mutex_lock(&f->lock);
    while (hub_ring_first(&f->ring)) hub_ring_pop(&f->ring);
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

static void room_ends_the_wait(void **state)
{
    fixture f;
    pthread_t other;
    begin(&f);
    pthread_mutex_lock(&f.lock);
    hub_ring_await(&f.ring, &f.lock, FOREVER_MS); /* there is room */
    while (put(&f)) continue;
    hub_ring_await(&f.ring, &f.lock, 1); /* nobody makes any */
    assert_int_equal(f.ring.n, HUB_PIECES);
    assert_int_equal(pthread_create(&other, NULL, make_room, &f), 0);
    hub_ring_await(&f.ring, &f.lock, FOREVER_MS);
    assert_true(put(&f));
    pthread_mutex_unlock(&f.lock);
    pthread_join(other, NULL);
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_come_out_as_they_went_in),
        cmocka_unit_test(a_full_one_takes_nothing),
        cmocka_unit_test(room_ends_the_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
