/* Owns the names under which rates stand in the ledger, and which measurements count. Refuses nothing: what
 * cannot be kept is measured again. */
#include "cli/rates.h"

#include <stdio.h>
#include <unistd.h>

#include "base/fs.h"
#include "cli/engine_open.h"
#include "nn/limits.h"

enum { LEAST_FETCH = 8 << 20, LEAST_FETCH_MS = 200 };

#define ROOM_TO_MEASURE ((uint64_t)1 << 30) /* beside what is measured in, so that nobody is pressed */

ash_ledger *ash_rates_open(const ash_cli *cli)
{
    ash_ledger *l = NULL;
    ash_err err = ASH_ERR_INIT;
    const char *dir = ash_cli_manager_opts(cli->config).state_dir;
    /* where nothing can be kept nothing is said: that is the server's and the doctor's to tell */
    if (!dir || ash_fs_mkdirs(dir, &err) || access(dir, W_OK)) return NULL;
    return ash_ledger_open(dir, &l, &err) ? NULL : l;
}

static double find(ash_ledger *l, const char *what)
{
    double rate = 0.0;
    return l && ash_ledger_rate(l, what, &rate) ? rate : 0.0;
}

static void note(ash_ledger *l, const char *what, double rate)
{
    if (l && rate > 0.0) ash_ledger_put_rate(l, what, rate);
}

double ash_rates_fetch(ash_ledger *l)
{
    return find(l, "fetch");
}

double ash_rates_disk(ash_ledger *l)
{
    return find(l, "disk");
}

/* Fewer threads, of a control group, read less. */
static const char *memory_name(char out[40])
{
    snprintf(out, 40, "memory, %d threads", ash_cpu_threads());
    return out;
}

double ash_rates_memory(ash_ledger *l, uint64_t room)
{
    char name[40];
    double rate = find(l, memory_name(name)), gbs = 0.0;
    if (rate > 0.0) return rate;
    uint64_t need = ROOM_TO_MEASURE + (uint64_t)ash_cpu_threads() * ASH_LIMITS_BYTES;
    if (room < need || ash_limits_measure_memory(0, &gbs, NULL)) return 0.0;
    note(l, name, gbs * 1e9);
    return gbs * 1e9;
}

void ash_rates_note_disk(ash_ledger *l, double rate)
{
    note(l, "disk", rate);
}

void ash_rates_note_memory(ash_ledger *l, double rate)
{
    char name[40];
    note(l, memory_name(name), rate);
}

void ash_rates_note_fetch(const ash_cli *cli, uint64_t bytes, int64_t ms)
{
    if (bytes < LEAST_FETCH || ms < LEAST_FETCH_MS) return;
    ash_ledger *l = ash_rates_open(cli);
    note(l, "fetch", (double)bytes * 1e3 / (double)ms);
    ash_ledger_close(l);
}
