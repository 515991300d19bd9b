/* Owns the merging of neighbouring symbols by priority, for both models: the pair of lowest rank
 * first, of equal ranks the leftmost. Short lists are scanned; long ones use a binary heap with stale
 * entries dropped on the way, so that one word of n bytes costs O(n log n). The scratch belongs to
 * one encode call. */
#include <stdlib.h>

#include "text/tokenizer_impl.h"

#define SCAN_LIMIT 48 /* symbols up to which a scan beats the heap */

static int grow(void **p, size_t n, size_t size)
{
    void *q = realloc(*p, n * size);
    if (!q)
        return -1;
    *p = q;
    return 0;
}

int tok_work_reserve(tok_work *w, size_t n, ash_err *err)
{
    if (n + 1 <= w->cap)
        return 0;
    size_t cap = n + 1 < 256 ? 256 : n < 1u << 20 ? n + 1 + n / 4 : n + 1;
    if (cap >= UINT32_MAX)
        return ash_err_set(err, ASH_ELIMIT, "a word of %zu bytes is too long", n);
    if (grow((void **)&w->next, cap, sizeof *w->next) ||
        grow((void **)&w->prev, cap, sizeof *w->prev) ||
        grow((void **)&w->rank, cap, sizeof *w->rank) || grow((void **)&w->id, cap, sizeof *w->id))
        return ash_err_nomem(err, "merging of a long word");
    w->cap = cap;
    return 0;
}

void tok_work_release(tok_work *w)
{
    free(w->next);
    free(w->prev);
    free(w->rank);
    free(w->id);
    free(w->heap);
    *w = (tok_work){0};
}

/* Sets the rank of the pair that starts at s. */
static uint32_t rank_at(tok_work *w, uint32_t s, uint32_t end, const tok_merger *m)
{
    uint32_t right = w->next[s];
    return w->rank[s] = right == end ? TOK_NO_RANK : m->rank(m->ctx, w, s, right);
}

/* s and its right neighbour become s; the neighbour is dead from then on. */
static void join(tok_work *w, uint32_t s, uint32_t end, const tok_merger *m)
{
    uint32_t dead = w->next[s], after = w->next[dead];
    m->join(m->ctx, w, s, dead);
    w->rank[dead] = TOK_NO_RANK;
    w->next[s] = after;
    if (after != end)
        w->prev[after] = s;
}

static void merge_by_scan(tok_work *w, uint32_t first, uint32_t end, const tok_merger *m)
{
    for (uint32_t s = first; s != end; s = w->next[s]) rank_at(w, s, end, m);
    for (;;) {
        uint32_t best = TOK_NO_RANK, at = end;
        for (uint32_t s = first; s != end; s = w->next[s])
            if (w->rank[s] < best) {
                best = w->rank[s];
                at = s;
            }
        if (at == end)
            return;
        join(w, at, end, m);
        rank_at(w, at, end, m);
        if (at != first)
            rank_at(w, w->prev[at], end, m);
    }
}

/* ---- heap: the smallest key at [0]; a key is rank << 32 | start ------------------------------ */

static void sift_down(uint64_t *h, size_t n, size_t i)
{
    uint64_t key = h[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && h[child + 1] < h[child])
            child++;
        if (h[child] >= key)
            break;
        h[i] = h[child];
    }
    h[i] = key;
}

static void sift_up(uint64_t *h, size_t i)
{
    uint64_t key = h[i];
    while (i && h[(i - 1) / 2] > key) {
        h[i] = h[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h[i] = key;
}

static int append(tok_work *w, uint64_t key, ash_err *err)
{
    if (w->n_heap == w->cap_heap) {
        size_t cap = w->cap_heap ? w->cap_heap + w->cap_heap / 2 : 256;
        if (grow((void **)&w->heap, cap, sizeof *w->heap))
            return ash_err_nomem(err, "merging of a long word");
        w->cap_heap = cap;
    }
    w->heap[w->n_heap++] = key;
    return 0;
}

static int push(tok_work *w, uint32_t s, uint32_t end, const tok_merger *m, ash_err *err)
{
    uint32_t before = w->rank[s], rank = rank_at(w, s, end, m);
    if (rank == TOK_NO_RANK || rank == before) /* of an equal rank an entry is there already */
        return 0;
    int rc = append(w, (uint64_t)rank << 32 | s, err);
    if (!rc)
        sift_up(w->heap, w->n_heap - 1);
    return rc;
}

static uint64_t pop(tok_work *w)
{
    uint64_t top = w->heap[0];
    w->heap[0] = w->heap[--w->n_heap];
    if (w->n_heap)
        sift_down(w->heap, w->n_heap, 0);
    return top;
}

static int merge_by_heap(tok_work *w, uint32_t first, uint32_t end, const tok_merger *m,
                         ash_err *err)
{
    int rc = 0;
    w->n_heap = 0;
    for (uint32_t s = first; s != end && !rc; s = w->next[s])
        if (rank_at(w, s, end, m) != TOK_NO_RANK)
            rc = append(w, (uint64_t)w->rank[s] << 32 | s, err);
    for (size_t i = w->n_heap / 2; i-- > 0 && !rc;) sift_down(w->heap, w->n_heap, i);
    while (w->n_heap && !rc) {
        uint64_t key = pop(w);
        uint32_t s = (uint32_t)key, rank = (uint32_t)(key >> 32);
        if (w->rank[s] != rank)
            continue; /* stale: merged away or paired anew since */
        w->rank[s] = TOK_NO_RANK; /* its entry is gone */
        join(w, s, end, m);
        rc = push(w, s, end, m, err);
        if (!rc && s != first)
            rc = push(w, w->prev[s], end, m, err);
    }
    return rc;
}

int tok_merge_all(tok_work *w, uint32_t first, uint32_t end, const tok_merger *m, ash_err *err)
{
    uint32_t n = 0;
    for (uint32_t s = first; s != end && n <= SCAN_LIMIT; s = w->next[s]) n++;
    if (n <= SCAN_LIMIT) {
        merge_by_scan(w, first, end, m);
        return 0;
    }
    return merge_by_heap(w, first, end, m, err);
}
