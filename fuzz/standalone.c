/* The driver of a fuzz target where libFuzzer is not linked: runs the target over its corpus, then over
 * a fixed number of mutations of it. The same seed gives the same inputs on every machine.
 *
 *   fuzz_NAME CORPUS_FOLDER [RUNS [SEED]]     ASHLEY_FUZZ_RUNS replaces RUNS
 *   fuzz_NAME FILE...                         runs these inputs once: to repeat a failure
 *
 * An input that crashes, that a sanitizer stops, or that takes longer than 10 s is written to
 * ./fuzz-failure.bin. One thread. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Both belong to the sanitizers' runtime. The first is absent in a plain build; the second is ours to
 * define: an input must not make the target allocate without bound. */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));
const char *__asan_default_options(void);

enum { INPUT_MAX = 1 << 20, FILES_MAX = 4096, SECONDS_MAX = 10 };

typedef struct input {
    uint8_t *p; /* owned */
    size_t n;
} input;

static input corpus[FILES_MAX];
static size_t n_corpus;
static uint8_t work[INPUT_MAX];
static const uint8_t *current; /* for the failure's file */
static size_t current_size;
static uint64_t rng_state;

const char *__asan_default_options(void)
{
    return "handle_abort=1:allocator_may_return_null=1:max_allocation_size_mb=512:hard_rss_limit_mb=2048";
}

static void keep_failure(void)
{
    int fd = open("fuzz-failure.bin", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return;
    size_t done = 0;
    while (done < current_size) {
        ssize_t n = write(fd, current + done, current_size - done);
        if (n <= 0) break;
        done += (size_t)n;
    }
    close(fd);
    static const char said[] = "fuzz: the input is in ./fuzz-failure.bin\n";
    if (write(2, said, sizeof(said) - 1) < 0) _exit(1);
}

static void on_signal(int sig)
{
    keep_failure();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* xorshift64* (Vigna 2014). */
static uint64_t next(void)
{
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return rng_state * 0x2545F4914F6CDD1DULL;
}

static size_t below(size_t n) { return n ? (size_t)(next() % n) : 0; }

static int read_file(const char *path, input *in)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st) || st.st_size > INPUT_MAX) {
        fprintf(stderr, "fuzz: cannot read %s, or it is over %d bytes\n", path, INPUT_MAX);
        if (f) fclose(f);
        return -1;
    }
    in->n = (size_t)st.st_size;
    in->p = malloc(in->n + 1);
    size_t got = in->p ? fread(in->p, 1, in->n, f) : 0;
    fclose(f);
    return in->p && got == in->n ? 0 : -1;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int read_corpus(const char *folder)
{
    static char *names[FILES_MAX];
    size_t n = 0;
    DIR *d = opendir(folder);
    if (!d) {
        fprintf(stderr, "fuzz: no corpus %s\n", folder);
        return -1;
    }
    for (struct dirent *e; (e = readdir(d)) && n < FILES_MAX;)
        if (e->d_name[0] != '.') names[n++] = strdup(e->d_name);
    closedir(d);
    qsort(names, n, sizeof(names[0]), by_name); /* the order of a folder is the disk's own */
    int rc = 0;
    for (size_t i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        if (!rc) rc = read_file(path, &corpus[n_corpus++]);
        free(names[i]);
    }
    return rc;
}

/* Each input gets memory of its own size, so that reading one byte past it is seen. */
static void run_one(const uint8_t *p, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy) return;
    if (n) memcpy(copy, p, n);
    current = copy;
    current_size = n;
    alarm(SECONDS_MAX);
    LLVMFuzzerTestOneInput(copy, n);
    alarm(0);
    free(copy);
}

/* Opens a gap of `len` bytes at `at`; returns the new size. */
static size_t open_gap(size_t n, size_t at, size_t len)
{
    if (len > INPUT_MAX - n) len = INPUT_MAX - n;
    memmove(work + at + len, work + at, n - at);
    return n + len;
}

static void put_number(size_t n)
{
    static const uint64_t numbers[] = {0, 1, 2, 3, 7, 16, 31, 32, 64, 127, 128, 255, 256, 1024, 32767, 32768,
                                       65535, 65536, 1u << 20, 0x7fffffff, 0x80000000, 0xffffffff, 1ULL << 32,
                                       1ULL << 40, 0x7fffffffffffffff, 1ULL << 63, UINT64_MAX};
    uint64_t v = numbers[below(sizeof(numbers) / sizeof(numbers[0]))];
    size_t len = (size_t)1 << below(4);
    if (n >= len) memcpy(work + below(n - len + 1), &v, len);
}

