/* Reads in flight: what comes is what the file has, ends and errors are told apart, and where the
 * kernel refuses io_uring, as container sandboxes do, the same comes one after the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/reads.h"
#include "base/rng.h"

enum { SIZE = 3 << 20, READS = 500 };

static uint8_t *content;

static int make_file(void)
{
    char path[] = "/tmp/ashley-reads-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(pwrite(fd, content, SIZE, 0), SIZE);
    return fd;
}

/* Returns 0 if everything is as it must be, else a number that says where. */
static int check_reads(int fd, unsigned depth, bool *together)
{
    static int states[READS];
    static uint8_t *to[READS];
    size_t n[READS], at[READS];
    ash_reads *r;
    ash_rng rng;
    ash_rng_init(&rng, depth);
    if (ash_reads_open(depth, &r, NULL)) return 1;
    *together = ash_reads_together(r);
    for (int i = 0; i < READS; i++) {
        at[i] = ash_rng_u64(&rng) % SIZE;
        n[i] = ash_rng_u64(&rng) % (i % 10 ? 20000 : SIZE);
        if (n[i] > SIZE - at[i]) n[i] = SIZE - at[i];
        to[i] = calloc(1, n[i] + 1);
        states[i] = 7;
        ash_reads_begin(r, fd, to[i], n[i], at[i], &states[i]);
        if (i % 3 == 0) ash_reads_step(r, false);
    }
    int bad = 0;
    for (int i = 0; i < READS; i++) {
        while (states[i] == ASH_READ_BUSY) ash_reads_step(r, true);
        if (states[i] || memcmp(to[i], content + at[i], n[i]) || to[i][n[i]]) bad = 2;
        free(to[i]);
    }
    uint8_t some[64];
    int cut, closed, whole;
    ash_reads_begin(r, fd, some, sizeof some, SIZE - 20, &cut);
    ash_reads_begin(r, -1, some, sizeof some, 0, &closed);
    ash_reads_begin(r, fd, to, 0, 0, &whole);
    while (cut > 0 || closed > 0) ash_reads_step(r, true);
    if (cut != ASH_EFORMAT || closed != ASH_EIO || whole) bad = 3;
    ash_reads_step(r, true); /* nothing is in flight: returns */
    ash_reads_begin(r, fd, some, sizeof some, 0, &whole);
    ash_reads_close(r); /* waits */
    return whole ? 4 : bad;
}

static void reads_what_is_there(void **state)
{
    static const unsigned depths[] = {1, 2, 7, 64, 4096};
    bool together;
    int fd = make_file();
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++)
        assert_int_equal(check_reads(fd, depths[i], &together), 0);
    close(fd);
}

static bool forbid_rings(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
           !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void reads_without_rings(void **state)
{
    int fd = make_file(), status;
    pid_t child = fork();
    if (child == 0) {
        bool together = true;
        int rc = forbid_rings() ? check_reads(fd, 16, &together) : 8;
        _exit(rc ? rc : together ? 9 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(fd);
}

static void refuses_depths(void **state)
{
    ash_reads *r;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(ash_reads_open(0, &r, &err), ASH_EINVAL);
    assert_int_equal(ash_reads_open(4097, &r, NULL), ASH_EINVAL);
    ash_reads_close(NULL);
}

int main(void)
{
    ash_rng rng;
    ash_rng_init(&rng, 3);
    content = malloc(SIZE);
    for (int i = 0; content && i < SIZE; i++) content[i] = (uint8_t)ash_rng_u64(&rng);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_is_there),
        cmocka_unit_test(reads_without_rings),
        cmocka_unit_test(refuses_depths),
    };
    int failed = content ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    free(content);
    return failed;
}
