/* Maps the rest of a pack file that a model runs from, in the background.
 *
 * What loading and warming up touch is in the process by then; the rows of an embedding beside a head of its
 * own are not, but for those of tokens that were seen: each new token of a chat would wait for a page, on a
 * cold machine for the disk, and the process would have less than the model is charged. */
#ifndef ASHLEY_ENGINE_POPULATE_H
#define ASHLEY_ENGINE_POPULATE_H

#include <stddef.h>

typedef struct ash_populate ash_populate;

/* Begins, on a thread of the least priority; the mapping [at, at + bytes), at on a page's border, lives until
 * close. NULL where there is no thread or no memory for it: pages come when they are touched. */
ash_populate *ash_populate_start(const void *at, size_t bytes);
/* Ends the work, after at most one piece of 2 MiB, and frees; NULL is fine. */
void ash_populate_close(ash_populate *p);

#endif
