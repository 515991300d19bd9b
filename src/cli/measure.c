/* Owns short measurements of disks. Refuses nothing: what cannot be measured is 0 or false. Any
 * thread. */
#include "cli/measure.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"

enum { PIECE = 4 << 20, PIECES = 32, ALIGN = 4096 };

double ash_measure_disk(const char *path, int ms)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT | O_NONBLOCK);
    void *buf = NULL;
    double rate = 0.0;
    if (fd < 0) return 0.0;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size >= PIECE &&
        !posix_memalign(&buf, ALIGN, PIECE)) {
        off_t pieces = st.st_size / PIECE, at = pieces / 2;
        int64_t from = ash_clock_ns(), now = from;
        uint64_t bytes = 0;
        for (int i = 0; i < PIECES && i < pieces && now - from < (int64_t)ms * 1000000; i++) {
            ssize_t got = pread(fd, buf, PIECE, (at + i) % pieces * PIECE);
            if (got <= 0) break;
            bytes += (uint64_t)got;
            now = ash_clock_ns();
        }
        if (bytes && now > from) rate = (double)bytes / ((double)(now - from) * 1e-9);
    }
    free(buf);
    close(fd);
    return rate;
}

bool ash_measure_free(const char *path, uint64_t *free_bytes, uint64_t *total_bytes)
{
    struct statvfs fs;
    char at[4096];
    size_t n = strlen(path);
    if (!n || n >= sizeof at) return false;
    memcpy(at, path, n + 1);
    while (statvfs(at, &fs)) {
        char *slash = strrchr(at, '/');
        if (!strcmp(at, "/") || !strcmp(at, ".")) return false;
        if (!slash)
            memcpy(at, ".", 2);
        else
            slash[slash == at] = 0; /* "/x" has "/" above it */
    }
    *free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    *total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    return true;
}

uint64_t ash_measure_folder(const char *path, size_t *n_files)
{
    DIR *d = opendir(path);
    uint64_t bytes = 0;
    struct stat st;
    *n_files = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
            continue;
        bytes += (uint64_t)st.st_blocks * 512;
        ++*n_files;
    }
    if (d) closedir(d);
    return bytes;
}
