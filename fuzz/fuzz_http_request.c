/* Body -> JSON -> persona -> request, for chats and completions; also header times. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/params.h"
#include "api/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_as(ash_request_kind kind, const json_t *body)
{
    static const ash_api_persona persona = {.id = "p", .system_prompt = "Be kind."};
    ash_arena arena;
    ash_request req = {0};
    ash_api_error e;
    json_t *copy = json_deep_copy(body);
    ash_arena_init(&arena, 1 << 20);
    if (ash_route_apply(&persona, kind, &copy)) abort();
    if (ash_params_read(copy, kind, &arena, &req, &e)) {
        if (e.status < 400 || !e.message[0]) abort(); /* an error says what */
    } else if (req.n < 1 || ash_params_choices(&req) < 1 ||
               ash_params_choices(&req) > ASH_MAX_CHOICES ||
               ash_sampler_check(&req.sampling, NULL)) {
        abort();
    }
    json_decref(copy);
    ash_arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *body = NULL;
    ash_api_error e;
    char text[32];
    int64_t ms;
    memcpy(text, data, size < 31 ? size : 31);
    text[size < 31 ? size : 31] = 0;
    if (ash_params_time(text, &ms) && ms < 0) abort();
    if (ash_params_parse((ash_str){(const char *)data, size}, &body, &e)) {
        if (e.status < 400 || !e.message[0]) abort();
        return 0;
    }
    read_as(ASH_REQUEST_CHAT, body);
    read_as(ASH_REQUEST_COMPLETION, body);
    json_decref(body);
    return 0;
}
