/* A file of a prompt's keys and values -> its blocks, as a restart reads them. The input is the file; once as
 * it is, and once with the head's checksum made right, so that what is behind it is met too. Only the file
 * that was asked for may be read, and every block that is given out has its checksum. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "engine/kv_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TOKENS = 4, BYTES = 64, IDS = 6, BLOCKS = 2, HEAD = 64 + 4 * IDS + 8 * BLOCKS, MOST = 8192 };

static char path[] = "/tmp/ashley-fuzz-XXXXXX";

static void clean_up(void)
{
    unlink(path);
}

static void read_all(const uint8_t *data, size_t size)
{
    static const int32_t ids[IDS] = {1, 2, 3, 4, 5, 6};
    const ash_kv_head h = {.key = {7}, .block_tokens = TOKENS, .block_bytes = BYTES, .ids = ids,
                           .n_ids = IDS};
    ash_kv_file f;
    uint8_t block[BYTES];
    ash_err err = ASH_ERR_INIT;
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    close(fd);
    int rc = ash_kv_file_open(path, &h, &f, &err);
    if (!rc && size != ash_kv_head_bytes(&h))
        abort();
    for (size_t i = 0; !rc && i < f.n_blocks; i++) {
        rc = ash_kv_file_read(&f, i, block, &err);
        if (!rc && ash_checksum(block, BYTES) != f.sums[i])
            abort();
    }
    if (rc && err.code != rc)
        abort();
    ash_kv_file_close(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    uint8_t copy[MOST];
    if (!made) {
        int fd = mkstemp(path);
        if (fd < 0)
            abort();
        close(fd);
        atexit(clean_up);
        made = true;
    }
    read_all(data, size);
    if (size < HEAD + 8 || size > MOST)
        return 0;
    memcpy(copy, data, size);
    uint64_t sum = ash_checksum(copy, HEAD);
    memcpy(copy + HEAD, &sum, sizeof sum);
    read_all(copy, size);
    return 0;
}
