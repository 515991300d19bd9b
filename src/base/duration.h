/* Times as people write them: "90", "1.5s", "250 ms", "1h30m". Pure, any thread. */
#ifndef ASHLEY_BASE_DURATION_H
#define ASHLEY_BASE_DURATION_H

#include <stdbool.h>

/* Numbers with ms, s, m or h (case ignored), several in a row, which add up as in Go's durations, or one
 * bare number of seconds; blanks may stand around all of these. *ms may be as large as a double. False, *ms
 * as it was, for other text: signs, exponents and hexadecimal too. */
bool ash_duration_read(const char *text, double *ms);

#endif
