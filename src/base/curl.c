/* Owns the table of libcurl's functions. Any thread. */
#include "base/curl.h"

#include "base/library.h"

#define SYMBOL(name) {"curl_" #name, offsetof(ash_curl, name)}

int ash_curl_open(ash_curl *c, ash_err *err)
{
    static const ash_symbol symbols[] = {
        SYMBOL(global_init),         SYMBOL(version_info),    SYMBOL(easy_init),
        SYMBOL(easy_setopt),         SYMBOL(easy_getinfo),    SYMBOL(easy_perform),
        SYMBOL(easy_pause),          SYMBOL(easy_strerror),   SYMBOL(easy_cleanup),
        SYMBOL(slist_append),        SYMBOL(slist_free_all),  SYMBOL(multi_init),
        SYMBOL(multi_setopt),        SYMBOL(multi_add_handle), SYMBOL(multi_remove_handle),
        SYMBOL(multi_info_read),     SYMBOL(multi_socket_action), SYMBOL(multi_perform),
        SYMBOL(multi_poll),          SYMBOL(multi_wakeup),    SYMBOL(multi_cleanup),
        SYMBOL(url),                 SYMBOL(url_set),         SYMBOL(url_get),
        SYMBOL(url_cleanup),         SYMBOL(free),
    };
    return ash_library_open("libcurl.so.4", symbols, sizeof symbols / sizeof *symbols, c, err);
}
