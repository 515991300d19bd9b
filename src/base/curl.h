/* libcurl, opened at the first use: with the twenty-odd libraries that it brings it is half of what a
 * start would relocate. Names are libcurl's without "curl_"; see its documentation. */
#ifndef ASHLEY_BASE_CURL_H
#define ASHLEY_BASE_CURL_H

#include <curl/curl.h>

#include "base/err.h"

/* Through pointers the checks of curl.h do not see the arguments: the last of setopt and getinfo must be a
 * long, a curl_off_t or a pointer, as the option says. */
typedef struct ash_curl {
    CURLcode (*global_init)(long flags);
    curl_version_info_data *(*version_info)(CURLversion v);
    CURL *(*easy_init)(void);
    CURLcode (*easy_setopt)(CURL *easy, CURLoption option, ...);
    CURLcode (*easy_getinfo)(CURL *easy, CURLINFO info, ...);
    CURLcode (*easy_perform)(CURL *easy);
    CURLcode (*easy_pause)(CURL *easy, int what);
    const char *(*easy_strerror)(CURLcode code);
    void (*easy_cleanup)(CURL *easy);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
    CURLM *(*multi_init)(void);
    CURLMcode (*multi_setopt)(CURLM *multi, CURLMoption option, ...);
    CURLMcode (*multi_add_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_remove_handle)(CURLM *multi, CURL *easy);
    CURLMsg *(*multi_info_read)(CURLM *multi, int *left);
    CURLMcode (*multi_socket_action)(CURLM *multi, curl_socket_t fd, int events, int *running);
    CURLMcode (*multi_perform)(CURLM *multi, int *running);
    CURLMcode (*multi_poll)(CURLM *multi, struct curl_waitfd *extra, unsigned n_extra, int ms, int *n);
    CURLMcode (*multi_wakeup)(CURLM *multi);
    CURLMcode (*multi_cleanup)(CURLM *multi);
    CURLU *(*url)(void);
    CURLUcode (*url_set)(CURLU *u, CURLUPart part, const char *text, unsigned flags);
    CURLUcode (*url_get)(const CURLU *u, CURLUPart part, char **out, unsigned flags);
    void (*url_cleanup)(CURLU *u);
    void (*free)(void *p); /* what url_get gives */
} ash_curl;

/* Fills the caller's table. ASH_ENOENT if the library is not there. Any thread. */
int ash_curl_open(ash_curl *c, ash_err *err) ASH_MUST_CHECK;

#endif
