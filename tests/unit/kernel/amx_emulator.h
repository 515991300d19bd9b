/* AMX for processors without it: tile instructions raise SIGILL there, and a handler carries them out by the
 * pseudocode of the Intel SDM. So the kernels are tested as they were compiled, operands and strides
 * included; shapes that break a rule (a processor raises an exception then) end the test. Slow: some
 * microseconds each. */
#ifndef ASHLEY_TESTS_AMX_EMULATOR_H
#define ASHLEY_TESTS_AMX_EMULATOR_H

#include "kernel/kernel.h"

/* Every table that can run here: ash_kernel_variant's, and the one of AMX on a processor that has the AVX-512
 * it needs besides. To be called in each test, as below. */
const ash_kernel *amx_test_variant(int index);

/* Whether AMX's table can run from here on, on the processor's tiles or on these; says so if not. To be
 * called in each test: cmocka puts a handler of its own before it. */
bool amx_test_ready(void);

/* a + b c as tdpbf16ps computes it: numbers too small for the exponent are zero before and after, and the
 * product is not rounded. */
float amx_fma(float a, float b, float c);

#endif
