/* What the readers of sizes share; nobody else includes it. The bounds are far beyond any published model
 * and keep later products within 63 bits. */
#ifndef ASHLEY_ARCH_HPARAMS_IMPL_H
#define ASHLEY_ARCH_HPARAMS_IMPL_H

#include "arch/hparams.h"

enum {
    HP_MAX_EMBD = 1 << 17,
    HP_MAX_FF = 1 << 20,
    HP_MAX_HEADS = 1024,
    HP_MAX_HEAD_DIM = 1024,
    HP_MAX_CONTEXT = 1 << 26,
    HP_MAX_EXPERTS = 4096,
};

/* ash_hparams_read of config.json. */
int ash_hparams_read_hf(const ash_checkpoint *c, const char *type, unsigned flags, ash_hparams *hp,
                        ash_err *err) ASH_MUST_CHECK;

#endif
