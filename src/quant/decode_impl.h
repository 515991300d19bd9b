/* The decoders of single types, private to quant: y [n] from whole blocks at p. */
#ifndef ASHLEY_QUANT_DECODE_IMPL_H
#define ASHLEY_QUANT_DECODE_IMPL_H

#include <stdint.h>

#define ASH_DECODE(name) void ash_decode_##name(const uint8_t *p, int64_t n, float *y)

/* plain.c */
ASH_DECODE(f64);
ASH_DECODE(f32);
ASH_DECODE(f16);
ASH_DECODE(bf16);
ASH_DECODE(f8_e4m3);
ASH_DECODE(q4_0);
ASH_DECODE(q4_1);
ASH_DECODE(q5_0);
ASH_DECODE(q5_1);
ASH_DECODE(q8_0);
/* kquants.c */
ASH_DECODE(q2_k);
ASH_DECODE(q3_k);
ASH_DECODE(q4_k);
ASH_DECODE(q5_k);
ASH_DECODE(q6_k);
/* iquants.c */
ASH_DECODE(iq1_s);
ASH_DECODE(iq1_m);
ASH_DECODE(iq2_xxs);
ASH_DECODE(iq2_xs);
ASH_DECODE(iq2_s);
ASH_DECODE(iq3_xxs);
ASH_DECODE(iq3_s);
/* codes.c */
ASH_DECODE(iq4_nl);
ASH_DECODE(iq4_xs);
ASH_DECODE(mxfp4);
ASH_DECODE(nvfp4);
ASH_DECODE(tq1_0);
ASH_DECODE(tq2_0);
ASH_DECODE(q1_0);
ASH_DECODE(q2_0);

#endif
