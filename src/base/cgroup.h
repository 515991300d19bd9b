/* The CPU time that control groups leave this process: cgroups(7), v2 "cpu.max" and v1
 * "cpu.cfs_quota_us". Any thread. */
#ifndef ASHLEY_BASE_CGROUP_H
#define ASHLEY_BASE_CGROUP_H

/* The least limit of the process's group and of all groups above it, in CPUs rounded up; 0 without one.
 * `groups` is a file as /proc/self/cgroup, `mount` a folder as /sys/fs/cgroup; what cannot be read sets no
 * limit. In a container the file may name a path that its mount does not show: then the mount's own root
 * counts. */
int ash_cgroup_cpus(const char *groups, const char *mount);

#endif
