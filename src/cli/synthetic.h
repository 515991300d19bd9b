/* Checkpoints of real shapes with random weights, for measuring speed and memory without the real
 * files. */
#ifndef ASHLEY_CLI_SYNTHETIC_H
#define ASHLEY_CLI_SYNTHETIC_H

#include "base/err.h"

/* Makes a GGUF of "SHAPE:FORMAT" ("mistral-7b:q4_0") in memory (memfd, pages count as shared
 * memory) and gives the path under which this process can open it; *fd is the caller's to close,
 * which frees it. ASH_EINVAL names the shapes and formats there are. */
int ash_synthetic_make(const char *spec, int *fd, char path[64], ash_err *err) ASH_MUST_CHECK;

#endif
