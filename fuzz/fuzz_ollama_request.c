/* A body for Ollama's chat and generate -> OpenAI's body -> request, as the routes take it; and how long the
 * model is to stay. What is made of it is read without trouble or refused with words. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/params.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(const ash_api_error *e)
{
    if (e->status < 400 || !e->message[0] || !memchr(e->message, 0, sizeof e->message)) abort();
}

static void read_as(bool chat, const json_t *body)
{
    ash_arena arena;
    ash_request req = {0};
    ash_request_kind kind = ASH_REQUEST_CHAT;
    ash_api_error e = {0};
    json_t *copy = json_deep_copy(body), *before = json_deep_copy(body);
    ash_arena_init(&arena, 1 << 20);
    if (ash_ollama_request(&copy, chat, &kind, &arena, &e)) {
        check_error(&e);
        if (!json_equal(copy, before)) abort(); /* what is refused stays */
    } else {
        if (chat && kind != ASH_REQUEST_CHAT) abort();
        if (!json_is_object(copy) || !json_is_boolean(json_object_get(copy, "stream"))) abort();
        if (ash_params_read(copy, kind, &arena, &req, &e))
            check_error(&e);
        else if (ash_params_choices(&req) < 1 || ash_sampler_check(&req.sampling, NULL))
            abort();
        if (req.stream != json_is_true(json_object_get(copy, "stream")) && !e.status) abort();
    }
    json_decref(copy);
    json_decref(before);
    ash_arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *body = NULL;
    ash_api_error e;
    ash_err err = ASH_ERR_INIT;
    bool has = false;
    int64_t ms = 0;
    if (ash_params_parse((ash_str){(const char *)data, size}, &body, &e)) return 0;
    if (ash_params_keep_alive(body, &has, &ms, &err)) {
        if (!err.msg[0]) abort();
    } else if (has && ms < -1) {
        abort();
    }
    read_as(true, body);
    read_as(false, body);
    json_decref(body);
    return 0;
}
