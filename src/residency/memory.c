/* Owns reading the kernel's figures of memory. Refuses nothing: what is not there sets no limit. Any
 * thread. */
#include "residency/memory.h"

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"

static FILE *open_at(const char *fmt, ...) ASH_PRINTF(1, 2);
static FILE *open_at(const char *fmt, ...)
{
    char path[PATH_MAX];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(path, sizeof path, fmt, args);
    va_end(args);
    return n < 0 || n >= (int)sizeof path ? NULL : fopen(path, "re");
}

/* The value in bytes of "KEY:  N kB"; `missing` if it is not there. Closes f. */
static uint64_t kb_value(FILE *f, const char *key, uint64_t missing)
{
    char line[256];
    size_t n = strlen(key);
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = !strncmp(line, key, n) && line[n] == ':';
    if (f) fclose(f);
    return found ? strtoull(line + n + 1, NULL, 10) * 1024 : missing;
}

/* Closes f. "max", the v2 word for no limit, is no number. */
static uint64_t number(FILE *f)
{
    unsigned long long v;
    int got = f ? fscanf(f, "%llu", &v) : 0;
    if (f) fclose(f);
    return got == 1 ? (uint64_t)v : UINT64_MAX;
}

/* The sum of two values of a "key value" file, 0 for what is not there. */
static uint64_t stat_values(FILE *f, const char *a, const char *b)
{
    char name[64];
    unsigned long long v;
    uint64_t sum = 0;
    while (f && fscanf(f, "%63s %llu", name, &v) == 2)
        if (!strcmp(name, a) || !strcmp(name, b)) sum += (uint64_t)v;
    if (f) fclose(f);
    return sum;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a == UINT64_MAX ? a : a > b ? a - b : 0;
}

/* Lowers the total to one group's limit, and what is available and spare to what it leaves. */
static void group_room(const char *folder, bool v2, ash_memory *out)
{
    uint64_t max = number(open_at("%s/%s", folder, v2 ? "memory.max" : "memory.limit_in_bytes"));
    uint64_t now = number(open_at("%s/%s", folder, v2 ? "memory.current" : "memory.usage_in_bytes"));
    if (max == UINT64_MAX || now == UINT64_MAX) return;
    if (out->total && max < out->total) out->total = max;
    const char *const mapped = v2 ? "file_mapped" : "total_mapped_file";
    uint64_t cache = v2 ? stat_values(open_at("%s/memory.stat", folder), "inactive_file", "active_file")
                        : stat_values(open_at("%s/memory.stat", folder), "total_inactive_file",
                                      "total_active_file");
    uint64_t room = less(max, less(now, cache));
    uint64_t spare = less(room, stat_values(open_at("%s/memory.stat", folder), mapped, mapped));
    out->available = room < out->available ? room : out->available;
    out->spare = spare < out->spare ? spare : out->spare;
}

/* The same from the group's own folder up to the mount. In a container the path may not be shown there: then
 * the mount's own root counts. */
static void groups_room(const char *mount, const char *group, bool v2, ash_memory *out)
{
    char folder[PATH_MAX];
    size_t n = strlen(mount);
    if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder) return;
    for (;;) {
        group_room(folder, v2, out);
        char *slash = strrchr(folder + n, '/');
        if (!slash) return;
        *slash = 0;
    }
}

/* "full avg10=1.23 ..." of a pressure file, 0 if it is not there. Closes f. */
static double stalled(FILE *f)
{
    char line[256];
    double v = 0.0;
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "full avg10=", 11)) v = strtod(line + 11, NULL);
    if (f) fclose(f);
    return v > 0.0 && v <= 100.0 ? v : 0.0;
}

static bool has_memory(char *controllers)
{
    for (char *save, *one = strtok_r(controllers, ",", &save); one; one = strtok_r(NULL, ",", &save))
        if (!strcmp(one, "memory")) return true;
    return false;
}

/* Takes the limits of this process's groups, "0::/path" or "4:memory:/path", into *out. */
static void read_groups(const char *root, ash_memory *out)
{
    char line[PATH_MAX], mount[PATH_MAX];
    FILE *f = open_at("%s/proc/self/cgroup", root);
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        *names++ = *path++ = 0;
        bool v2 = !*names;
        if (strstr(path, "..") || (!v2 && !has_memory(names)) ||
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, v2 ? "" : "/memory") >=
                (int)sizeof mount)
            continue;
        groups_room(mount, path, v2, out);
        double s = v2 ? stalled(open_at("%s%s/memory.pressure", mount, path)) : 0.0;
        out->stalled = s > out->stalled ? s : out->stalled;
    }
    if (f) fclose(f);
}

void ash_memory_read(const char *root, ash_memory *out)
{
    out->total = kb_value(open_at("%s/proc/meminfo", root), "MemTotal", 0);
    out->available = kb_value(open_at("%s/proc/meminfo", root), "MemAvailable", UINT64_MAX);
    out->spare = less(out->available, kb_value(open_at("%s/proc/meminfo", root), "Mapped", 0));
    out->own = kb_value(open_at("%s/proc/self/status", root), "RssAnon", 0) +
               kb_value(open_at("%s/proc/self/status", root), "RssShmem", 0);
    out->resident = kb_value(open_at("%s/proc/self/status", root), "VmRSS", 0);
    out->stalled = stalled(open_at("%s/proc/pressure/memory", root));
    read_groups(root, out);
}

bool ash_memory_cpu_seconds(const char *root, double *out)
{
    char text[1024] = "";
    FILE *f = open_at("%s/proc/self/stat", root);
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    char *at = n ? strrchr(text, ')') : NULL; /* a program's name may hold anything */
    for (int field = 2; at && field < 14; field++) at = strchr(at + 1, ' ');
    long hz = sysconf(_SC_CLK_TCK);
    if (!at || hz <= 0) return false;
    uint64_t user = strtoull(at, &at, 10), system = strtoull(at, NULL, 10);
    *out = (double)(user + system) / (double)hz;
    return true;
}

uint64_t ash_memory_available(void)
{
    ash_memory m;
    ash_memory_read("", &m);
    return m.available;
}

uint64_t ash_memory_resident(void)
{
    return kb_value(open_at("/proc/self/status"), "VmRSS", 0);
}
