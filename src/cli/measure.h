/* Short measurements of this machine. */
#ifndef ASHLEY_CLI_MEASURE_H
#define ASHLEY_CLI_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes a second that one reader gets of the file's disk past the page cache (O_DIRECT, pieces of 4
 * MiB, from the middle of the file on): at most 128 MiB, and no new piece after `ms`. 0 where that
 * cannot be told: a file of less than 4 MiB, a file system without O_DIRECT, an error. Any thread.
 */
double ash_measure_disk(const char *path, int ms);

/* Bytes free to this user on the file system of `path`, or of its nearest folder that exists, and
 * all that it has. False where the system does not tell. Any thread. */
bool ash_measure_free(const char *path, uint64_t *free_bytes, uint64_t *total_bytes);
/* Bytes that the files of a folder itself take on the disk, and how many there are; 0 if it is not
 * there. Any thread. */
uint64_t ash_measure_folder(const char *path, size_t *n_files);

#endif
