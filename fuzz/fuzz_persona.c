/* A persona file: checked fields are strings or what their ranges allow. */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "config/persona.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *v = NULL;
    ash_persona p;
    ash_err err = ASH_ERR_INIT;
    if (ash_json_parse((const char *)data, size, &v, &err)) return 0;
    if (ash_persona_parse(v, &p, &err)) {
        if (!err.msg[0]) abort();
    } else if ((p.id && (!*p.id || strlen(p.id) > ASH_MAX_MODEL_ID)) ||
               (p.sampling && !json_is_object(p.sampling))) {
        abort();
    }
    json_decref(v);
    return 0;
}
