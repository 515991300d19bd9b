/* The body of pack_bits, for a file that gives vectors of 512 or 256 bits, or an array, as `vec` of
 * VEC_BYTES, with vec_load, vec_set (a word everywhere), vec_add (the sum `or` what is kept of a rotated
 * vector) and vec_store (to whole lines that are not read soon), and names it PACK_BITS.
 *
 * All groups of a row of words are done before the next: what is taken of an input is in registers, and
 * the 64 bytes a group of `per_word` inputs are read as so many streams. */

static inline __attribute__((always_inline)) void pack(const ash_bits *bits, int n_words, const int per_word,
                                                       int64_t groups, uint8_t *to, int64_t stride)
{
    for (int p = 0; p < n_words; p++, bits += per_word) {
        vec rotate[16], mask[16];
#pragma GCC unroll 16
        for (int i = 0; i < per_word; i++) {
            rotate[i] = vec_set(bits[i].rotate);
            mask[i] = vec_set(bits[i].mask);
        }
        for (int64_t at = 0; at < groups * 64; at += VEC_BYTES) {
            vec sum = vec_set(0);
#pragma GCC unroll 16
            for (int i = 0; i < per_word; i++)
                sum = vec_add(sum, vec_load(bits[i].words + at), rotate[i], mask[i]);
            vec_store(to + at / 64 * stride + p * 64 + at % 64, sum);
        }
    }
}

void PACK_BITS(const ash_bits *bits, int n_words, int per_word, int64_t groups, uint8_t *to, int64_t stride)
{
    if (per_word == 8)
        pack(bits, n_words, 8, groups, to, stride);
    else if (per_word == 4)
        pack(bits, n_words, 4, groups, to, stride);
    else
        pack(bits, n_words, 16, groups, to, stride);
    vec_done();
}
