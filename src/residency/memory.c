/* Owns reading the kernel's figures of memory (proc(5), cgroup v2). Any thread. */
#include "residency/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value in bytes of "KEY:  N kB" in a /proc file; UINT64_MAX if it is not there. */
static uint64_t proc_kb(const char *file, const char *key)
{
    char line[256];
    uint64_t out = UINT64_MAX;
    size_t n = strlen(key);
    FILE *f = fopen(file, "re");
    while (f && out == UINT64_MAX && fgets(line, sizeof line, f)) {
        if (!strncmp(line, key, n) && line[n] == ':') out = strtoull(line + n + 1, NULL, 10) * 1024;
    }
    if (f) fclose(f);
    return out;
}

static uint64_t read_number(const char *file)
{
    unsigned long long v;
    FILE *f = fopen(file, "re");
    int got = f ? fscanf(f, "%llu", &v) : 0;
    if (f) fclose(f);
    return got == 1 ? (uint64_t)v : UINT64_MAX;
}

static uint64_t stat_value(const char *file, const char *key)
{
    char name[64];
    unsigned long long v;
    uint64_t out = 0;
    FILE *f = fopen(file, "re");
    while (f && fscanf(f, "%63s %llu", name, &v) == 2)
        if (!strcmp(name, key)) out = (uint64_t)v;
    if (f) fclose(f);
    return out;
}

/* This process's own cgroup in the v2 hierarchy, "" for the root or when there is none. */
static void own_cgroup(char *out, size_t size)
{
    char line[512];
    out[0] = 0;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "0::", 3)) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, size, "%s", strcmp(line + 3, "/") ? line + 3 : "");
        }
    if (f) fclose(f);
}

static uint64_t cgroup_room(void)
{
    char group[512], path[640];
    own_cgroup(group, sizeof group);
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
    uint64_t max = read_number(path);
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.current", group);
    uint64_t now = read_number(path);
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.stat", group);
    if (max == UINT64_MAX || now == UINT64_MAX) return UINT64_MAX;
    uint64_t cache = stat_value(path, "inactive_file") + stat_value(path, "active_file");
    uint64_t used = now > cache ? now - cache : 0;
    return max > used ? max - used : 0;
}

uint64_t ash_memory_available(void)
{
    uint64_t machine = proc_kb("/proc/meminfo", "MemAvailable"), group = cgroup_room();
    return machine < group ? machine : group;
}

uint64_t ash_memory_resident(void)
{
    uint64_t v = proc_kb("/proc/self/status", "VmRSS");
    return v == UINT64_MAX ? 0 : v;
}
