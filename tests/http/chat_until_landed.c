/* Until text/chat.c lands. */
#include "text/chat.h"
#include <string.h>
int ash_chat_check(const json_t *messages, ash_err *err)
{
    if (!json_is_array(messages) || !json_array_size(messages))
        return ash_err_set(err, ASH_EINVAL, "'messages' must be a non-empty array");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *c = json_object_get(json_array_get(messages, i), "content");
        if (!json_is_string(json_object_get(json_array_get(messages, i), "role")))
            return ash_err_set(err, ASH_EINVAL, "'messages[%zu].role' must be a string", i);
        for (size_t j = 0; j < json_array_size(c); j++) {
            const char *t = json_string_value(json_object_get(json_array_get(c, j), "type"));
            if (!t || strcmp(t, "text"))
                return ash_err_set(err, ASH_EUNSUPPORTED,
                                   "'messages[%zu].content[%zu]' of type '%s' is not supported", i,
                                   j, t ? t : "");
        }
    }
    return 0;
}
