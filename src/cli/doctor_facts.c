/* Owns what `ashley doctor` finds of the machine: the kernel's figures, short measurements, the
 * disk. Refuses nothing: what cannot be read is not told. Main thread. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/cpu.h"
#include "base/fs.h"
#include "cli/doctor.h"
#include "cli/measure.h"
#include "config/value.h"
#include "hub/survey.h"
#include "kernel/kernel.h"
#include "nn/limits.h"

enum { MEASURE_MS = 300, TEMPORARY = 32 << 20, DAY = 86400 };

#define GB 1000000000ull
#define NO_LIMIT UINT64_MAX

/* ---- files of the kernel ------------------------------------------------------------------------
 */

/* A small file under the root, without its last line break; "" if it cannot be read. */
static const char *read_text(const ash_doctor *d, const char *path, char *out, size_t size)
{
    char at[4096];
    out[0] = 0;
    if (snprintf(at, sizeof at, "%s%s", d->root, path) >= (int)sizeof at) return out;
    int fd = open(at, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read(fd, out, size - 1) : 0;
    if (fd >= 0) close(fd);
    out[n > 0 ? n : 0] = 0;
    if (n > 0 && out[n - 1] == '\n') out[n - 1] = 0;
    return out;
}

/* "KEY:  N kB" in bytes; NO_LIMIT if it is not there. */
static uint64_t kb_of(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) * 1024 : NO_LIMIT;
}

/* The least memory.max from this process's group of the v2 hierarchy up to its root. */
static uint64_t group_limit(const ash_doctor *d)
{
    char text[4096], path[4200], number[64];
    read_text(d, "/proc/self/cgroup", text, sizeof text);
    char *group = strstr(text, "0::/");
    uint64_t least = NO_LIMIT;
    if (!group || strstr(group, "..")) return least;
    group += 3;
    group[strcspn(group, "\n")] = 0;
    for (;;) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group[1] ? group : "");
        read_text(d, path, number, sizeof number);
        uint64_t v = number[0] >= '0' && number[0] <= '9' ? strtoull(number, NULL, 10) : NO_LIMIT;
        if (v < least) least = v;
        char *slash = strrchr(group, '/');
        if (!slash || !group[1]) return least;
        slash[slash == group] = 0;
    }
}

static void find_processor(ash_doctor *d)
{
    char groups[4096], mount[4096];
    const ash_cpu *cpu = ash_cpu_get();
    ash_cpu_level level = d->cli->config->cpu;
    bool lower = level < cpu->level;
    snprintf(groups, sizeof groups, "%s/proc/self/cgroup", d->root);
    snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", d->root);
    int limit = ash_cgroup_cpus(groups, mount);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    ash_doctor_tell(
        d, lower || level == ASH_CPU_SCALAR ? ASH_DOCTOR_NOTE : ASH_DOCTOR_OK, "processor",
        lower                     ? "ASHLEY_CPU asks for less than the processor has: leave it out"
        : level == ASH_CPU_SCALAR ? "without AVX2 every model is slow: choose small ones"
                                  : NULL,
        "%s, %d threads, kernel set %s", cpu->name, ash_cpu_threads(), ash_kernel_get(level)->name);
    if (limit && limit < online)
        ash_doctor_tell(
            d, ASH_DOCTOR_NOTE, "processor limit",
            "raise the control group's CPU limit (CPUQuota=, --cpus) for faster answers",
            "a control group leaves %d of %ld processors", limit, online);
}

static void find_memory(ash_doctor *d)
{
    char text[8192], a[16], b[16];
    read_text(d, "/proc/meminfo", text, sizeof text);
    uint64_t total = kb_of(text, "MemTotal:"), room = kb_of(text, "MemAvailable:"),
             limit = group_limit(d);
    uint64_t swap = kb_of(text, "SwapTotal:"), swap_free = kb_of(text, "SwapFree:");
    if (total != NO_LIMIT && room != NO_LIMIT) {
        ash_value_show_bytes(room, a);
        ash_value_show_bytes(total, b);
        bool little = room < GB;
        ash_doctor_tell(
            d, little ? ASH_DOCTOR_NOTE : ASH_DOCTOR_OK, "memory",
            little
                ? "end other programs, or choose small models: `ashley plan` tells what each takes"
                : NULL,
            "%s of %s are available", a, b);
    }
    if (limit != NO_LIMIT && (total == NO_LIMIT || limit < total)) {
        ash_value_show_bytes(limit, a);
        ash_doctor_tell(
            d, ASH_DOCTOR_NOTE, "memory limit",
            "a model that needs more is refused; raise MemoryMax= or --memory for larger ones",
            "a control group allows %s", a);
    }
    if (swap != NO_LIMIT && swap_free != NO_LIMIT && swap_free < swap &&
        swap - swap_free > swap / 4) {
        ash_value_show_bytes(swap - swap_free, a);
        ash_doctor_tell(
            d, ASH_DOCTOR_NOTE, "swap",
            "weights in swap answer very slowly: preload fewer models, or set ASHLEY_MEMORY_BUDGET",
            "%s are in use", a);
    }
}

