/* Which pages of a mapping have memory: mincore(2). Any thread. */
#ifndef ASHLEY_BASE_PAGES_H
#define ASHLEY_BASE_PAGES_H

#include <stdint.h>

/* Bytes of at[0..bytes), private memory that was mapped at a page's start, that nobody has touched yet, or
 * whose pages were given back. 0 where the kernel does not tell. About 10 us for 10 MB; NULL has none. */
uint64_t ash_pages_untouched(const void *at, uint64_t bytes);

#endif
