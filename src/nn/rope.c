/* Owns the frequencies of rotary embeddings. Refuses parameters that are no numbers or out of range. */
#include "nn/rope.h"

#include <math.h>
#include <stdlib.h>

#include "nn/scratch.h"

static const double pi = 3.14159265358979323846;

/* Llama 3.1: wavelengths beyond original / low are divided, below original / high kept. */
static double llama3(const ash_rope_options *o, double freq)
{
    double turns = o->original_context * freq / (2 * pi);
    if (turns < o->low_freq)
        return freq / o->factor;
    if (turns > o->high_freq)
        return freq;
    double smooth = (turns - o->low_freq) / (o->high_freq - o->low_freq);
    return (1 - smooth) * freq / o->factor + smooth * freq;
}

/* YaRN section 3.2, in the form of its reference code: the pair whose angle makes `turns` turns. */
static double yarn_pair(const ash_rope_options *o, double turns)
{
    return o->dims * log(o->original_context / (turns * 2 * pi)) / (2 * log(o->base));
}

static double yarn(const ash_rope_options *o, int i, double freq)
{
    double low = yarn_pair(o, o->beta_fast), high = yarn_pair(o, o->beta_slow);
    low = fmax(o->fractional ? low : floor(low), 0);
    high = fmin(o->fractional ? high : ceil(high), o->dims - 1);
    double ramp = (i - low) / (high == low ? 0.001 : high - low);
    double keep = 1 - fmin(fmax(ramp, 0), 1);
    return freq / o->factor * (1 - keep) + freq * keep;
}

static double frequency(const ash_rope_options *o, int i)
{
    double freq = pow(o->base, -2.0 * i / o->dims);
    if (o->freq_factors)
        freq /= (double)o->freq_factors[i];
    switch (o->scaling) {
    case ASH_ROPE_LINEAR: return freq / o->factor;
    case ASH_ROPE_LLAMA3: return llama3(o, freq);
    case ASH_ROPE_YARN: return yarn(o, i, freq);
    default: return freq;
    }
}

static int check(const ash_rope_options *o, ash_err *err)
{
    if (o->dims < 2 || o->dims % 2 || o->dims > o->head_dim)
        return ash_err_set(err, ASH_EINVAL, "rope over %d of %d dimensions: expected an even number up to it",
                           o->dims, o->head_dim);
    if (!(o->base > 1) || !isfinite(o->base))
        return ash_err_set(err, ASH_EINVAL, "rope base %g: expected more than 1", o->base);
    if (o->scaling != ASH_ROPE_NONE && (!(o->factor >= 1) || !isfinite(o->factor)))
        return ash_err_set(err, ASH_EINVAL, "rope scaling factor %g: expected 1 or more", o->factor);
    if (o->scaling == ASH_ROPE_LLAMA3 &&
        (!(o->low_freq > 0) || !(o->high_freq > o->low_freq) || !(o->original_context >= 1)))
        return ash_err_set(err, ASH_EINVAL, "llama3 rope scaling: low %g, high %g, original context %g",
                           o->low_freq, o->high_freq, o->original_context);
    if (o->scaling == ASH_ROPE_DYNAMIC && (o->dims < 4 || !(o->original_context >= 1)))
        return ash_err_set(err, ASH_EINVAL, "dynamic rope scaling: %d dimensions, original context %g",
                           o->dims, o->original_context);
    if (o->scaling == ASH_ROPE_YARN && (!(o->beta_slow > 0) || !(o->beta_fast >= o->beta_slow) ||
                                        !(o->original_context >= 1) || !(o->attention_factor >= 0)))
        return ash_err_set(err, ASH_EINVAL, "yarn rope scaling: beta %g and %g, original context %g",
                           o->beta_fast, o->beta_slow, o->original_context);
    return 0;
}

int ash_rope_init(ash_rope *r, const ash_rope_options *o, ash_err *err)
{
    *r = (ash_rope){.pairs = o->pairs, .dims = o->dims, .head_dim = o->head_dim, .factor = 1};
    int rc = check(o, err);
    if (rc)
        return rc;
    r->freq = malloc((size_t)o->dims / 2 * sizeof *r->freq);
    if (!r->freq)
        return ash_err_nomem(err, "rope frequencies");
    for (int i = 0; i < o->dims / 2; i++) {
        r->freq[i] = (float)frequency(o, i);
        if (!isfinite(r->freq[i])) {
            ash_rope_release(r);
            return ash_err_set(err, ASH_EINVAL, "rope frequency %d is not finite", i);
        }
    }
    r->base = o->base;
    r->dynamic = o->scaling == ASH_ROPE_DYNAMIC ? o->factor : 0;
    r->original_context = o->original_context;
    if (o->scaling == ASH_ROPE_YARN)
        r->factor = (float)(o->attention_factor > 0 ? o->attention_factor : 0.1 * log(o->factor) + 1);
    return 0;
}

void ash_rope_release(ash_rope *r)
{
    free(r->freq);
    *r = (ash_rope){0};
}

/* transformers' dynamic NTK: the base of a text of so many tokens. */
static double dynamic_base(const ash_rope *r, double tokens)
{
    double stretch = r->dynamic * tokens / r->original_context - (r->dynamic - 1);
    return r->base * pow(stretch, (double)r->dims / (r->dims - 2));
}

void ash_rope_angles(const ash_rope *r, const int32_t *pos, int n, float *cs)
{
    ash_rope_angles_in(r, pos, pos, n, cs);
}

void ash_rope_angles_in(const ash_rope *r, const int32_t *pos, const int32_t *text, int n, float *cs)
{
    int half = r->dims / 2;
    for (int i = 0; i < n; i++, cs += r->dims) {
        bool own = r->dynamic > 0 && text[i] > r->original_context;
        double base = own ? dynamic_base(r, text[i]) : 0;
        for (int j = 0; j < half; j++) {
            float freq = own ? (float)pow(base, -2.0 * j / r->dims) : r->freq[j];
            /* The product is rounded to float as in the models' own code, so that long contexts agree. */
            float angle = (float)pos[i] * freq;
            cs[j] = (float)cos((double)angle) * r->factor;
            cs[half + j] = (float)sin((double)angle) * r->factor;
        }
    }
}

typedef struct job {
    const ash_kernel *k;
    const ash_rope *r;
    const float *cs;
    float *x;
    int heads;
} job;

static void turn(void *arg, int64_t begin, int64_t end, int worker)
{
    const job *j = arg;
    const ash_rope *r = j->r;
    int half = r->dims / 2;
    for (int64_t i = begin; i < end; i++) {
        const float *c = j->cs + i * r->dims;
        for (int h = 0; h < j->heads; h++) {
            float *x = j->x + (i * j->heads + h) * r->head_dim;
            if (r->pairs == ASH_ROPE_ADJACENT)
                j->k->rope_adjacent(x, c, c + half, half);
            else
                j->k->rope_halves(x, c, c + half, half);
        }
    }
}

void ash_rope_run(ash_nn *nn, const ash_rope *r, const float *cs, float *x, int n, int heads)
{
    job j = {.k = nn->k, .r = r, .cs = cs, .x = x, .heads = heads};
    ash_nn_rows(nn, n, (int64_t)heads * r->head_dim, turn, &j);
}
