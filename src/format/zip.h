/* Zip archives as PyTorch writes them: every entry stored, none compressed or encrypted.
 *
 *   local header, name, extra, data | ... | central directory | [ZIP64 end, locator] | end
 *
 * The central directory and the local headers must agree, entries must not overlap, names occur once,
 * and no comment follows: archives that two readers could read in two ways are refused. Source: PKWARE
 * APPNOTE.TXT 6.3.10; PyTorch caffe2/serialize/inline_container.cc. Checksums are not computed at open:
 * that would read all of the data. */
#ifndef ASHLEY_FORMAT_ZIP_H
#define ASHLEY_FORMAT_ZIP_H

#include "base/arena.h"

typedef struct ash_zip_entry {
    ash_str name;   /* borrowed from the archive */
    uint64_t local; /* its local header */
    uint64_t data;  /* its first byte, from the archive's start */
    uint64_t size;
    uint32_t crc;   /* CRC-32 of the data, as the central directory says */
} ash_zip_entry;

typedef struct ash_zip {
    const char *label;
    const uint8_t *p;
    uint64_t size;
    ash_zip_entry *entries; /* in the archive's order of data */
    size_t n;
    ash_str top;            /* of the first entry of the directory: all up to its first slash */
    uint32_t *slots;        /* by name: position in entries + 1, 0 empty */
    size_t n_slots;
    uint64_t seed[2];
} ash_zip;

/* Reads the directory of p[0..size), which is borrowed; lists are the arena's. ASH_EFORMAT malformed,
 * ASH_EUNSUPPORTED compressed, encrypted or on several disks, ASH_ELIMIT. Errors name label and byte. */
int ash_zip_read(const uint8_t *p, uint64_t size, const char *label, ash_arena *arena, ash_zip *out,
                 ash_err *err) ASH_MUST_CHECK;
/* The entry "top/name", or NULL. */
const ash_zip_entry *ash_zip_find(const ash_zip *z, ash_str name);

#endif
