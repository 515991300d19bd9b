/* What the targets do with a network that was planned from hostile files: all of it. */
#ifndef ASHLEY_FUZZ_NET_H
#define ASHLEY_FUZZ_NET_H

#include <stdlib.h>

#include "arch/arch.h"

enum { ROWS = 3, CONTEXT = 64, MOST = 4 << 20 };

static void forward(const ash_net *net, float *logits, void *scratch)
{
    static const int32_t table[CONTEXT / ASH_KV_TOKENS] = {0, 1};
    ash_err err = ASH_ERR_INIT;
    const ash_nn_options o = ash_net_nn_options(net, ASH_CPU_SCALAR, 1, ROWS, CONTEXT);
    ash_run run = {.scratch = scratch};
    ash_batch_row rows[ROWS];
    for (int i = 0; i < ROWS; i++)
        rows[i] = (ash_batch_row){.token = (int32_t)(i % net->hp.n_vocab), .pos = i + 30, .table = table,
                                  .wants_logits = i > 0};
    const ash_batch batch = {.rows = rows, .n = ROWS, .logits = logits};
    if (!ash_nn_open(&o, &run.nn, &err) && !ash_kv_open(&net->kv, 2, &run.kv, &err))
        net->arch->forward(net, &run, &batch);
    else if (!err.msg[0])
        abort();
    ash_kv_close(run.kv);
    ash_nn_close(run.nn);
}

/* Binds, packs and computes, if it is small; what refuses has a message. */
static void use_net(ash_net *net)
{
    ash_err err = ASH_ERR_INIT;
    const ash_binding *b = &net->binding;
    int64_t block = ash_kv_block_bytes(&net->kv);
    if (b->bytes > MOST || b->scratch > MOST || net->row_bytes > MOST || block > MOST ||
        net->hp.n_vocab > MOST)
        return;
    void *region = aligned_alloc(64, b->bytes);
    void *scratch = aligned_alloc(64, (net->row_bytes * ROWS + 63) / 64 * 64);
    float *logits = calloc((size_t)net->hp.n_vocab * ROWS, sizeof *logits);
    void *work = aligned_alloc(64, (b->scratch + 63) / 64 * 64);
    if (region && scratch && logits && work) {
        if (!net->arch->bind(net, region, &err)) {
            for (size_t i = 0; i < b->n_items; i++) {
                const ash_bind_item *it = &b->items[i];
                for (int64_t row = 0; it->matrix && row < it->rows; row += it->step)
                    ash_bind_pack(b, it, row, it->step < it->rows - row ? it->step : it->rows - row, work);
            }
            forward(net, logits, scratch);
        } else if (!err.msg[0]) {
            abort();
        }
    }
    free(region);
    free(work);
    free(scratch);
    free(logits);
}

/* A checkpoint's network, planned and used. */
static void use_checkpoint(const ash_checkpoint *c)
{
    ash_net *net = NULL;
    const ash_arch *arch;
    ash_err err = ASH_ERR_INIT;
    if (ash_arch_find(c, &arch, &err) || arch->plan(c, &net, &err)) {
        if (!err.msg[0] || net)
            abort();
    } else {
        use_net(net);
    }
    ash_net_close(net);
}

#endif
