/* A repository's list for tests, from names: "path size". */
#ifndef ASHLEY_TESTS_HUB_LISTS_H
#define ASHLEY_TESTS_HUB_LISTS_H

#include "hub/hub_private.h"

#define LISTS_SHA256 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define LISTS_GIT "0123456789abcdef0123456789abcdef01234567"

/* NULL ends names. Names with a '*' at their end are large files, without it. */
static inline ash_hub_tree *lists_make(const char *const *names)
{
    hub_list *l;
    ash_err err = ASH_ERR_INIT;
    assert_int_equal(hub_list_open("org/repo", NULL, &l, &err), 0);
    l->tree.commit = LISTS_GIT;
    l->tree.whole = true;
    for (size_t i = 0; names[i]; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s", names[i]);
        size_t n = strlen(path);
        bool large = path[n - 1] == '*';
        if (large) path[n - 1] = 0;
        assert_int_equal(hub_list_add(l, path, large ? 100u << 20 : 100,
                                      large ? LISTS_SHA256 : NULL, LISTS_GIT, &err),
                         0);
    }
    assert_int_equal(hub_list_finish(l, &err), 0);
    return &l->tree;
}

#endif
