/* Owns a ring and the list of reads in flight. Refuses nothing: reads end with an error of their
 * own. One thread. */
#include "base/reads.h"

#include <errno.h>
#include <liburing.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/library.h"

enum { MAX_DEPTH = 4096, MOST = 1 << 30 /* bytes of one request: its length is an unsigned */ };

/* What liburing does not have as inline functions. */
typedef struct liburing {
    int (*init)(unsigned entries, struct io_uring *ring, unsigned flags);
    void (*exit)(struct io_uring *ring);
    int (*submit_and_wait)(struct io_uring *ring, unsigned n);
} liburing;

typedef struct flight {
    int fd;
    char *to;
    size_t left;
    uint64_t at;
    int *state; /* NULL: not in use */
} flight;

struct ash_reads {
    liburing lib;
    struct io_uring ring;
    bool together;
    unsigned depth, busy;
    unsigned *idle; /* [depth - busy]: indices of those not in use */
    flight flights[];
};

int ash_reads_open(unsigned depth, ash_reads **out, ash_err *err)
{
    static const ash_symbol symbols[] = {
        {"io_uring_queue_init", offsetof(liburing, init)},
        {"io_uring_queue_exit", offsetof(liburing, exit)},
        {"io_uring_submit_and_wait", offsetof(liburing, submit_and_wait)},
    };
    *out = NULL;
    if (depth < 1 || depth > MAX_DEPTH)
        return ash_err_set(err, ASH_EINVAL, "%u reads in flight; 1 to %d", depth, MAX_DEPTH);
    ash_reads *r = calloc(1, sizeof *r + depth * sizeof *r->flights);
    unsigned *idle = calloc(depth, sizeof *idle);
    if (!r || !idle) {
        free(r);
        free(idle);
        return ash_err_nomem(err, "reads");
    }
    r->depth = depth;
    r->idle = idle;
    for (unsigned i = 0; i < depth; i++) idle[i] = i;
    r->together = !ash_library_open("liburing.so.2", symbols, sizeof symbols / sizeof *symbols,
                                    &r->lib, NULL) &&
                  r->lib.init(depth, &r->ring, 0) == 0;
    *out = r;
    return 0;
}

bool ash_reads_together(const ash_reads *r)
{
    return r->together;
}

/* ---- one after the other -------------------------------------------------------------------- */

static int read_now(int fd, char *to, size_t n, uint64_t at)
{
    while (n) {
        ssize_t got = pread(fd, to, n < MOST ? n : MOST, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got < 0 ? ASH_EIO : ASH_EFORMAT;
        to += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

/* ---- together ------------------------------------------------------------------------------- */

/* The ring has as many places as there are flights: there is one for each. */
static void queue(ash_reads *r, unsigned i)
{
    flight *f = &r->flights[i];
    struct io_uring_sqe *e = io_uring_get_sqe(&r->ring);
    io_uring_prep_read(e, f->fd, f->to, (unsigned)(f->left < MOST ? f->left : MOST), f->at);
    io_uring_sqe_set_data64(e, i);
}

static void land(ash_reads *r, unsigned i, int rc)
{
    *r->flights[i].state = rc;
    r->flights[i].state = NULL;
    r->idle[r->depth - r->busy] = i;
    r->busy--;
}

static void take_in(ash_reads *r, unsigned i, int res)
{
    flight *f = &r->flights[i];
    if (res == -EINTR || res == -EAGAIN) {
        queue(r, i);
    } else if (res <= 0) {
        land(r, i, res ? ASH_EIO : ASH_EFORMAT);
    } else {
        f->to += res;
        f->at += (uint64_t)res;
        f->left -= (size_t)res;
        if (f->left)
            queue(r, i);
        else
            land(r, i, 0);
    }
}

/* The ring itself failed: what is in flight is read again, here. If the kernel still ends one of
 * those reads it writes the same bytes to the same place. */
static void do_without(ash_reads *r)
{
    r->lib.exit(&r->ring);
    r->together = false;
    for (unsigned i = 0; i < r->depth; i++) {
        flight *f = &r->flights[i];
        if (f->state) land(r, i, read_now(f->fd, f->to, f->left, f->at));
    }
}

void ash_reads_step(ash_reads *r, bool wait)
{
    if (!r->busy) return;
    int rc = r->lib.submit_and_wait(&r->ring, wait ? 1 : 0);
    if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
        do_without(r);
        return;
    }
    struct io_uring_cqe *c;
    unsigned head, n = 0;
    io_uring_for_each_cqe(&r->ring, head, c)
    {
        take_in(r, (unsigned)io_uring_cqe_get_data64(c), c->res);
        n++;
    }
    io_uring_cq_advance(&r->ring, n);
}

void ash_reads_begin(ash_reads *r, int fd, void *to, size_t n, uint64_t at, int *state)
{
    *state = ASH_READ_BUSY;
    while (r->together && r->busy == r->depth) ash_reads_step(r, true);
    if (!r->together || !n) {
        *state = read_now(fd, to, n, at);
        return;
    }
    unsigned i = r->idle[r->depth - ++r->busy];
    r->flights[i] = (flight){.fd = fd, .to = to, .left = n, .at = at, .state = state};
    queue(r, i);
}

void ash_reads_close(ash_reads *r)
{
    if (!r) return;
    while (r->together && r->busy) ash_reads_step(r, true);
    if (r->together) r->lib.exit(&r->ring);
    free(r->idle);
    free(r);
}
