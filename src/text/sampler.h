/* The sampler: from logits to a token. One per sequence, all memory reserved at open, nothing
 * allocated per token. The stages and their order are llama.cpp's: logit bias, penalties, top-k,
 * top-p, min-p, temperature, draw. One thread at a time each.
 *
 * The draw depends on the seed and on how many tokens this sampler has drawn before, on nothing
 * else: same seed and logits, same text, whatever else runs. */
#ifndef ASHLEY_TEXT_SAMPLER_H
#define ASHLEY_TEXT_SAMPLER_H

#include "base/err.h"
#include "base/limits.h"

typedef struct ash_logit_bias {
    int32_t id;
    float bias; /* added to the logit; -100 or less forbids as good as surely */
} ash_logit_bias;

typedef struct ash_sampler_params {
    double temperature;       /* [0, 100]; 0: greedy */
    double top_p;             /* (0, 1]; 1: off */
    double min_p;             /* [0, 1]; 0: off */
    double repeat_penalty;    /* (0, 100]; 1: off */
    double presence_penalty;  /* [-2, 2]; 0: off */
    double frequency_penalty; /* [-2, 2]; 0: off */
    int64_t top_k;            /* >= 0; 0: off */
    int64_t repeat_last_n;    /* tokens that the three penalties look back at; 0: none; -1: all */
    int64_t seed;             /* >= 0; -1: random, resolved at open */
    int64_t top_logprobs;     /* [0, ASH_MAX_TOP_LOGPROBS], only with logprobs */
    bool logprobs;            /* report log-probabilities */
    const ash_logit_bias *logit_bias; /* borrowed until open returns, which copies it */
    size_t n_logit_bias;              /* at most ASH_MAX_LOGIT_BIAS */
} ash_sampler_params;

/* OpenAI's defaults where it has them (temperature 1, top_p 1), else llama.cpp's (top_k 40,
 * min_p 0.05, repeat_last_n 64, penalties off); seed -1. */
ash_sampler_params ash_sampler_params_default(void);
/* Refuses with ASH_EINVAL what is outside the ranges above, NaN too; the message starts with the field's
 * name in quotes, as an API's `param` wants it. */
int ash_sampler_check(const ash_sampler_params *p, ash_err *err) ASH_MUST_CHECK;
/* Refuses a bias on an id of n_usable or more, in the same way: what a vocabulary is needed for. */
int ash_sampler_check_ids(const ash_sampler_params *p, int64_t n_usable, ash_err *err) ASH_MUST_CHECK;

typedef struct ash_logprob {
    int32_t id;
    float logprob; /* natural; of the softmax over the usable ids of the logits as they came in,
                      before bias, penalties and temperature */
} ash_logprob;

typedef struct ash_sample {
    int32_t id;
    float logprob; /* of id; 0 without params.logprobs */
    int n_top;     /* entries of top, most probable first, ties by lower id */
    ash_logprob top[ASH_MAX_TOP_LOGPROBS];
} ash_sample;

typedef struct ash_sampler ash_sampler;

/* n_vocab: length of the logits; n_usable (1..n_vocab): ids from there on are padding and never
 * sampled. Checks the parameters. Takes 8 to 16 bytes an id. *out is the caller's, NULL on failure. */
int ash_sampler_open(const ash_sampler_params *p, int64_t n_vocab, int64_t n_usable,
                     ash_sampler **out, ash_err *err) ASH_MUST_CHECK;
void ash_sampler_close(ash_sampler *s); /* NULL is fine */
/* The seed in use, for the reply; >= 0. */
int64_t ash_sampler_seed(const ash_sampler *s);
/* Heap bytes held. */
size_t ash_sampler_bytes(const ash_sampler *s);
/* Tells the penalties about a token of the prompt, or one that was sampled (sample does not). Ids
 * outside the vocabulary are ignored. O(1). */
void ash_sampler_accept(ash_sampler *s, int32_t id);
/* Forgets accepted tokens and drawn positions. */
void ash_sampler_reset(ash_sampler *s);
/* Draws from logits [n_vocab], which it may overwrite. Greedy takes the lowest id of a tie.
 * ASH_EINVAL if a usable logit is NaN or +inf, or all are -inf: *out is then unset. O(n_vocab). */
int ash_sampler_sample(ash_sampler *s, float *logits, ash_sample *out, ash_err *err) ASH_MUST_CHECK;

#endif
