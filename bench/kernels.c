/* kernels [LEVEL] [THREADS] [TYPE|GPTQ|attention]: matmuls and attention of real shapes, per format and
 * batch, as Gop/s, GB/s of weights, and fractions of the limits measured in the same run. Weights are
 * far beyond the caches, as in a model. One line of JSON per case; the best of five rounds of at least
 * 30 ms. One thread is timed by its CPU time, several by the wall. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/rng.h"
#include "nn/attention.h"
#include "nn/limits.h"
#include "nn/linear.h"
#include "nn/norm.h"

enum { WEIGHT_BYTES = 256 << 20, HUGE_PAGE = 2 << 20, MAX_COPIES = 512, ROUNDS = 5 };
static const int64_t round_ns = 30000000;

typedef struct weights {
    ash_linear l[MAX_COPIES];
    int n;
    void *mem;
    uint64_t bytes; /* of one */
} weights;

/* One thread is timed by its CPU time, so that other processes do not count; several by the wall. */
static int64_t now_ns(const ash_nn *nn)
{
    if (nn->o.threads > 1) return ash_clock_ns();
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return p;
}

static void must_ok(int rc, const ash_err *err)
{
    if (rc) {
        fprintf(stderr, "%s\n", err->msg);
        exit(1);
    }
}

/* Random quants, scales of 2^-6 or so: small halves come from keeping the high byte small. */
static void fill(uint8_t *p, uint64_t n, ash_dtype t)
{
    ash_rng r;
    ash_rng_init(&r, 1);
    const ash_dtype_info *info = ash_dtype_get(t);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = i % info->block_bytes;
        bool scale = info->block == 1 ? at == info->block_bytes - 1 && at > 0 : at == 1 || at == 3;
        p[i] = scale ? 0x20 : (uint8_t)ash_rng_u64(&r);
    }
}

