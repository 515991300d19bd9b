/* Owns the question which pages have memory. */
#include "base/pages.h"

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

uint64_t ash_pages_untouched(const void *at, uint64_t bytes)
{
    unsigned char have[4096];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), most = sizeof have * page, left = 0;
    for (uint64_t from = 0; at && from < bytes; from += most) {
        uint64_t n = bytes - from < most ? bytes - from : most;
        if (mincore((char *)at + from, n, have))
            return 0;
        for (uint64_t i = 0; i < (n + page - 1) / page; i++)
            left += have[i] & 1 ? 0 : page;
    }
    return left < bytes ? left : bytes;
}
