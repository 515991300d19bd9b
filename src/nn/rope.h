/* Rotary position embedding (Su et al. 2021) with the frequency scalings of Llama 3 and YaRN.
 *
 * Angles of a batch are computed once per forward and used by all layers. An ash_rope is immutable
 * after init; any thread. */
#ifndef ASHLEY_NN_ROPE_H
#define ASHLEY_NN_ROPE_H

#include "nn/nn.h"

typedef enum ash_rope_pairs {
    ASH_ROPE_ADJACENT, /* (x0, x1), (x2, x3), ...: GGUF's llama, DeepSeek */
    ASH_ROPE_HALVES,   /* (x0, x[d/2]), ...: Hugging Face's llama, GGUF's qwen2 */
} ash_rope_pairs;

typedef enum ash_rope_scaling {
    ASH_ROPE_NONE,
    ASH_ROPE_LINEAR, /* positions divided by factor (Chen et al. 2023) */
    ASH_ROPE_LLAMA3, /* low frequencies divided by factor, smooth between (Llama 3.1) */
    ASH_ROPE_YARN,   /* by-part interpolation with a temperature (Peng et al. 2023) */
    ASH_ROPE_DYNAMIC, /* a base that grows with the text beyond the original context (transformers'
                         dynamic NTK); up to it as without a scaling */
} ash_rope_scaling;

typedef struct ash_rope_options {
    ash_rope_pairs pairs;
    int dims;             /* leading elements of a head that turn; even, at most head_dim */
    int head_dim;
    double base;          /* 10000 */
    ash_rope_scaling scaling;
    double factor;                /* of all scalings; 1 or more */
    double original_context;      /* llama3, yarn, dynamic: positions the model was trained on */
    double low_freq, high_freq;   /* llama3: 1 and 4 */
    double beta_fast, beta_slow;  /* yarn: 32 and 1 */
    double attention_factor;      /* yarn: of cos and sin; 0 means 0.1 ln(factor) + 1 */
    bool fractional;              /* yarn: the ramp's ends are not rounded to pairs (truncate: false) */
    const float *freq_factors;    /* [dims / 2] divisors of the frequencies (GGUF rope_freqs), or NULL;
                                     copied */
} ash_rope_options;

typedef struct ash_rope {
    ash_rope_pairs pairs;
    int dims, head_dim;
    float factor; /* of cos and sin */
    float *freq;  /* [dims / 2], owned */
    double base;
    double dynamic;          /* dynamic: its factor; else 0 */
    double original_context; /* dynamic: texts beyond it have frequencies of their own */
} ash_rope;

/* ASH_EINVAL for odd or too many dims and for numbers that are not finite or out of their range. */
int ash_rope_init(ash_rope *r, const ash_rope_options *o, ash_err *err) ASH_MUST_CHECK;
void ash_rope_release(ash_rope *r); /* safe twice */
/* cs [n, dims] = cosines then sines of dims / 2 angles for each position. */
void ash_rope_angles(const ash_rope *r, const int32_t *pos, int n, float *cs);
/* The same where frequencies may follow a text's length: text [n] tokens of each row's. */
void ash_rope_angles_in(const ash_rope *r, const int32_t *pos, const int32_t *text, int n, float *cs);
/* Turns the first dims elements of every head of x [n, heads * head_dim] in place. */
void ash_rope_run(ash_nn *nn, const ash_rope *r, const float *cs, float *x, int n, int heads);

#endif
