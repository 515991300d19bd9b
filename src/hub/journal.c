/* Owns the journal beside an unfinished file: which of its chunks are on disk, with a checksum each.
 * All little-endian:
 *
 *   header   "ASHHUBJ1", size u64, bytes of a chunk u64, checksum of these 24 bytes u64
 *   record   chunk u64, its checksum u64, checksum of these 16 bytes u64
 *
 * A record is appended when its chunk was written, without a wait for the disk: after a crash of the
 * machine a chunk may be missing that has a record, and then its sum is wrong. A chunk is believed only
 * after it was read and summed. The last record of a chunk counts. Refuses nothing: a damaged journal
 * only knows less. One thread a descriptor. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "hub/hub_private.h"

enum { HEADER = 32, RECORD = 24, BATCH = 1024, MOST_PER_CHUNK = 8 };

uint32_t hub_chunks(uint64_t size)
{
    return (uint32_t)(size / ASH_HUB_CHUNK + (size % ASH_HUB_CHUNK != 0));
}

static uint64_t get(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return le64toh(v);
}

static void put(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, 8);
}

static void make_header(uint8_t out[HEADER], uint64_t size)
{
    memcpy(out, "ASHHUBJ1", 8);
    put(out + 8, size);
    put(out + 16, ASH_HUB_CHUNK);
    put(out + 24, ash_checksum(out, 24));
}

static bool read_at(int fd, void *out, size_t n, uint64_t at, size_t *got)
{
    for (*got = 0; *got < n;) {
        ssize_t r = pread(fd, (char *)out + *got, n - *got, (off_t)(at + *got));
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return false;
        if (!r) break;
        *got += (size_t)r;
    }
    return true;
}

uint32_t hub_journal_read(int fd, uint64_t size, uint8_t *known, uint64_t *sums, uint64_t *good)
{
    uint8_t want[HEADER], have[HEADER], records[BATCH * RECORD];
    uint32_t chunks = hub_chunks(size), n = 0;
    size_t got;
    uint64_t at = HEADER, end = HEADER + (uint64_t)chunks * MOST_PER_CHUNK * RECORD;
    if (good) *good = 0;
    make_header(want, size);
    if (!read_at(fd, have, HEADER, 0, &got) || got != HEADER || memcmp(want, have, HEADER))
        return 0;
    while (at < end && read_at(fd, records, sizeof records, at, &got) && got >= RECORD) {
        size_t i = 0;
        for (; i + RECORD <= got; i += RECORD) {
            uint64_t chunk = get(records + i);
            if (get(records + i + 16) != ash_checksum(records + i, 16) || chunk >= chunks) break;
            n += !known[chunk];
            known[chunk] = 1;
            sums[chunk] = get(records + i + 8);
        }
        at += i;
        if (i + RECORD <= got || got < sizeof records) break;
    }
    if (good) *good = at < end ? at : 0; /* grown without measure: begun anew */
    return n;
}

static int write_whole(int fd, const void *p, size_t n)
{
    ssize_t w;
    do w = write(fd, p, n);
    while (w < 0 && errno == EINTR);
    if (w >= 0 && (size_t)w != n) errno = ENOSPC;
    return w >= 0 && (size_t)w == n ? 0 : -1;
}

int hub_journal_open(const char *path, uint64_t size, uint64_t good, int *fd, ash_err *err)
{
    uint8_t header[HEADER];
    *fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (*fd < 0) return hub_os_error(err, "open", path);
    int failed = ftruncate(*fd, (off_t)good);
    if (!failed && !good) {
        make_header(header, size);
        failed = write_whole(*fd, header, HEADER);
    }
    if (!failed) return 0;
    int rc = hub_os_error(err, "write", path);
    close(*fd);
    *fd = -1;
    return rc;
}

int hub_journal_add(int fd, uint32_t chunk, uint64_t sum, ash_err *err)
{
    uint8_t r[RECORD];
    put(r, chunk);
    put(r + 8, sum);
    put(r + 16, ash_checksum(r, 16));
    return write_whole(fd, r, RECORD) ? hub_os_error(err, "write", "a journal of the cache") : 0;
}

uint64_t hub_journal_bytes(const char *path, uint64_t size)
{
    uint32_t chunks = hub_chunks(size);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *known = fd < 0 ? NULL : calloc(chunks, 1);
    uint64_t *sums = fd < 0 ? NULL : calloc(chunks, sizeof *sums);
    uint64_t bytes = 0;
    if (known && sums) {
        hub_journal_read(fd, size, known, sums, NULL);
        for (uint32_t i = 0; i < chunks; i++)
            if (known[i]) bytes += hub_chunk_end(size, i) - (uint64_t)i * ASH_HUB_CHUNK;
    }
    free(known);
    free(sums);
    if (fd >= 0) close(fd);
    return bytes;
}
