/* Owns the reading of a zip archive's directory. Refuses what zip.h lists. One thread at a time. */
#include "format/zip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/limits.h"
#include "base/rng.h"
#include "format/scan.h"

enum {
    END_BYTES = 22,
    LOCATOR_BYTES = 20,
    END64_BYTES = 56,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    FLAG_ENCRYPTED = 1 | 0x40 | 0x2000,
    FLAG_DESCRIPTOR = 8,
    FLAG_PATCH = 0x20,
    FLAGS_KNOWN = 0x80E, /* compression options, descriptor, UTF-8 */
};

typedef struct reader {
    ash_zip *z;
    ash_err *err;
    uint64_t n, start, end; /* of the central directory */
} reader;

static uint64_t load(const uint8_t *p, int size)
{
    uint64_t v = 0;
    for (int i = size - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

#define FAIL(r, code, pos, ...) ash_err_at((r)->err, (code), (int64_t)(pos), __VA_ARGS__)

/* ---- where the directory is --------------------------------------------------------------------
 */

static int read_end64(reader *r, uint64_t locator)
{
    const ash_zip *z = r->z;
    const uint8_t *p = z->p + locator;
    uint64_t at = load(p + 8, 8);
    if (load(p + 4, 4) || load(p + 16, 4) > 1)
        return FAIL(r, ASH_EUNSUPPORTED, locator, "%s: zip: an archive on several disks", z->label);
    if (locator < END64_BYTES || at != locator - END64_BYTES ||
        memcmp(z->p + at, "PK\6\6", 4) != 0 || load(z->p + at + 4, 8) != END64_BYTES - 12)
        return FAIL(r, ASH_EFORMAT, locator, "%s: zip: the ZIP64 end is not before its locator",
                    z->label);
    p = z->p + at;
    if (load(p + 16, 4) || load(p + 20, 4) || load(p + 24, 8) != load(p + 32, 8))
        return FAIL(r, ASH_EUNSUPPORTED, at, "%s: zip: an archive on several disks", z->label);
    uint64_t n = load(p + 32, 8), size = load(p + 40, 8), start = load(p + 48, 8);
    if ((r->n != 0xFFFF && r->n != n) || (r->end != 0xFFFFFFFF && r->end != size) ||
        (r->start != 0xFFFFFFFF && r->start != start))
        return FAIL(r, ASH_EFORMAT, at, "%s: zip: the two ends of the directory differ", z->label);
    r->n = n;
    r->start = start;
    if (start > at || size != at - start)
        return FAIL(r, ASH_EFORMAT, at, "%s: zip: the directory must end here", z->label);
    r->end = at;
    return 0;
}

static int read_end(reader *r)
{
    const ash_zip *z = r->z;
    uint64_t at = z->size - END_BYTES;
    const uint8_t *p = z->p + at;
    if (z->size < END_BYTES || memcmp(p, "PK\5\6", 4) != 0 || load(p + 20, 2))
        return FAIL(r, ASH_EFORMAT, -1, "%s: zip: cut, or something follows its end", z->label);
    if (load(p + 4, 2) || load(p + 6, 2) || load(p + 8, 2) != load(p + 10, 2))
        return FAIL(r, ASH_EUNSUPPORTED, at, "%s: zip: an archive on several disks", z->label);
    r->n = load(p + 10, 2);
    r->end = load(p + 12, 4); /* its size, until it is known where it starts */
    r->start = load(p + 16, 4);
    if (at >= LOCATOR_BYTES && memcmp(p - LOCATOR_BYTES, "PK\6\7", 4) == 0)
        return read_end64(r, at - LOCATOR_BYTES);
    if (r->start > at || r->end != at - r->start)
        return FAIL(r, ASH_EFORMAT, at, "%s: zip: the directory must end here", z->label);
    r->end = at;
    return 0;
}

/* ---- entries -----------------------------------------------------------------------------------
 */

/* The 64-bit values of an extra field for those of v that are all ones; false if it is malformed or
 * a value is missing. */
static bool read_extra64(const uint8_t *p, uint64_t n, uint64_t *const *v, int n_v)
{
    bool need = false;
    for (int i = 0; i < n_v; i++) need |= *v[i] == 0xFFFFFFFF;
    while (n >= 4) {
        uint64_t id = load(p, 2), size = load(p + 2, 2);
        if (size > n - 4) return false;
        const uint8_t *q = p + 4;
        if (id == 1 && need) {
            for (int i = 0; i < n_v; i++) {
                if (*v[i] != 0xFFFFFFFF) continue;
                if (size < 8) return false;
                *v[i] = load(q, 8);
                q += 8;
                size -= 8;
            }
            return true;
        }
        p += 4 + load(p + 2, 2);
        n -= 4 + size;
    }
    return !need && n == 0;
}

static int check_local(reader *r, ash_zip_entry *e, uint64_t flags, const char *shown,
                       uint64_t record)
{
    const ash_zip *z = r->z;
    if (e->local > r->start || r->start - e->local < LOCAL_BYTES ||
        memcmp(z->p + e->local, "PK\3\4", 4) != 0)
        return FAIL(r, ASH_EFORMAT, record, "%s: zip: no entry '%s' where the directory says",
                    z->label, shown);
    const uint8_t *p = z->p + e->local;
    uint64_t packed = load(p + 18, 4), size = load(p + 22, 4), name = load(p + 26, 2),
             extra = load(p + 28, 2);
    uint64_t room = r->start - e->local - LOCAL_BYTES;
    if (name + extra > room)
        return FAIL(r, ASH_EFORMAT, e->local, "%s: zip: entry '%s' is cut", z->label, shown);
    if (name != e->name.n || memcmp(p + LOCAL_BYTES, e->name.p, name) != 0)
        return FAIL(r, ASH_EFORMAT, e->local,
                    "%s: zip: entry '%s' has another name in its own header", z->label, shown);
    if (load(p + 6, 2) != flags || load(p + 8, 2))
        return FAIL(r, ASH_EFORMAT, e->local,
                    "%s: zip: entry '%s' has other flags or another method in its own header",
                    z->label, shown);
    uint64_t *const v[] = {&size, &packed};
    if (!read_extra64(p + LOCAL_BYTES + name, extra, v, 2))
        return FAIL(r, ASH_EFORMAT, e->local, "%s: zip: entry '%s': malformed extra field",
                    z->label, shown);
    bool later = (flags & FLAG_DESCRIPTOR) && !size && !packed && !load(p + 14, 4);
    if (!later && (size != e->size || packed != e->size || load(p + 14, 4) != e->crc))
        return FAIL(r, ASH_EFORMAT, e->local,
                    "%s: zip: entry '%s' has another size or checksum in its own header", z->label,
                    shown);
    e->data = e->local + LOCAL_BYTES + name + extra;
    if (e->size > r->start - e->data)
        return FAIL(r, ASH_EFORMAT, e->local, "%s: zip: cut: entry '%s' needs %" PRIu64 " bytes",
                    z->label, shown, e->size);
    return 0;
}

/* One record of the central directory; *at moves behind it. */
static int read_entry(reader *r, uint64_t *at, ash_zip_entry *e)
{
    const ash_zip *z = r->z;
    const uint8_t *p = z->p + *at;
    uint64_t left = r->end - *at;
    char shown[208];
    if (left < CENTRAL_BYTES || memcmp(p, "PK\1\2", 4) != 0)
        return FAIL(r, ASH_EFORMAT, *at, "%s: zip: an entry of the directory is cut", z->label);
    uint64_t flags = load(p + 8, 2), method = load(p + 10, 2), packed = load(p + 20, 4);
    uint64_t name = load(p + 28, 2), extra = load(p + 30, 2), comment = load(p + 32, 2);
    if (name + extra + comment > left - CENTRAL_BYTES || !name)
        return FAIL(r, ASH_EFORMAT, *at, "%s: zip: an entry of the directory is cut", z->label);
    *e = (ash_zip_entry){.name = {(const char *)p + CENTRAL_BYTES, (size_t)name},
                         .local = load(p + 42, 4),
                         .size = load(p + 24, 4),
                         .crc = (uint32_t)load(p + 16, 4)};
    ash_scan_show(e->name, shown);
    if (memchr(e->name.p, 0, e->name.n))
        return FAIL(r, ASH_EFORMAT, *at, "%s: zip: entry '%s' has a NUL in its name", z->label,
                    shown);
    uint64_t *const v[] = {&e->size, &packed, &e->local};
    if (!read_extra64(p + CENTRAL_BYTES + name, extra, v, 3))
        return FAIL(r, ASH_EFORMAT, *at, "%s: zip: entry '%s': malformed extra field", z->label,
                    shown);
    if (flags & FLAG_ENCRYPTED)
        return FAIL(r, ASH_EUNSUPPORTED, *at, "%s: zip: entry '%s' is encrypted", z->label, shown);
    if (flags & ~(uint64_t)FLAGS_KNOWN)
        return FAIL(r, ASH_EUNSUPPORTED, *at, "%s: zip: entry '%s' has the flags 0x%" PRIx64,
                    z->label, shown, flags);
    if (method)
        return FAIL(r, ASH_EUNSUPPORTED, *at,
                    "%s: zip: entry '%s' is compressed (method %" PRIu64 "); PyTorch stores",
                    z->label, shown, method);
    if (packed != e->size || load(p + 34, 2))
        return FAIL(r, ASH_EFORMAT, *at,
                    "%s: zip: entry '%s' is stored with two sizes or on another disk", z->label,
                    shown);
    uint64_t record = *at;
    *at += CENTRAL_BYTES + name + extra + comment;
    return check_local(r, e, flags, shown, record);
}

static int by_local(const void *x, const void *y)
{
    const ash_zip_entry *a = x, *b = y;
    return a->local < b->local ? -1 : a->local > b->local;
}

static int check_order(reader *r)
{
    ash_zip *z = r->z;
    char shown[208];
    uint64_t end = 0;
    qsort(z->entries, z->n, sizeof *z->entries, by_local);
    for (size_t i = 0; i < z->n; i++) {
        if (z->entries[i].local < end)
            return FAIL(r, ASH_EFORMAT, z->entries[i].local,
                        "%s: zip: entry '%s' overlaps the one before", z->label,
                        ash_scan_show(z->entries[i].name, shown));
        end = z->entries[i].data + z->entries[i].size;
    }
    return 0;
}

static int index_names(reader *r)
{
    ash_zip *z = r->z;
    char shown[208];
    z->seed[0] = ash_rng_entropy();
    z->seed[1] = ash_rng_entropy();
    for (size_t k = 0; k < z->n; k++) {
        ash_str name = z->entries[k].name;
        size_t i = ash_hash_bytes(name.p, name.n, z->seed) & (z->n_slots - 1);
        while (z->slots[i] && !ash_str_eq(z->entries[z->slots[i] - 1].name, name))
            i = (i + 1) & (z->n_slots - 1);
        if (z->slots[i])
            return FAIL(r, ASH_EFORMAT, z->entries[k].local, "%s: zip: two entries are named '%s'",
                        z->label, ash_scan_show(name, shown));
        z->slots[i] = (uint32_t)k + 1;
    }
    return 0;
}

int ash_zip_read(const uint8_t *p, uint64_t size, const char *label, ash_arena *arena, ash_zip *out,
                 ash_err *err)
{
    *out = (ash_zip){.label = label, .p = p, .size = size};
    reader r = {.z = out, .err = err};
    int rc = size < END_BYTES
                 ? FAIL(&r, ASH_EFORMAT, -1, "%s: zip: cut: %" PRIu64 " bytes", label, size)
                 : read_end(&r);
    if (rc) return rc;
    if (r.n > (r.end - r.start) / CENTRAL_BYTES || !r.n)
        return FAIL(&r, ASH_EFORMAT, r.start,
                    "%s: zip: %" PRIu64 " entries in a directory of %" PRIu64 " bytes", label, r.n,
                    r.end - r.start);
    if (r.n > ASH_MAX_ZIP_ENTRIES)
        return FAIL(&r, ASH_ELIMIT, r.start, "%s: zip: %" PRIu64 " entries; at most %u", label, r.n,
                    ASH_MAX_ZIP_ENTRIES);
    out->n = (size_t)r.n;
    out->n_slots = ash_hash_slots(out->n);
    out->entries = ash_arena_calloc(arena, out->n, sizeof *out->entries);
    out->slots = ash_arena_calloc(arena, out->n_slots, sizeof *out->slots);
    if (!out->entries || !out->slots) return ash_err_nomem(err, label);
    uint64_t at = r.start;
    for (size_t i = 0; !rc && i < out->n; i++) rc = read_entry(&r, &at, &out->entries[i]);
    if (!rc && at != r.end)
        rc = FAIL(&r, ASH_EFORMAT, at, "%s: zip: the directory has more than its %zu entries",
                  label, out->n);
    if (rc) return rc;
    ash_str first = out->entries[0].name;
    const char *slash = memchr(first.p, '/', first.n);
    out->top = (ash_str){first.p, slash ? (size_t)(slash - first.p) : 0};
    rc = check_order(&r);
    return rc ? rc : index_names(&r);
}

const ash_zip_entry *ash_zip_find(const ash_zip *z, ash_str name)
{
    char full[1024];
    size_t n = z->top.n;
    if (n + 1 + name.n > sizeof full) return NULL;
    memcpy(full, z->top.p, n);
    if (n) full[n++] = '/';
    memcpy(full + n, name.p, name.n);
    ash_str key = {full, n + name.n};
    size_t i = ash_hash_bytes(key.p, key.n, z->seed) & (z->n_slots - 1);
    while (z->slots[i] && !ash_str_eq(z->entries[z->slots[i] - 1].name, key))
        i = (i + 1) & (z->n_slots - 1);
    return z->slots[i] ? &z->entries[z->slots[i] - 1] : NULL;
}
