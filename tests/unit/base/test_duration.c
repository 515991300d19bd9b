/* Times as people write them: what is read, to the millisecond, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/duration.h"

static void times(void **state)
{
    static const struct {
        const char *text;
        double ms;
    } all[] = {{"0", 0.0},          {"90", 90e3},          {".5", 500.0},     {"1.5s", 1500.0},
               {"250ms", 250.0},    {" 5 m ", 300e3},      {"2H", 7200e3},    {"1h30m", 5400e3},
               {"1h 30m 5s", 5405e3}, {"1m500ms", 60500.0}, {"30m1h", 5400e3},
               {"99999999h", 99999999.0 * 3600e3}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        double ms = -1.0;
        if (!ash_duration_read(all[i].text, &ms) || ms != all[i].ms)
            fail_msg("'%s': %.3f", all[i].text, ms);
    }
}

static void no_times(void **state)
{
    static const char *const all[] = {"",    " ",    "s",   "-1",   "+1",   "1d",    "1e3", "0x10", "inf",
                                      "nan", "1.",   ".",   "1..2", "1ss",  "1mm",   "1 2", "1h30", "30 1h",
                                      "1h,", "1s-1s", "1 m s", "1h 30", "1s\n"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        double ms = -1.0;
        if (ash_duration_read(all[i], &ms) || ms != -1.0) fail_msg("'%s' was taken", all[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(times), cmocka_unit_test(no_times)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
