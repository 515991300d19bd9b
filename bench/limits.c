/* limits: what one core and all cores of this machine can do, as one line of JSON. */
#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "nn/limits.h"

static void print(int threads)
{
    ash_limits p;
    ash_err err = ASH_ERR_INIT;
    if (ash_limits_measure(threads, &p, &err)) {
        fprintf(stderr, "limits: %s\n", err.msg);
        exit(1);
    }
    printf("\"%d\":{\"read_gb_s\":%.1f,\"int8_gop_s\":%.0f,\"bf16_gflop_s\":%.0f,"
           "\"f32_gflop_s\":%.0f}",
           threads, p.read_gbs, p.int8_gops, p.bf16_gflops, p.f32_gflops);
}

int main(void)
{
    int threads = ash_cpu_threads();
    printf("{\"cpu\":\"%s\",\"level\":\"%s\",\"threads\":{", ash_cpu_get()->name,
           ash_cpu_level_name(ash_cpu_get()->level));
    print(1);
    if (threads > 1) {
        printf(",");
        print(threads);
    }
    printf("}}\n");
    return 0;
}
