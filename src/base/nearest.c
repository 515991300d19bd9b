/* Owns the guess at a mistyped name. Refuses names over ASH_NEAREST_MAX bytes by calling them far, so
 * that a hostile name costs little. Pure, any thread. */
#include "base/nearest.h"

#include <string.h>

static int lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c + 32 : (unsigned char)c;
}

static int min2(int a, int b)
{
    return a < b ? a : b;
}

/* Rows of the edit matrix, a down, b across; the last row's end is the distance and its minimum the
 * distance to the nearest beginning of b. */
static void edits(const char *a, int n, const char *b, int m, int *whole, int *beginning)
{
    int rows[3][ASH_NEAREST_MAX + 1];
    int *before = rows[0], *last = rows[1], *row = rows[2];
    for (int j = 0; j <= m; j++) last[j] = j;
    for (int i = 1; i <= n; i++) {
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int x = lower(a[i - 1]), y = lower(b[j - 1]);
            row[j] = min2(min2(last[j], row[j - 1]) + 1, last[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == lower(b[j - 2]) && lower(a[i - 2]) == y)
                row[j] = min2(row[j], before[j - 2] + 1);
        }
        int *t = before;
        before = last;
        last = row;
        row = t;
    }
    *whole = *beginning = last[m];
    for (int j = 0; j < m; j++) *beginning = min2(*beginning, last[j]);
}

int ash_nearest_distance(const char *name, const char *known)
{
    size_t n = strlen(name), m = strlen(known);
    if (!n || !m || n > ASH_NEAREST_MAX || m > ASH_NEAREST_MAX)
        return ASH_NEAREST_FAR;
    int whole, beginning;
    edits(name, (int)n, known, (int)m, &whole, &beginning);
    int d = n < 3 ? whole : min2(whole, beginning + 1);
    if (n >= 3 && strcasestr(known, name)) return min2(d, 2);
    return d <= (int)n / 3 ? d : ASH_NEAREST_FAR;
}

const char *ash_nearest(const char *name, const char *const *known, size_t n)
{
    const char *best = NULL;
    int least = ASH_NEAREST_FAR;
    for (size_t i = 0; i < n; i++) {
        int d = known[i] ? ash_nearest_distance(name, known[i]) : ASH_NEAREST_FAR;
        if (d < least) {
            least = d;
            best = known[i];
        }
    }
    return best;
}
