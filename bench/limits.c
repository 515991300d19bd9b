/* limits: what one core and all cores of this machine can do, as one line of JSON. */
#include <stdio.h>

#include "base/cpu.h"
#include "peak.h"

static void print(int threads)
{
    bench_peak p = bench_peak_measure(threads);
    printf("\"%d\":{\"read_gb_s\":%.1f,\"int8_gop_s\":%.0f,\"bf16_gflop_s\":%.0f,\"f32_gflop_s\":%."
           "0f}",
           threads, p.read_gb, p.int8_gop, p.bf16_gop, p.f32_gop);
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
