/* Owns reading CPU limits of control groups. Refuses nothing: what is not understood is no limit. Any
 * thread. */
#include "base/cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0)
        return 0;
    long long n = quota / period + (quota % period != 0);
    return n > INT_MAX ? 0 : (int)n;
}

static bool read_numbers(const char *folder, const char *name, long long *a, long long *b)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return false;
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    int got = b ? fscanf(f, "%lld %lld", a, b) : fscanf(f, "%lld", a);
    fclose(f);
    return got == (b ? 2 : 1);
}

static int limit_of(const char *folder, bool v2)
{
    long long quota, period;
    if (v2) /* "max 100000" is no number, and no limit */
        return read_numbers(folder, "cpu.max", &quota, &period) ? cpus(quota, period) : 0;
    return read_numbers(folder, "cpu.cfs_quota_us", &quota, NULL) &&
                   read_numbers(folder, "cpu.cfs_period_us", &period, NULL)
               ? cpus(quota, period)
               : 0;
}

/* The least limit from `root` + `group` up to `root` itself. */
static int least_limit(const char *root, const char *group, bool v2)
{
    char folder[PATH_MAX];
    size_t n = strlen(root);
    int least = 0;
    if (snprintf(folder, sizeof folder, "%s%s", root, group) >= (int)sizeof folder)
        return 0;
    for (;;) {
        int limit = limit_of(folder, v2);
        if (limit && (!least || limit < least))
            least = limit;
        char *slash = strrchr(folder + n, '/');
        if (!slash)
            return least;
        *slash = 0;
    }
}

/* Whether "cpu" is one of the controllers in "cpu,cpuacct". */
static bool has_cpu(char *controllers)
{
    for (char *save, *one = strtok_r(controllers, ",", &save); one; one = strtok_r(NULL, ",", &save))
        if (!strcmp(one, "cpu"))
            return true;
    return false;
}

int ash_cgroup_cpus(const char *groups, const char *mount)
{
    char line[PATH_MAX], root[PATH_MAX];
    int least = 0;
    FILE *f = fopen(groups, "re");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f)) { /* "4:cpu,cpuacct:/group", v2: "0::/group" */
        line[strcspn(line, "\n")] = 0;
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            continue;
        *names++ = *path++ = 0;
        bool v2 = !*names;
        if (strstr(path, "..") || (!v2 && !has_cpu(names)) ||
            snprintf(root, sizeof root, "%s%s", mount, v2 ? "" : "/cpu") >= (int)sizeof root)
            continue;
        int limit = least_limit(root, path, v2);
        if (limit && (!least || limit < least))
            least = limit;
    }
    fclose(f);
    return least;
}
