/* What the hub's client reads: the first byte says what the rest is: headers; a page of a listing
 * or a kept one, of which a choice is made; a journal. Every path that a list lets through is
 * plain, every hash is one. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hub/hub_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void headers(const char *p, size_t n)
{
    hub_headers h;
    hub_headers_init(&h);
    for (const char *end = p + n; p < end;) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t line = stop ? (size_t)(stop - p) + 1 : (size_t)(end - p);
        if (!hub_headers_line(&h, p, line)) return;
        p += line;
    }
    if (h.has_range && h.first > h.last) abort();
    if (strlen(h.etag) >= sizeof h.etag || strlen(h.next) >= sizeof h.next) abort();
    for (const char *c = h.error_text; *c; c++)
        if (*c < 0x20 || *c > 0x7E) abort();
    hub_backoff_ms(3, h.retry_after_s);
}

static void choose(const ash_hub_tree *t)
{
    static const char *const formats[] = {"auto", "gguf", "safetensors", "pytorch"};
    for (size_t i = 0; i < 4; i++) {
        ash_hub_plan *p;
        ash_hub_want want = {.format = formats[i], .quant = i == 1 ? "Q4_0" : NULL};
        if (ash_hub_choose(t, &want, &p, NULL)) continue;
        if (!p->n_files || p->n_files > t->n_files) abort();
        ash_hub_plan_close(p);
    }
}

static void listing(const char *p, size_t n, bool kept)
{
    hub_list *l;
    if (hub_list_open("org/repo", "main", &l, NULL)) return;
    l->tree.whole = true;
    int rc = kept ? hub_list_kept(l, p, n, NULL) : hub_list_page(l, p, n, NULL);
    if (!rc) rc = hub_list_finish(l, NULL);
    for (size_t i = 0; !rc && i < l->tree.n_files; i++) {
        const ash_hub_file *f = &l->tree.files[i];
        if (!hub_path_ok(f->path) || f->path[0] == '/' || strstr(f->path, "/../") ||
            f->size > ASH_MAX_HUB_FILE)
            abort();
        if ((f->sha256 && !hub_hex(f->sha256, 64)) || (f->git && !hub_hex(f->git, 40))) abort();
    }
    if (!rc) choose(&l->tree);
    ash_hub_tree_close(&l->tree);
}

static void journal(const uint8_t *p, size_t n)
{
    enum { CHUNKS = 3 };
    uint8_t known[CHUNKS] = {0};
    uint64_t sums[CHUNKS], good;
    int fd = memfd_create("journal", MFD_CLOEXEC);
    if (fd < 0) return;
    if (write(fd, p, n) == (ssize_t)n) {
        uint32_t got = hub_journal_read(fd, (uint64_t)CHUNKS * ASH_HUB_CHUNK, known, sums, &good);
        if (got > CHUNKS || good > n || got != (uint32_t)(known[0] + known[1] + known[2])) abort();
    }
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    const char *p = (const char *)data + 1;
    switch (data[0]) {
    case 'h':
        headers(p, size - 1);
        break;
    case 'p':
    case 'k':
        listing(p, size - 1, data[0] == 'k');
        break;
    case 'j':
        journal(data + 1, size - 1);
        break;
    default:
        break;
    }
    return 0;
}
