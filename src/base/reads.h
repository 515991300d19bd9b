/* Reads of files, many in flight at once, by io_uring (io_uring(7)). Where the kernel or a sandbox
 * refuses that, or liburing is not there, each read is done before it returns: slower, and right.
 *
 * One thread. Reading into memory that a descriptor with O_DIRECT fills leaves no copy in the page
 * cache. */
#ifndef ASHLEY_BASE_READS_H
#define ASHLEY_BASE_READS_H

#include <stdint.h>

#include "base/err.h"

typedef struct ash_reads ash_reads;

enum { ASH_READ_BUSY = 1 }; /* what a read's state is until it is 0 or an error */

/* depth: reads in flight at most, 1 to 4096. ASH_EINVAL, ASH_ENOMEM. */
int ash_reads_open(unsigned depth, ash_reads **out, ash_err *err) ASH_MUST_CHECK;
/* Whether reads are in flight at once; false: one after the other. */
bool ash_reads_together(const ash_reads *r);
/* Begins to read n bytes of fd from `at` on (for O_DIRECT all three aligned as the file system
 * asks); waits first while `depth` are in flight. *state is ASH_READ_BUSY until a later call of
 * this file finds that the read has ended: 0, ASH_EFORMAT (the file ends before), ASH_EIO. `to` and
 * state are borrowed until then. */
void ash_reads_begin(ash_reads *r, int fd, void *to, size_t n, uint64_t at, int *state);
/* Hands over what was begun and takes in what has ended; with `wait`, if any is in flight, at least
 * one. */
void ash_reads_step(ash_reads *r, bool wait);
/* Waits for all that are in flight; frees. NULL is fine. */
void ash_reads_close(ash_reads *r);

#endif
