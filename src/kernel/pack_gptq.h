/* The packed layout of GPTQ's matrices (forms U4G and U8G of kernel/pack.h).
 *
 * Columns lie in the order of their groups: act-order's are sorted (those of a group stay in order), and
 * a group of no multiple of 32 is filled up to one with columns of zero quants, which multiply zeros. The
 * columns of one scale are the largest number that all groups are a multiple of. */
#ifndef ASHLEY_KERNEL_PACK_GPTQ_H
#define ASHLEY_KERNEL_PACK_GPTQ_H

#include "base/err.h"
#include "kernel/pack.h"
#include "quant/gptq.h"

/* Fills everything but data; *ordered: whether columns differ from inputs, so that ash_pack_gptq_order's
 * numbers are wanted. ASH_EINVAL for sizes that overflow, ASH_ENOMEM. */
int ash_pack_gptq_plan(ash_packed *w, const ash_gptq *q, bool *ordered, ash_err *err) ASH_MUST_CHECK;
/* order [w->cols]: the input of each column, -1 where there is none. work [q->groups] is overwritten. */
void ash_pack_gptq_order(const ash_packed *w, const ash_gptq *q, int32_t *order, int32_t *work);
/* Packs rows [row, row + n) of q, the one planned with; both multiples of 16 but for the last row. order
 * as above, or NULL. Disjoint rows may be packed by different threads at once. The fastest table of this
 * CPU does it; the bytes are the same on all. */
void ash_pack_gptq_rows(const ash_packed *w, const ash_gptq *q, const int32_t *order, int64_t row,
                        int64_t n);
/* y [32] = block b of 32 columns of lane r of a group, bit for bit what ash_gptq_row gives for their
 * inputs. */
void ash_pack_gptq_decode(const ash_packed *w, const uint8_t *group, int64_t r, int64_t b, float *y);

/* Bytes of 16 rows' quants in a block of 32 columns; of the scales and zeros of one span. */
static inline int64_t ash_pack_gptq_quants(const ash_packed *w)
{
    return w->form == ASH_FORM_U8G ? 512 : 256;
}
static inline int64_t ash_pack_gptq_entry(const ash_packed *w)
{
    return w->wide ? 64 + 16 : 32 + 16;
}

#endif