/* Memory for copies of w->l[0], in huge pages as the engine's. */
static void alloc_weights(weights *w)
{
    w->n = (int)(WEIGHT_BYTES / w->bytes);
    w->n = w->n < 1 ? 1 : w->n > MAX_COPIES ? MAX_COPIES : w->n;
    uint64_t bytes = (w->bytes * (uint64_t)w->n + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    w->mem = must(aligned_alloc(HUGE_PAGE, bytes));
    madvise(w->mem, bytes, MADV_HUGEPAGE);
    for (int i = w->n - 1; i >= 0; i--) {
        w->l[i] = w->l[0];
        ash_linear_bind(&w->l[i], (uint8_t *)w->mem + w->bytes * (uint64_t)i);
    }
}

static void copy_weights(weights *w)
{
    for (int i = 1; i < w->n; i++) memcpy(w->l[i].w.data, w->l[0].w.data, w->bytes);
}

enum { FP8_BLOCK = 128 }; /* rows and columns with one scale */

static void pack_fp8(const ash_linear *l, const uint8_t *src, int64_t out, int64_t in)
{
    int64_t n = ((out + FP8_BLOCK - 1) / FP8_BLOCK) * ((in + FP8_BLOCK - 1) / FP8_BLOCK);
    float *scales = must(malloc((size_t)n * sizeof *scales));
    for (int64_t i = 0; i < n; i++) scales[i] = 0.0625f;
    ash_linear_pack_fp8(l, src, scales, 0, out);
    free(scales);
}

static void open_weights(weights *w, ash_dtype t, int64_t out, int64_t in)
{
    ash_err err = ASH_ERR_INIT;
    bool fp8 = t == ASH_DTYPE_F8_E4M3;
    must_ok(fp8 ? ash_linear_plan_fp8(&w->l[0], out, in, FP8_BLOCK, FP8_BLOCK, &w->bytes, &err)
                : ash_linear_plan(&w->l[0], t, out, in, &w->bytes, &err), &err);
    alloc_weights(w);
    uint64_t row;
    if (!ash_dtype_bytes(t, (uint64_t)in, &row)) exit(1);
    uint8_t *src = must(malloc(row * (uint64_t)out));
    fill(src, row * (uint64_t)out, t);
    if (fp8)
        pack_fp8(&w->l[0], src, out, in);
    else
        ash_linear_pack(&w->l[0], src, 0, out);
    copy_weights(w);
    free(src);
}

/* 4 bits, groups of 128, with act-order. */
static void open_gptq(weights *w, int64_t out, int64_t in)
{
    ash_err err = ASH_ERR_INIT;
    int64_t groups = in / 128 + (in % 128 != 0);
    uint64_t quants = (uint64_t)(in * out / 2), zeros = (uint64_t)(groups * out / 2);
    uint8_t *src = must(malloc(quants + zeros * 5));
    int32_t *group_of = must(malloc((size_t)in * sizeof *group_of));
    for (int64_t i = 0; i < in; i++) group_of[i] = (int32_t)(i * 5 % in / 128);
    fill(src, quants + zeros, ASH_DTYPE_I8);
    fill(src + quants + zeros, zeros * 4, ASH_DTYPE_F16);
    ash_gptq q = {.bits = 4, .in = in, .out = out, .groups = groups, .qweight = src,
                  .qzeros = src + quants, .scales = src + quants + zeros, .scale_type = ASH_DTYPE_F16,
                  .group_of = group_of};
    must_ok(ash_linear_plan_gptq(&w->l[0], &q, &w->bytes, &err), &err);
    alloc_weights(w);
    ash_linear_order_gptq(&w->l[0], &q);
    ash_linear_pack_gptq(&w->l[0], &q, 0, out);
    copy_weights(w);
    free(src);
    free(group_of);
}

static const char *name_of(ash_dtype t)
{
    return t == ASH_DTYPE_I32 ? "GPTQ" : ash_dtype_get(t)->name;
}

static double peak_of(ash_act_form form, const ash_limits *p)
{
    return form == ASH_ACT_I8 ? p->int8_gops : form == ASH_ACT_BF16 ? p->bf16_gflops : p->f32_gflops;
}

/* t: or ASH_DTYPE_I32 for GPTQ, whose words are that. */
static void bench_linear(ash_nn *nn, const ash_limits *peak, ash_dtype t, int64_t out, int64_t in,
                         const int *batches)
{
    static weights w;
    if (t == ASH_DTYPE_I32)
        open_gptq(&w, out, in);
    else
        open_weights(&w, t, out, in);
    float *x = must(malloc((size_t)(nn->o.max_rows * in) * 4));
    float *y = must(malloc((size_t)(nn->o.max_rows * out) * 4));
    for (int64_t i = 0; i < nn->o.max_rows * in; i++) x[i] = (float)(i % 13) - 6;
    for (; *batches; batches++) {
        int n = *batches, at = 0;
        double best = 0;
        for (int round = -1; round < ROUNDS; round++) { /* round -1 warms up */
            int64_t start = now_ns(nn), end;
            int64_t calls = 0;
            do {
                const ash_linear *l = &w.l[at++ % w.n];
                ash_linear_run(nn, &l, 1, x, n, &y);
                calls++;
            } while ((end = now_ns(nn)) - start < round_ns);
            double per_ns = (double)calls / (double)(end - start);
            best = round >= 0 && per_ns > best ? per_ns : best;
        }
        double gop = best * 2 * (double)(out * in) * n, gb = best * (double)w.bytes;
        printf("{\"kernel\":\"%s\",\"threads\":%d,\"type\":\"%s\",\"out\":%" PRId64
               ",\"in\":%" PRId64 ",\"batch\":%d,\"us\":%.1f,\"gop_s\":%.0f,\"of_peak\":%.2f,\"gb_"
                                  "s\":%.1f,\"of_read\":%.2f}\n",
               nn->k->name, nn->o.threads, name_of(t), out, in, n, 1e-3 / best, gop,
               gop / peak_of(nn->k->act[w.l[0].w.form], peak), gb, gb / peak->read_gbs);
        fflush(stdout);
    }
    free(w.mem);
    free(x);
    free(y);
}

/* `seqs` sequences of `context` tokens; the last `n / seqs` of each are asked for. */
static void bench_attention(ash_nn *nn, const ash_limits *peak, int heads, ash_kv_shape shape, int seqs,
                            int context, int n)
{
    ash_err err = ASH_ERR_INIT;
    int dims = shape.k_dim + shape.v_dim;
    int per = (context + 31) / 32, each = n / seqs;
    ash_kv *kv;
    must_ok(ash_kv_open(&shape, per * seqs, &kv, &err), &err);
    memset(kv->data, 0x20, (size_t)(kv->blocks * kv->block_bytes));
    int32_t *tables = must(malloc((size_t)(per * seqs) * sizeof *tables));
    for (int i = 0; i < per * seqs; i++) tables[i] = i;
    ash_row *rows = must(malloc((size_t)n * sizeof *rows));
    double pairs = 0;
    for (int i = 0; i < n; i++) {
        rows[i] = (ash_row){tables + i / each * per, context - each + i % each};
        pairs += rows[i].pos + 1;
    }
    float *q = must(calloc((size_t)(n * heads * shape.k_dim), 4)),
          *out = must(calloc((size_t)(n * heads * shape.v_dim), 4));
    ash_attention a = {.heads = heads, .scale = 0.125f};
    double best = 0;
    for (int round = -1; round < ROUNDS; round++) {
        int64_t start = now_ns(nn), end, calls = 0;
        do ash_attention_run(nn, &a, kv, (int)(calls++ % 16), rows, n, q, out);
        while ((end = now_ns(nn)) - start < round_ns);
        double per_ns = (double)calls / (double)(end - start);
        best = round >= 0 && per_ns > best ? per_ns : best;
    }
    double token_bytes = (double)ash_kv_block_bytes(&shape) / shape.layers / ASH_KV_TOKENS;
    double gop = best * pairs * heads * dims * 2, gb = best * seqs * context * token_bytes;
    printf("{\"kernel\":\"%s\",\"threads\":%d,\"attention\":\"%d/%d heads of "
           "%d+%d\",\"seqs\":%d,\"context\":%d,"
           "\"batch\":%d,\"us\":%.1f,\"gflop_s\":%.0f,\"of_f32\":%.2f,\"gb_s\":%.1f,\"of_read\":%."
           "2f}\n",
           nn->k->name, nn->o.threads, heads, shape.kv_heads, shape.k_dim,
           shape.v_in_k ? 0 : shape.v_dim, seqs, context, n, 1e-3 / best, gop,
           gop / peak->f32_gflops, gb, gb / peak->read_gbs);
    fflush(stdout);
    ash_kv_close(kv);
    free(tables);
    free(rows);
    free(q);
    free(out);
}

static void bench_norm(ash_nn *nn, int n, int64_t dim)
{
    float *x = must(calloc((size_t)(n * dim), 4)), *y = must(calloc((size_t)(n * dim), 4));
    int64_t start = now_ns(nn), end, calls = 0;
    do {
        ash_norm_rms_add(nn, y, x, y, x, n, dim, 1e-5f);
        calls++;
    } while ((end = now_ns(nn)) - start < round_ns);
    printf("{\"kernel\":\"%s\",\"norm\":%" PRId64 ",\"batch\":%d,\"us\":%.2f}\n", nn->k->name, dim,
           n, (double)(end - start) / 1e3 / (double)calls);
    free(x);
    free(y);
}

int main(int argc, char **argv)
{
    ash_err err = ASH_ERR_INIT;
    ash_cpu_level level = ash_cpu_get()->level;
    if (argc > 1) must_ok(ash_cpu_parse(argv[1], &level, &err), &err);
    int threads = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 0;
    const char *only = argc > 3 ? argv[3] : NULL; /* a type, or "attention" */
    ash_nn_options o = {.level = level,
                        .threads = threads,
                        .max_rows = 512,
                        .max_in = 14336,
                        .max_heads = 128,
                        .max_head_dim = 576,
                        .max_context = 8192};
    ash_nn *nn;
    must_ok(ash_nn_open(&o, &nn, &err), &err);
    ash_limits peak;
    if (ash_limits_measure(nn->o.threads, &peak, NULL))
        return 1;
    printf("{\"limits\":%d,\"read_gb_s\":%.1f,\"int8\":%.0f,\"bf16\":%.0f,\"f32\":%.0f}\n",
           nn->o.threads, peak.read_gbs, peak.int8_gops, peak.bf16_gflops, peak.f32_gflops);
    static const int64_t shapes[][2] = {{960, 576},   {3072, 576},  {576, 1536},
                                        {49152, 576}, {4096, 4096}, {4096, 14336}};
    static const ash_dtype types[] = {
        ASH_DTYPE_Q4_0, ASH_DTYPE_Q4_1, ASH_DTYPE_Q8_0, ASH_DTYPE_I32, ASH_DTYPE_BF16,
        ASH_DTYPE_F16, ASH_DTYPE_F32, ASH_DTYPE_Q4_K, ASH_DTYPE_Q5_K, ASH_DTYPE_Q6_K,
        ASH_DTYPE_Q3_K, ASH_DTYPE_Q2_K, ASH_DTYPE_Q5_0, ASH_DTYPE_Q5_1, ASH_DTYPE_IQ4_XS,
        ASH_DTYPE_IQ4_NL, ASH_DTYPE_MXFP4, ASH_DTYPE_NVFP4, ASH_DTYPE_IQ3_S, ASH_DTYPE_IQ3_XXS,
        ASH_DTYPE_IQ2_S, ASH_DTYPE_IQ2_XS, ASH_DTYPE_IQ2_XXS, ASH_DTYPE_IQ1_M, ASH_DTYPE_IQ1_S,
        ASH_DTYPE_TQ1_0, ASH_DTYPE_TQ2_0, ASH_DTYPE_Q1_0, ASH_DTYPE_Q2_0, ASH_DTYPE_F8_E4M3};
    static const int batches[] = {1, 2, 4, 8, 16, 48, 512, 0};
    for (int t = 0; t < (int)(sizeof types / sizeof *types); t++)
        for (int s = 0; s < 6; s++)
            if ((t < 4 || s == 4 || (s == 1 && t < 7)) &&
                (!only || !strcmp(only, name_of(types[t]))))
                bench_linear(nn, &peak, types[t], shapes[s][0], shapes[s][1], batches);
    if (only && strcmp(only, "attention")) {
        ash_nn_close(nn);
        return 0;
    }
    const ash_kv_shape small = {16, 3, 64, 64, ASH_KV_F16, false};
    const ash_kv_shape large = {16, 8, 128, 128, ASH_KV_F16, false};
    const ash_kv_shape bytes = {16, 8, 128, 128, ASH_KV_Q8, false};
    const ash_kv_shape latent = {16, 1, 576, 512, ASH_KV_F16, true}; /* DeepSeek-V2 and V3 */
    bench_attention(nn, &peak, 9, small, 1, 512, 512);
    bench_attention(nn, &peak, 32, large, 1, 512, 512);
    bench_attention(nn, &peak, 32, large, 1, 8192, 512);
    bench_attention(nn, &peak, 9, small, 1, 512, 1);
    bench_attention(nn, &peak, 9, small, 8, 512, 8);
    bench_attention(nn, &peak, 32, large, 1, 4096, 1);
    bench_attention(nn, &peak, 32, bytes, 1, 8192, 512);
    bench_attention(nn, &peak, 32, bytes, 1, 4096, 1);
    bench_attention(nn, &peak, 16, latent, 1, 512, 64);
    bench_attention(nn, &peak, 16, latent, 1, 4096, 1);
    bench_attention(nn, &peak, 128, latent, 1, 4096, 1);
    bench_norm(nn, 1, 576);
    bench_norm(nn, 512, 576);
    ash_nn_close(nn);
    return 0;
}