static void put_text(size_t n)
{
    static const char *const texts[] = {"{", "}", "[", "]", "{{", "}}", "{%", "%}", "\"", "\\", "\\u", "null",
                                        "1e999", "-1", "\xff", "\xf0\x9f", "\xed\xa0\x80", "\n", "\r\n", ":",
                                        ",", "=", "$", "${", "'", "#", "data: ", "for", "if", "end"};
    const char *t = texts[below(sizeof(texts) / sizeof(texts[0]))];
    size_t len = strlen(t);
    if (n >= len) memcpy(work + below(n - len + 1), t, len);
}

static size_t mutate_once(size_t n)
{
    size_t at = below(n), len = 1 + below(1 + below(64));
    switch (below(9)) {
    case 0:
        if (n) work[at] ^= (uint8_t)(1u << below(8));
        return n;
    case 1:
        if (n) work[at] = (uint8_t)next();
        return n;
    case 2: put_number(n); return n;
    case 3: put_text(n); return n;
    case 4: /* cut out */
        if (len > n - at) len = n - at;
        memmove(work + at, work + at + len, n - at - len);
        return n - len;
    case 5: { /* random bytes in between */
        size_t more = open_gap(n, at, len);
        for (size_t i = at; i < at + (more - n); i++) work[i] = (uint8_t)next();
        return more;
    }
    case 6: { /* a piece of another input in between */
        const input *o = &corpus[below(n_corpus)];
        size_t from = below(o->n);
        if (len > o->n - from) len = o->n - from;
        size_t more = open_gap(n, at, len);
        memcpy(work + at, o->p + from, more - n);
        return more;
    }
    case 7: { /* the same piece many times: depth, length */
        size_t times = 1 + below(1 + below(200));
        if (len > n - at) len = n - at;
        if (len > 16) len = 16;
        size_t more = open_gap(n, at, len * times);
        for (size_t i = more - n; i-- > 0;) work[at + i] = work[at + (more - n) + i % (len ? len : 1)];
        return more;
    }
    default: return below(16) ? n : at; /* cut off, not too often */
    }
}

static void run_mutations(long runs)
{
    for (long i = 0; i < runs; i++) {
        const input *in = &corpus[below(n_corpus)];
        size_t n = in->n;
        memcpy(work, in->p, n);
        for (size_t k = 1 + below(1 + below(12)); k > 0; k--) n = mutate_once(n);
        run_one(work, n);
    }
}

int main(int argc, char **argv)
{
    struct stat st;
    if (argc < 2 || stat(argv[1], &st)) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER [RUNS [SEED]] | FILE...\n", argv[0]);
        return 2;
    }
    if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(keep_failure);
    static const int signals[] = {SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        if (__sanitizer_set_death_callback && signals[i] != SIGALRM) continue; /* the sanitizer's own */
        signal(signals[i], on_signal);
    }
    int rc = 0;
    long runs = 0;
    if (S_ISDIR(st.st_mode)) {
        const char *wanted = getenv("ASHLEY_FUZZ_RUNS");
        runs = strtol(wanted ? wanted : argc > 2 ? argv[2] : "1000", NULL, 10);
        rng_state = argc > 3 ? strtoull(argv[3], NULL, 10) | 1 : 0x9E3779B97F4A7C15ULL;
        rc = read_corpus(argv[1]);
    } else {
        for (int i = 1; i < argc && !rc; i++) rc = read_file(argv[i], &corpus[n_corpus++]);
    }
    if (!rc && n_corpus == 0) {
        fprintf(stderr, "fuzz: %s is empty\n", argv[1]);
        rc = -1;
    }
    if (!rc) {
        run_one((const uint8_t *)"", 0);
        for (size_t i = 0; i < n_corpus; i++) run_one(corpus[i].p, corpus[i].n);
        run_mutations(runs);
        printf("%zu inputs and %ld mutations\n", n_corpus, runs);
    }
    for (size_t i = 0; i < n_corpus; i++) free(corpus[i].p);
    return rc ? 1 : 0;
}
