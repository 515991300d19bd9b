/* safetensors bytes -> tensors, all inside the file and without holes. Bytes that start with '{'
 * are an index of shards too: read as one, and by the walker of JSON, which must take what Jansson
 * takes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/json.h"
#include "format/safetensors.h"
#include "format/scan.h"
#include "format/shards.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t sum; /* so that reads are not optimised away */

static void check_tensors(const ash_tensor_index *idx, size_t size)
{
    uint64_t next = 0;
    for (size_t i = 0; i < idx->n_tensors; i++) {
        char shape[96];
        const ash_tensor *t = &idx->tensors[i];
        if (t->offset > size || t->bytes > size - t->offset || t->strides || !t->n_dims ||
            (i && t->offset != next) || ash_tensor_find(idx, t->name) != t ||
            !ash_tensor_shape(t, shape)[0])
            abort();
        next = t->offset + t->bytes;
        const uint8_t *p = ash_tensor_data(idx, t);
        if (t->bytes) sum += (uint64_t)p[0] + p[t->bytes / 2] + p[t->bytes - 1];
    }
    if (idx->n_tensors && next != size) abort();
}

static void read_index(const uint8_t *data, size_t size)
{
    char path[64];
    ash_tensor_index idx;
    ash_err err = ASH_ERR_INIT;
    int fd = memfd_create("index", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd >= 0 && write(fd, data, size) == (ssize_t)size) {
        int rc = ash_shards_declare(path, &idx, &err);
        if (rc && !err.msg[0]) abort();
        for (size_t i = 0; !rc && i < idx.n_tensors; i++) {
            const ash_tensor *t = &idx.tensors[i];
            if (t->file >= idx.n_files || ash_tensor_find(&idx, t->name) != t) abort();
        }
        ash_tensor_index_release(&idx);
    }
    if (fd >= 0) close(fd);
}

static void compare(const uint8_t *data, size_t size)
{
    ash_scan s;
    ash_err err = ASH_ERR_INIT;
    json_t *v;
    ash_scan_init(&s, "input", data, size, 0, &err);
    bool ok = ash_scan_skip(&s) && ash_scan_end(&s);
    if (!ok && (!err.msg[0] || err.pos > (int64_t)size)) abort();
    ash_scan_release(&s);
    /* Jansson lets a NUL byte pass between values */
    if (!memchr(data, 0, size) && ash_json_parse((const char *)data, size, &v, NULL) == 0) {
        if (!ok) abort();
        json_decref(v);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ash_tensor_index idx;
    ash_err err = ASH_ERR_INIT;
    if (ash_shards_open_memory(data, size, "input", ash_safetensors_read, NULL, &idx, &err)) {
        if (!err.msg[0] || err.pos > (int64_t)size) abort();
    } else {
        check_tensors(&idx, size);
    }
    ash_tensor_index_release(&idx);
    if (size && data[0] == '{') {
        read_index(data, size);
        compare(data, size);
    }
    return 0;
}
