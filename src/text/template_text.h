/* Text operations that filters and methods share. All keep taint exactly. */
#ifndef ASHLEY_TEXT_TEMPLATE_TEXT_H
#define ASHLEY_TEXT_TEMPLATE_TEXT_H

#include "text/template_impl.h"

enum { ASH_TSTRIP_LEFT = 1, ASH_TSTRIP_RIGHT = 2, ASH_TSTRIP_BOTH = 3 };

/* chars NULL: white space. */
ash_tval ash_ttext_strip(ash_trun *r, const ash_tstr *s, const ash_tstr *chars, int sides);
/* sep NULL: runs of white space; most < 0: no cap on splits; right: split from the end. A list. */
ash_tval ash_ttext_split(ash_trun *r, const ash_tstr *s, const ash_tstr *sep, int64_t most, bool right);
/* most < 0: all. */
ash_tval ash_ttext_replace(ash_trun *r, const ash_tstr *s, const ash_tstr *old, const ash_tstr *new,
                           int64_t most);
/* str.splitlines; NULL with failure. */
ash_tlist *ash_ttext_lines(ash_trun *r, const ash_tstr *s, bool keep_ends);
/* Python's int(text, base) and float(text). False if the text is no number; *big if it is one but
 * beyond 64 bits. */
bool ash_ttext_int(const ash_tstr *s, int64_t base, int64_t *out, bool *big);
bool ash_ttext_float(const ash_tstr *s, double *out);

#endif
