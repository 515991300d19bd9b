/* Owns the handler of SIGILL and a thread's eight tiles. Refuses every other instruction: it raises the
 * signal again, and the process ends. */
#include "amx_emulator.h"

#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

float amx_fma(float a, float b, float c)
{
    float v[] = {a, b, c, 0};
    for (int i = 0; i < 4; i++) {
        if (i == 3)
            v[3] = fmaf(v[1], v[2], v[0]);
        if (fabsf(v[i]) < FLT_MIN)
            v[i] = copysignf(0, v[i]);
    }
    return v[3];
}

#if defined(__x86_64__)
#include "kernel/x86/amx.h"

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

static __thread struct {
    amx_config config; /* palette 0: none */
    _Alignas(64) uint8_t data[TILES][ROWS][ROW_BYTES];
} amx;

static void require(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "AMX: %s\n", what);
    abort();
}

/* A decoded instruction: VEX with three bytes, the opcode, ModRM and what it takes. */
typedef struct instruction {
    int prefix, opcode, reg, rm, vvvv; /* prefix: 0 none, 1 of 66, 2 of F3, 3 of F2 */
    bool memory;
    uint8_t *base;
    int64_t stride; /* the index register, scaled */
    int length;
} instruction;

static int64_t gpr(const ucontext_t *c, int n)
{
    static const int at[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                             REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return c->uc_mcontext.gregs[at[n]];
}

/* SDM vol. 2, 2.1.5: the address of ModRM, SIB and displacement. */
static void decode_memory(instruction *i, const ucontext_t *c, const uint8_t *p, int mod, int x, int b)
{
    int rm = i->rm & 7, at = 5, base = rm | b << 3;
    int64_t from = 0;
    i->stride = 0;
    if (rm == 4) {
        int sib = p[at++], index = (sib >> 3 & 7) | x << 3;
        base = (sib & 7) | b << 3;
        i->stride = index == 4 ? 0 : gpr(c, index) * (1 << (sib >> 6));
    }
    bool none = mod == 0 && (base & 7) == 5;
    int size = mod == 1 ? 1 : mod == 2 || none ? 4 : 0;
    int32_t d32 = 0;
    if (size == 1)
        d32 = (int8_t)p[at];
    else if (size)
        memcpy(&d32, p + at, 4);
    i->length = at + size;
    if (!none)
        from = gpr(c, base);
    else if (rm == 5)
        from = (int64_t)(intptr_t)p + i->length;
    i->base = (uint8_t *)(intptr_t)(from + d32);
}

static bool decode(instruction *i, const ucontext_t *c)
{
    const uint8_t *p = (const uint8_t *)(intptr_t)c->uc_mcontext.gregs[REG_RIP];
    if (p[0] != 0xc4 || (p[1] & 31) != 2 || p[2] & 0x84) /* VEX.128.0F38.W0 */
        return false;
    int mod = p[4] >> 6;
    *i = (instruction){.prefix = p[2] & 3, .opcode = p[3], .reg = p[4] >> 3 & 7, .rm = p[4] & 7,
                       .vvvv = ~p[2] >> 3 & 15, .memory = mod != 3, .length = 5};
    if (i->memory)
        decode_memory(i, c, p, mod, !(p[1] & 0x40), !(p[1] & 0x20));
    return true;
}

static void configure(const uint8_t *from)
{
    memcpy(&amx.config, from, sizeof amx.config);
    memset(amx.data, 0, sizeof amx.data);
    const amx_config *c = &amx.config;
    require(c->palette == 1 && !c->start_row, "ldtilecfg: palette 1, row 0");
    for (int i = 0; i < 14; i++) require(!c->reserved[i], "ldtilecfg: reserved bytes");
    for (int t = 0; t < 16; t++) {
        require(c->rows[t] <= (t < TILES ? ROWS : 0) && c->row_bytes[t] <= (t < TILES ? ROW_BYTES : 0),
                "ldtilecfg: the size of a tile");
        require(!c->rows[t] == !c->row_bytes[t], "ldtilecfg: rows without bytes, or bytes without rows");
    }
}

static void move(const instruction *i)
{
    const amx_config *c = &amx.config;
    int t = i->reg;
    require(c->palette && c->rows[t], "a tile that is not configured");
    bool load = i->prefix == 3;
    if (load)
        memset(amx.data[t], 0, sizeof amx.data[t]);
    for (int r = 0; r < c->rows[t]; r++) {
        uint8_t *at = i->base + r * i->stride;
        memcpy(load ? amx.data[t][r] : at, load ? at : amx.data[t][r], c->row_bytes[t]);
    }
}

static float widen(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* One sum of tdpb[su][su]d: signed bytes but where said. */
static int32_t dot_bytes(int32_t sum, const uint8_t *a, int b, int k_end, int n, bool ua, bool ub)
{
    for (int k = 0; k < k_end; k++) {
        const uint8_t *p = a + 4 * k, *q = amx.data[b][k] + 4 * n;
        for (int j = 0; j < 4; j++) {
            int x = ua ? p[j] : (int8_t)p[j], y = ub ? q[j] : (int8_t)q[j];
            sum = (int32_t)((uint32_t)sum + (uint32_t)(x * y));
        }
    }
    return sum;
}

/* One sum of tdpbf16ps. */
static float dot_bf16(float sum, const uint8_t *a, int b, int k_end, int n)
{
    float even = 0, odd = 0;
    for (int k = 0; k < k_end; k++) {
        even = amx_fma(even, widen(a + 4 * k), widen(amx.data[b][k] + 4 * n));
        odd = amx_fma(odd, widen(a + 4 * k + 2), widen(amx.data[b][k] + 4 * n + 2));
    }
    return amx_fma(sum, amx_fma(even, odd, 1), 1);
}

static void multiply(const instruction *i)
{
    const amx_config *cfg = &amx.config;
    int c = i->reg, a = i->rm, b = i->vvvv;
    require(cfg->palette && b < TILES && a != b && a != c && b != c, "tdp: three tiles");
    require(cfg->rows[c] && cfg->rows[c] == cfg->rows[a] && cfg->row_bytes[c] == cfg->row_bytes[b] &&
                cfg->row_bytes[a] == 4 * cfg->rows[b] && cfg->row_bytes[c] % 4 == 0,
            "tdp: shapes that do not fit");
    for (int m = 0; m < cfg->rows[c]; m++) {
        for (int n = 0; n < cfg->row_bytes[c] / 4; n++) {
            uint8_t *to = amx.data[c][m] + 4 * n;
            const uint8_t *from = amx.data[a][m];
            if (i->opcode == 0x5c) {
                float sum;
                memcpy(&sum, to, 4);
                sum = dot_bf16(sum, from, b, cfg->rows[b], n);
                memcpy(to, &sum, 4);
            } else {
                int32_t sum;
                memcpy(&sum, to, 4);
                sum = dot_bytes(sum, from, b, cfg->rows[b], n, i->prefix < 2, i->prefix % 2 == 0);
                memcpy(to, &sum, 4);
            }
        }
    }
}

static bool run(const instruction *i)
{
    if (i->opcode == 0x49 && i->prefix == 0 && i->memory && i->reg == 0) {
        configure(i->base);
    } else if (i->opcode == 0x49 && i->prefix == 0 && !i->memory && i->reg == 0 && i->rm == 0) {
        memset(&amx, 0, sizeof amx);
    } else if (i->opcode == 0x49 && i->prefix == 3 && !i->memory && i->rm == 0) {
        require(amx.config.palette, "tilezero: not configured");
        memset(amx.data[i->reg], 0, sizeof amx.data[i->reg]);
    } else if (i->opcode == 0x4b && i->prefix >= 2 && i->memory && i->rm == 4) {
        move(i);
    } else if ((i->opcode == 0x5e || (i->opcode == 0x5c && i->prefix == 2)) && !i->memory) {
        multiply(i);
    } else {
        return false;
    }
    return true;
}

static void on_illegal(int sig, siginfo_t *info, void *context)
{
    ucontext_t *c = context;
    instruction i;
    bool any = false;
    for (; decode(&i, c) && run(&i); any = true) /* those that follow, too: signals are dear */
        c->uc_mcontext.gregs[REG_RIP] += i.length;
    if (!any)
        signal(SIGILL, SIG_DFL); /* the instruction comes again */
}

bool amx_test_ready(void)
{
    const ash_cpu *cpu = ash_cpu_get();
    if (cpu->level >= ASH_CPU_AMX)
        return true;
    struct sigaction sa = {.sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (cpu->level < ASH_CPU_AVX512 || !cpu->bf16 || sigaction(SIGILL, &sa, NULL)) {
        fprintf(stderr, "no AVX-512 with BF16 here: the AMX kernels are not tested\n");
        return false;
    }
    return true;
}

const ash_kernel *amx_test_variant(int index)
{
    const ash_kernel *k = ash_kernel_variant(index);
    if (k || ash_cpu_get()->level >= ASH_CPU_AMX || !ash_kernel_variant(index - 1) || !amx_test_ready())
        return k;
    return ash_kernel_get(ASH_CPU_AMX);
}
#else
bool amx_test_ready(void)
{
    return false;
}

const ash_kernel *amx_test_variant(int index)
{
    return ash_kernel_variant(index);
}
#endif
