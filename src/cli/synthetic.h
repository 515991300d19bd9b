/* Checkpoints of real shapes with random weights, for measuring speed and memory without the real
 * files. */
#ifndef ASHLEY_CLI_SYNTHETIC_H
#define ASHLEY_CLI_SYNTHETIC_H

#include "base/err.h"

/* Makes a checkpoint of "SHAPE:FORMAT" ("mistral-7b:q4_0", "mistral-7b:gptq-4b-128g-actorder") in memory
 * (memfd, pages count as shared memory) and gives the path under which this process can open it: a GGUF
 * file, or for GPTQ a folder in /tmp. ash_synthetic_remove frees both, and is called here on failure.
 * ASH_EINVAL names the shapes and formats there are. */
int ash_synthetic_make(const char *spec, int *fd, char path[64], ash_err *err) ASH_MUST_CHECK;
void ash_synthetic_remove(int fd, const char *path);

#endif
