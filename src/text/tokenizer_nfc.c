/* Owns Unicode normalisation form C of text before splitting (Qwen's tokenizers ask for it). The
 * tables and the composition are utf8proc's; the ordering of combining marks is done here, by a
 * stable merge sort, because utf8proc's own is quadratic in a run of marks and a run may be as long
 * as the text. Refuses text whose form does not fit the buffer's cap. Pure functions, any thread. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/tokenizer_impl.h"

typedef struct points {
    utf8proc_int32_t *p; /* owned */
    size_t n, cap;
} points;

static int add_point(points *out, utf8proc_int32_t cp)
{
    if (out->n == out->cap) {
        size_t cap = out->cap ? out->cap + out->cap / 2 : 256;
        utf8proc_int32_t *p = realloc(out->p, cap * sizeof *p);
        if (!p)
            return ASH_ENOMEM;
        out->p = p;
        out->cap = cap;
    }
    out->p[out->n++] = cp;
    return 0;
}

static int class_of(utf8proc_int32_t cp)
{
    return utf8proc_get_property(cp)->combining_class;
}

/* Stable insertion for short runs, a stable bottom-up merge for long ones; tmp holds n. */
static void sort_marks(utf8proc_int32_t *p, size_t n, utf8proc_int32_t *tmp)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n, hi = mid + width < n ? mid + width : n;
            size_t a = lo, b = mid, k = lo;
            while (a < mid && b < hi) tmp[k++] = class_of(p[b]) < class_of(p[a]) ? p[b++] : p[a++];
            while (a < mid) tmp[k++] = p[a++];
            while (b < hi) tmp[k++] = p[b++];
        }
        memcpy(p, tmp, n * sizeof *p);
    }
}

/* Puts each run of combining marks into the order of their classes. */
static int order_marks(points *all)
{
    points tmp = {0};
    int rc = 0;
    for (size_t i = 0; i < all->n && !rc;) {
        size_t k = i;
        bool sorted = true;
        for (int last = 0, c; k < all->n && (c = class_of(all->p[k])) != 0; k++, last = c)
            sorted = sorted && c >= last;
        if (!sorted && tmp.cap < k - i) {
            free(tmp.p);
            tmp = (points){.p = malloc((k - i) * sizeof *tmp.p), .cap = k - i};
            rc = tmp.p ? 0 : ASH_ENOMEM;
        }
        if (!sorted && !rc)
            sort_marks(all->p + i, k - i, tmp.p);
        i = k > i ? k : i + 1;
    }
    free(tmp.p);
    return rc;
}

/* Canonical decomposition, in the order of the text. */
static int decompose(const char *text, size_t n, points *out)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        bool ok;
        utf8proc_int32_t parts[16];
        i += ash_utf8_decode(text + i, n - i, &cp, &ok);
        utf8proc_ssize_t m =
            utf8proc_decompose_char((utf8proc_int32_t)cp, parts, 16,
                                    UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, NULL);
        if (m < 0 || m > 16) { /* no character decomposes into so many */
            parts[0] = (utf8proc_int32_t)cp;
            m = 1;
        }
        for (utf8proc_ssize_t k = 0; k < m; k++) {
            int rc = add_point(out, parts[k]);
            if (rc)
                return rc;
        }
    }
    return 0;
}

static bool is_ascii(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] >= 0x80)
            return false;
    return true;
}

int tok_nfc(const char *text, size_t n, ash_buf *out, ash_err *err)
{
    points all = {0};
    int rc = 0;
    if (is_ascii(text, n)) {
        ash_buf_add(out, text, n);
        return ash_buf_check(out, "normalised text", err);
    }
    rc = decompose(text, n, &all);
    if (!rc)
        rc = order_marks(&all);
    if (!rc) {
        utf8proc_ssize_t m = utf8proc_normalize_utf32(all.p, (utf8proc_ssize_t)all.n,
                                                      UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        for (utf8proc_ssize_t i = 0; i < m; i++) {
            char utf8[4];
            ash_buf_add(out, utf8, ash_utf8_encode((uint32_t)all.p[i], utf8));
        }
    }
    free(all.p);
    return rc ? ash_err_nomem(err, "normalised text") : ash_buf_check(out, "normalised text", err);
}