static void find_pressure(ash_doctor *d)
{
    char text[512];
    read_text(d, "/proc/pressure/memory", text, sizeof text);
    const char *full = strstr(text, "full avg10=");
    double percent = full ? strtod(full + strlen("full avg10="), NULL) : 0.0;
    if (percent >= 1.0)
        ash_doctor_tell(d, ASH_DOCTOR_NOTE, "memory pressure",
                        "preload fewer models, or smaller ones, before the kernel ends a process",
                        "in the last 10 s everything waited for memory %.1f %% of the time",
                        percent);
}

static void find_settings_of_kernel(ash_doctor *d)
{
    char text[256];
    read_text(d, "/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text);
    if (strstr(text, "[never]"))
        ash_doctor_tell(d, ASH_DOCTOR_NOTE, "huge pages",
                        "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
                        "they are switched off: reading weights costs more of the processor");
    else if (*text)
        ash_doctor_tell(d, ASH_DOCTOR_OK, "huge pages", NULL, "%s", text);
    read_text(d, "/proc/sys/vm/overcommit_memory", text, sizeof text);
    if (!strcmp(text, "2"))
        ash_doctor_tell(d, ASH_DOCTOR_NOTE, "overcommit",
                        "if loads fail with memory free: sysctl vm.overcommit_memory=0",
                        "the kernel promises no more memory than it has (vm.overcommit_memory=2)");
}

void ash_doctor_kernel(ash_doctor *d)
{
    find_processor(d);
    find_memory(d);
    find_pressure(d);
    find_settings_of_kernel(d);
}

/* ---- measurements -------------------------------------------------------------------------------
 */

/* The path itself, or the nearest above it that is there: where it would be made. */
static const char *nearest(const char *path, char out[4096])
{
    snprintf(out, 4096, "%s", path);
    while (access(out, F_OK)) {
        char *slash = strrchr(out, '/');
        if (!slash)
            memcpy(out, ".", 2);
        else
            slash[slash == out] = 0;
    }
    return out;
}

/* The rate of a temporary file in `dir`, which has no name and goes by itself. */
static double measure_temporary(const char *dir)
{
    char path[64];
    int fd = open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    char *zeros = fd >= 0 ? calloc(1, 1 << 20) : NULL;
    bool ok = zeros != NULL;
    for (int i = 0; ok && i < TEMPORARY >> 20; i++) {
        memset(zeros, i + 1, 1 << 20);
        ok = write(fd, zeros, 1 << 20) == 1 << 20;
    }
    ok = ok && !fdatasync(fd);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    double rate = ok ? ash_measure_disk(path, MEASURE_MS) : 0.0;
    free(zeros);
    if (fd >= 0) close(fd);
    return rate;
}

void ash_doctor_measure(ash_doctor *d, const char *file)
{
    ash_limits limits = {0};
    char rate[16], dir[4096];
    if (!ash_limits_measure(0, &limits, NULL) && limits.read_gbs > 0.0) {
        d->read_gbs = limits.read_gbs;
        ash_doctor_tell(d, ASH_DOCTOR_OK, "memory speed", NULL,
                        "reads %.1f GB/s: of 4 GB of weights (7B, 4 bits) %.1f tokens/s at most",
                        limits.read_gbs, limits.read_gbs / 4.0);
    }
    d->disk_rate = file ? ash_measure_disk(file, MEASURE_MS) : 0.0;
    if (d->disk_rate <= 0.0)
        d->disk_rate = measure_temporary(nearest(d->cli->config->state_dir, dir));
    if (d->disk_rate <= 0.0) {
        ash_doctor_tell(d, ASH_DOCTOR_OK, "disk speed", NULL, "cannot be measured here");
        return;
    }
    bool slow = d->disk_rate < 3e8;
    ash_value_show_bytes((uint64_t)d->disk_rate, rate);
    ash_doctor_tell(d, slow ? ASH_DOCTOR_NOTE : ASH_DOCTOR_OK, "disk speed",
                    slow ? "slow start: put HF_HUB_CACHE and ASHLEY_STATE_DIR on a faster disk, or "
                           "pin fewer models"
                         : NULL,
                    "reads %s a second past the page cache: 4 GB of weights in %.0f s at least",
                    rate, 4e9 / d->disk_rate);
}

/* ---- the disk -----------------------------------------------------------------------------------
 */

static void find_repo(ash_doctor *d, const ash_hub_use *u, int64_t now_s)
{
    char bytes[16], advice[240];
    if (u->n_broken) {
        snprintf(advice, sizeof advice, "`ashley rm %.120s`, then fetch it again", u->repo);
        ash_doctor_tell(d, ASH_DOCTOR_BAD, "cache", advice,
                        "%s: %zu of %zu files lead nowhere, the first is %.120s", u->repo,
                        u->n_broken, u->n_files, u->broken);
    }
    ash_value_show_bytes(u->partial_bytes, bytes);
    if (u->n_partial && now_s - u->partial_s > DAY) {
        snprintf(advice, sizeof advice, "fetch %.120s to its end, or `ashley rm` it", u->repo);
        ash_doctor_tell(d, ASH_DOCTOR_NOTE, "cache", advice,
                        "%s: %s of downloads that stopped %lld days ago", u->repo, bytes,
                        (long long)((now_s - u->partial_s) / DAY));
    }
    ash_value_show_bytes(u->orphan_bytes, bytes);
    if (u->n_orphans)
        ash_doctor_tell(d, ASH_DOCTOR_NOTE, "cache",
                        "they go with the next `ashley rm` of that repository",
                        "%s: %s that no snapshot uses", u->repo, bytes);
    if (u->n_lost_refs)
        ash_doctor_tell(d, ASH_DOCTOR_NOTE, "cache", "fetch it again",
                        "%s: %zu names of revisions lead to no snapshot", u->repo, u->n_lost_refs);
}

static void find_cache(ash_doctor *d)
{
    const char *hub = d->cli->config->hub_dir;
    ash_hub_survey s;
    ash_err err = ASH_ERR_INIT;
    uint64_t bytes = 0;
    char text[16];
    if (!hub) {
        ash_doctor_tell(d, ASH_DOCTOR_NOTE, "cache", "set HF_HOME or HOME",
                        "there is no place for it");
        return;
    }
    if (ash_hub_survey_read(hub, &s, &err)) {
        ash_doctor_tell(d, ASH_DOCTOR_BAD, "cache", NULL, "%s: %s", hub, err.msg);
    } else {
        for (size_t i = 0; i < s.n; i++) bytes += s.v[i].bytes;
        ash_value_show_bytes(bytes, text);
        ash_doctor_tell(d, ASH_DOCTOR_OK, "cache", NULL, "%s: %zu repositories, %s", hub, s.n,
                        text);
        for (size_t i = 0; i < s.n; i++) find_repo(d, &s.v[i], (int64_t)time(NULL));
        ash_value_show_bytes(s.removed_bytes, text);
        if (s.n_removed)
            ash_doctor_tell(d, ASH_DOCTOR_NOTE, "cache", "the next `ashley rm` takes them away",
                            "%s of removals that were cut short", text);
    }
    ash_hub_survey_release(&s);
}

static void find_room(ash_doctor *d, const char *what, const char *dir)
{
    uint64_t free_bytes, total;
    char a[16], b[16];
    if (!ash_measure_free(dir, &free_bytes, &total)) return;
    ash_value_show_bytes(free_bytes, a);
    ash_value_show_bytes(total, b);
    bool full = free_bytes < 4 * GB;
    ash_doctor_tell(d, full ? ASH_DOCTOR_NOTE : ASH_DOCTOR_OK, what,
                    full ? "`ashley list --disk` shows what can go; with under 4.3 GB free nothing "
                           "is kept for the "
                           "next start"
                         : NULL,
                    "%s of %s are free (%.200s)", a, b, dir);
}

static void find_state(ash_doctor *d)
{
    const ash_config *c = d->cli->config;
    char packs[16], kv[16];
    char dir[4096];
    size_t n_packs = 0, n_kv = 0;
    if (!c->disk_budget) {
        ash_doctor_tell(d, ASH_DOCTOR_NOTE, "state",
                        "leave ASHLEY_DISK_BUDGET out for a faster start",
                        "ASHLEY_DISK_BUDGET=0: every start packs the weights anew");
        return;
    }
    if (!c->state_dir) {
        ash_doctor_tell(d, ASH_DOCTOR_NOTE, "state", "set ASHLEY_STATE_DIR or HOME",
                        "there is no place for it: every start packs the weights anew");
        return;
    }
    if (!ash_fs_is_dir(nearest(c->state_dir, dir)) || access(dir, W_OK)) {
        ash_doctor_tell(d, ASH_DOCTOR_BAD, "state",
                        "set ASHLEY_STATE_DIR to a folder that can be written",
                        "%s cannot be written: every start packs the weights anew", c->state_dir);
        return;
    }
    char *at = ash_fs_join(c->state_dir, "packs"), *beside = ash_fs_join(c->state_dir, "kv");
    ash_value_show_bytes(at ? ash_measure_folder(at, &n_packs) : 0, packs);
    ash_value_show_bytes(beside ? ash_measure_folder(beside, &n_kv) : 0, kv);
    ash_doctor_tell(d, ASH_DOCTOR_OK, "state", NULL,
                    "%s: %s of packed weights, %s of keys and values", c->state_dir, packs, kv);
    free(at);
    free(beside);
}

void ash_doctor_disk(ash_doctor *d)
{
    const ash_config *c = d->cli->config;
    find_cache(d);
    find_state(d);
    if (c->hub_dir) find_room(d, "disk of models", c->hub_dir);
    if (c->state_dir) find_room(d, "disk of state", c->state_dir);
}
