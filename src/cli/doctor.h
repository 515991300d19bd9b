/* The findings of `ashley doctor`, told as they come. Main thread. */
#ifndef ASHLEY_CLI_DOCTOR_H
#define ASHLEY_CLI_DOCTOR_H

#include "cli/cli.h"

typedef enum ash_doctor_level {
    ASH_DOCTOR_OK,
    ASH_DOCTOR_NOTE, /* works, but could be better */
    ASH_DOCTOR_BAD,  /* something that was asked for will not work */
} ash_doctor_level;

typedef struct ash_doctor {
    ash_cli *cli;
    const char *root; /* stands before /proc and /sys; "" for this machine's own */
    json_t *all;      /* of {level, what, text, advice} */
    int bad;
    double read_gbs;  /* memory bandwidth, 0: not measured */
    double disk_rate; /* bytes a second, 0: not measured */
} ash_doctor;

/* One line, printed or kept for --json. advice: what to change, or NULL. */
void ash_doctor_tell(ash_doctor *d, ash_doctor_level level, const char *what, const char *advice,
                     const char *fmt, ...) ASH_PRINTF(5, 6);

/* What the kernel says under d->root: processors and their limit, memory and its limits, swap,
 * pressure, huge pages, overcommitment. */
void ash_doctor_kernel(ash_doctor *d);
/* Measures memory and disk: two seconds. `file` is one of a model, or NULL: then a temporary one is
 * written into the state folder. */
void ash_doctor_measure(ash_doctor *d, const char *file);
/* The hub cache and the state folder: what is broken, unfinished, unused; room. */
void ash_doctor_disk(ash_doctor *d);

#endif
