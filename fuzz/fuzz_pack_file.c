/* The head and table of a pack file, and the records of known files, as a start reads them. The input lies
 * over the first bytes of a file of the right size. Only a file of the key and size asked for opens; whatever
 * it holds, nothing outside it is read. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/pack_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BYTES = 100000 };

static char dir[] = "/tmp/ashley-fuzz-XXXXXX", path[64];

static void clean_up(void)
{
    unlink(path);
    rmdir(dir);
}

static void put(const uint8_t *data, size_t size, uint64_t whole)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || (whole && ftruncate(fd, (off_t)whole)))
        abort();
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[ASH_SHA256_BYTES] = {7};
    ash_pack_file f;
    ash_known_list known;
    ash_err err = ASH_ERR_INIT;
    uint64_t file_bytes;
    if (size > 1 << 16 || !ash_pack_file_size(BYTES, &file_bytes)) return 0;
    if (!path[0]) {
        if (!mkdtemp(dir)) abort();
        snprintf(path, sizeof path, "%s/known", dir); /* one file, read as both */
        atexit(clean_up);
    }
    put(data, size, file_bytes);
    int rc = ash_pack_file_open(path, key, BYTES, &f, &err);
    if (!rc) rc = ash_pack_file_verify(&f, BYTES, NULL, NULL, &err);
    if (rc && err.code != rc) abort();
    ash_pack_file_close(&f);
    put(data, size, 0);
    if (ash_known_read(dir, &known, &err)) abort();
    if (known.n > size / sizeof(ash_known)) abort();
    ash_known_release(&known);
    return 0;
}
