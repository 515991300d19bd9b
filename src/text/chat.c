/* Owns the way from chat messages to a template's variables, and built-in templates for models that
 * bring none. Refuses malformed messages and parts that are not text, by name and place. Any thread. */
#include "text/chat.h"

#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "text/template_impl.h"

/* ---- built-in templates ---- */

static const char chatml[] =
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

static const char alpaca[] =
    "{{ bos_token }}"
    "{% if messages[0]['role'] != 'system' %}"
    "{{ 'Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\\n\\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '### Response:\\n' + message['content'] + '\\n\\n' }}"
    "{% else %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}";

static const char llama2[] =
    "{% set ns = namespace(system='') %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and loop.first %}"
    "{% set ns.system = '<<SYS>>\\n' + message['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% elif message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (ns.system + message['content']).strip() + ' [/INST]' }}"
    "{% set ns.system = '' %}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported, and one system "
    "message at the start') }}"
    "{% endif %}"
    "{% endfor %}";

static const char deepseek_llm[] =
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

const char *ash_chat_builtin(const char *name)
{
    static const struct {
        const char *name, *text;
    } table[] = {{"alpaca", alpaca}, {"chatml", chatml}, {"llama2", llama2}, {"deepseek-llm", deepseek_llm}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, name) == 0)
            return table[i].text;
    return NULL;
}

int ash_chat_template_open(const char *text, size_t n, ash_template **out, ash_err *err)
{
    char name[32];
    const char *builtin = NULL;
    if (n < sizeof name) {
        memcpy(name, text, n);
        name[n] = 0;
        builtin = ash_chat_builtin(name);
    }
    return ash_template_parse(builtin ? builtin : text, builtin ? strlen(builtin) : n, out, err);
}

/* ---- checking ---- */

static int check_parts(const json_t *parts, size_t message, ash_err *err)
{
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i), *type = json_object_get(part, "type");
        if (!json_is_object(part))
            return ash_err_set(err, ASH_EINVAL, "'messages[%zu].content[%zu]' must be an object, not %s",
                               message, i, ash_json_type_name(part));
        if (!json_is_string(type))
            return ash_err_set(err, ASH_EINVAL, "'messages[%zu].content[%zu].type' must be a string",
                               message, i);
        if (strcmp(json_string_value(type), "text"))
            return ash_err_set(err, ASH_EUNSUPPORTED,
                               "'messages[%zu].content[%zu]' has the type '%.60s'; only 'text' is supported",
                               message, i, json_string_value(type));
        if (!json_is_string(json_object_get(part, "text")))
            return ash_err_set(err, ASH_EINVAL, "'messages[%zu].content[%zu].text' must be a string, not %s",
                               message, i, ash_json_type_name(json_object_get(part, "text")));
    }
    return 0;
}

static int check_message(const json_t *m, size_t i, ash_err *err)
{
    if (!json_is_object(m))
        return ash_err_set(err, ASH_EINVAL, "'messages[%zu]' must be an object, not %s", i,
                           ash_json_type_name(m));
    const json_t *role = json_object_get(m, "role"), *content = json_object_get(m, "content");
    if (!json_is_string(role))
        return ash_err_set(err, ASH_EINVAL, "'messages[%zu].role' must be a string%s%s", i,
                           role ? ", not " : "", role ? ash_json_type_name(role) : "");
    const json_t *calls = json_object_get(m, "tool_calls");
    if (calls && !json_is_null(calls) && !json_is_array(calls))
        return ash_err_set(err, ASH_EINVAL, "'messages[%zu].tool_calls' must be an array, not %s", i,
                           ash_json_type_name(calls));
    if (json_is_array(content))
        return check_parts(content, i, err);
    bool empty = (!content || json_is_null(content)) && json_array_size(calls) > 0;
    if (!json_is_string(content) && !empty)
        return ash_err_set(err, ASH_EINVAL,
                           "'messages[%zu].content' must be a string or a list of text parts%s%s", i,
                           content ? ", not " : "", content ? ash_json_type_name(content) : "");
    return 0;
}

int ash_chat_check(const json_t *messages, ash_err *err)
{
    if (!json_is_array(messages))
        return ash_err_set(err, ASH_EINVAL, "'messages' must be an array%s%s", messages ? ", not " : "",
                           messages ? ash_json_type_name(messages) : "");
    if (json_array_size(messages) == 0)
        return ash_err_set(err, ASH_EINVAL, "'messages' must not be empty");
    int rc = 0;
    for (size_t i = 0; !rc && i < json_array_size(messages); i++)
        rc = check_message(json_array_get(messages, i), i, err);
    return rc;
}

/* ---- building the variables ---- */

/* What follows the content that is to be continued; its last occurrence marks the place, and its
 * space tells whether the template trimmed the content (transformers, chat_template_utils.py). */
static const char tag[] = "CONTINUE_FINAL_MESSAGE_TAG ";

/* Text parts as one string. NULL without memory. */
static json_t *flatten(const json_t *parts)
{
    ash_buf b;
    ash_buf_init(&b, ASH_MAX_JSON_BODY);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *text = json_object_get(json_array_get(parts, i), "text");
        if (i)
            ash_buf_addc(&b, '\n');
        ash_buf_add(&b, json_string_value(text), json_string_length(text));
    }
    json_t *out = b.failed ? NULL : json_stringn(ash_buf_cstr(&b), b.len);
    ash_buf_release(&b);
    return out;
}

/* A shallow copy that, unlike json_copy, is whole or NULL. */
static json_t *copy_object(const json_t *from)
{
    json_t *to = json_object();
    if (to && json_object_update(to, (json_t *)from)) {
        json_decref(to);
        to = NULL;
    }
    return to;
}

/* A tool call whose arguments are JSON text, as OpenAI sends them, with the arguments as an object.
 * *changed says whether there was one. NULL without memory. */
static json_t *open_arguments(json_t *call, bool *changed)
{
    json_t *function = json_object_get(call, "function");
    json_t *args = json_object_get(function, "arguments"), *parsed = NULL;
    int bad = ASH_EINVAL;
    if (json_is_string(args))
        bad = ash_json_parse(json_string_value(args), json_string_length(args), &parsed, NULL);
    if (bad)
        return bad == ASH_ENOMEM ? NULL : json_incref(call);
    json_t *copy = copy_object(call), *inner = copy_object(function);
    *changed = true;
    bad = json_object_set_new(inner, "arguments", parsed);
    if (bad)
        json_decref(inner);
    else
        bad = json_object_set_new(copy, "function", inner);
    if (bad) {
        json_decref(copy);
        return NULL;
    }
    return copy;
}

static int open_calls(json_t *m, bool *changed)
{
    json_t *calls = json_object_get(m, "tool_calls"), *out;
    if (!json_is_array(calls))
        return 0;
    out = json_array();
    for (size_t i = 0; out && i < json_array_size(calls); i++)
        if (json_array_append_new(out, open_arguments(json_array_get(calls, i), changed))) {
            json_decref(out);
            out = NULL;
        }
    return json_object_set_new(m, "tool_calls", out);
}

/* Reasoning goes by three names; templates read the first or the second. */
static int alias_reasoning(json_t *m)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *found = NULL;
    for (int i = 0; i < 3 && (!found || json_is_null(found)); i++) found = json_object_get(m, names[i]);
    if (!found || json_is_null(found))
        return 0;
    int rc = json_object_set(m, names[0], found);
    return rc || json_object_get(m, names[1]) ? rc : json_object_set(m, names[1], found);
}

/* How messages are put to the template. */
typedef enum form {
    CALLS_OPEN = 1,    /* arguments of tool calls as objects, not as text */
    CONTENT_FILLED = 2 /* a content that is null or missing as "" */
} form;

/* One message as templates want it. *opened: there were arguments that CALLS_OPEN changed. NULL without
 * memory. */
static json_t *build_message(const json_t *m, unsigned forms, bool *opened)
{
    json_t *out = copy_object(m), *content = json_object_get(m, "content");
    int rc = out ? alias_reasoning(out) : -1;
    if (!rc && json_is_array(content))
        rc = json_object_set_new(out, "content", flatten(content));
    if (!rc && (forms & CONTENT_FILLED) && (!content || json_is_null(content)))
        rc = json_object_set_new(out, "content", json_string(""));
    if (!rc && (forms & CALLS_OPEN))
        rc = open_calls(out, opened);
    if (rc) {
        json_decref(out);
        return NULL;
    }
    return out;
}

/* Puts the tag behind the last message's content; *content lends what was there. */
static int tag_last(json_t *messages, ash_buf *content, ash_err *err)
{
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const json_t *text = json_object_get(last, "content");
    if (!json_is_string(text))
        return ash_err_set(err, ASH_EINVAL, "'continue_final_message' needs a last message with content");
    ash_buf_add(content, json_string_value(text), json_string_length(text));
    ash_buf_adds(content, tag);
    json_t *tagged = content->failed ? NULL : json_stringn(ash_buf_cstr(content), content->len);
    if (json_object_set_new(last, "content", tagged))
        return ash_err_nomem(err, "chat");
    content->len -= sizeof tag - 1;
    return 0;
}

static int build_messages(const json_t *messages, const ash_chat_opts *o, unsigned forms,
                          bool *opened, ash_buf *final, json_t **out, ash_err *err)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < json_array_size(messages); i++)
        if (json_array_append_new(list, build_message(json_array_get(messages, i), forms, opened))) {
            json_decref(list);
            list = NULL;
        }
    int rc = list ? 0 : ash_err_nomem(err, "chat");
    ash_buf_clear(final);
    if (!rc && o->continue_final_message)
        rc = tag_last(list, final, err);
    if (rc) {
        json_decref(list);
        list = NULL;
    }
    *out = list;
    return rc;
}

enum { MAX_KWARGS = 60 };
static const char *const own_keys[] = {"messages", "tools", "documents", "add_generation_prompt",
                                       "bos_token", "eos_token"};

/* Checks the names of further variables and lists all untrusted ones in keys. */
static int list_keys(const json_t *kwargs, const char *keys[MAX_KWARGS + 4], ash_err *err)
{
    size_t n = 0;
    for (; n < 3; n++) keys[n] = own_keys[n];
    keys[n] = NULL;
    if (kwargs && !json_is_object(kwargs))
        return ash_err_set(err, ASH_EINVAL, "'chat_template_kwargs' must be an object, not %s",
                           ash_json_type_name(kwargs));
    if (json_object_size(kwargs) > MAX_KWARGS)
        return ash_err_set(err, ASH_ELIMIT, "'chat_template_kwargs' has more than %d entries", MAX_KWARGS);
    void *it = json_object_iter((json_t *)kwargs);
    for (; it; it = json_object_iter_next((json_t *)kwargs, it)) {
        keys[n] = json_object_iter_key(it);
        for (size_t i = 0; i < sizeof own_keys / sizeof *own_keys; i++)
            if (strcmp(keys[n], own_keys[i]) == 0)
                return ash_err_set(err, ASH_EINVAL, "'chat_template_kwargs.%s' cannot be set there", keys[n]);
        keys[++n] = NULL;
    }
    return 0;
}

/* Takes `messages`. NULL without memory. */
static json_t *build_context(json_t *messages, const ash_chat_opts *o)
{
    json_t *ctx = o->kwargs ? copy_object(o->kwargs) : json_object();
    int rc = json_object_set_new(ctx, "messages", messages);
    rc |= json_object_set_new(ctx, "tools", o->tools ? json_incref((json_t *)o->tools) : json_null());
    rc |= json_object_set_new(ctx, "documents",
                              o->documents ? json_incref((json_t *)o->documents) : json_null());
    rc |= json_object_set_new(ctx, "add_generation_prompt", json_boolean(o->add_generation_prompt));
    rc |= json_object_set_new(ctx, "bos_token", json_string(o->bos_token ? o->bos_token : ""));
    rc |= json_object_set_new(ctx, "eos_token", json_string(o->eos_token ? o->eos_token : ""));
    if (rc) {
        json_decref(ctx);
        return NULL;
    }
    return ctx;
}

/* ---- rendering ---- */

static size_t trim(const char **p, size_t n)
{
    while (n && ash_tspace((unsigned char)**p)) ++*p, n--;
    while (n && ash_tspace((unsigned char)(*p)[n - 1])) n--;
    return n;
}

/* Ends the text rendered at out[base..] where the last message's content `final` ends. */
static int cut_at_tag(ash_buf *out, size_t base, const ash_buf *final, ash_spans *untrusted, ash_err *err)
{
    size_t word = sizeof tag - 2, at = SIZE_MAX; /* without the space */
    const char *text = out->data + base, *content = ash_buf_cstr(final);
    size_t n = out->len - base, n_content = trim(&content, final->len);
    for (size_t i = n >= word ? n - word + 1 : 0; i-- > 0 && at == SIZE_MAX;)
        if (memcmp(text + i, tag, word) == 0)
            at = i;
    if (at == SIZE_MAX || (n_content && !memmem(text, n, content, n_content)))
        return ash_err_set(err, ASH_EINVAL, "'continue_final_message': the template does not show the last "
                           "message as it is");
    bool trimmed = at + word >= n || text[at + word] != ' ';
    while (trimmed && at && ash_tspace((unsigned char)text[at - 1])) at--;
    out->len = base + at;
    out->data[out->len] = 0;
    if (untrusted)
        ash_spans_cut(untrusted, out->len);
    return 0;
}

/* One attempt. */
static int attempt(const ash_template *t, const json_t *messages, const ash_chat_opts *o, unsigned forms,
                   bool *opened, ash_buf *out, ash_spans *untrusted, ash_err *err)
{
    const char *keys[MAX_KWARGS + 4];
    size_t base = out->len;
    ash_buf final;
    json_t *list = NULL, *ctx = NULL;
    ash_buf_init(&final, ASH_MAX_JSON_BODY);
    int rc = list_keys(o->kwargs, keys, err);
    if (!rc)
        rc = build_messages(messages, o, forms, opened, &final, &list, err);
    if (rc)
        goto out;
    ctx = build_context(list, o);
    rc = ctx ? 0 : ash_err_nomem(err, "chat");
    if (rc)
        goto out;
    ash_template_opts render = o->render;
    render.untrusted_keys = keys;
    rc = ash_template_render(t, ctx, &render, out, untrusted, err);
    if (!rc && o->continue_final_message)
        rc = cut_at_tag(out, base, &final, untrusted, err);
    if (rc && out->len > base) {
        out->len = base;
        out->data[base] = 0;
        if (untrusted)
            ash_spans_cut(untrusted, base);
    }
out:
    json_decref(ctx);
    ash_buf_release(&final);
    return rc;
}

/* Whether a message has no text: assistants that only call tools. */
static bool lacks_content(const json_t *messages)
{
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *content = json_object_get(json_array_get(messages, i), "content");
        if (!content || json_is_null(content))
            return true;
    }
    return false;
}

/* Most templates print a call's arguments with tojson, some join them to a string as they are; some that
 * know no tools join every content to a string, also one that is not there. */
int ash_chat_format(const ash_template *t, const json_t *messages, const ash_chat_opts *opts, ash_buf *out,
                    ash_spans *untrusted, ash_err *err)
{
    static const unsigned further[] = {0, CALLS_OPEN | CONTENT_FILLED, CONTENT_FILLED};
    bool opened = false;
    int rc = ash_chat_check(messages, err);
    if (rc)
        return rc;
    if (opts->continue_final_message && opts->add_generation_prompt)
        return ash_err_set(err, ASH_EINVAL, "'continue_final_message' and 'add_generation_prompt' cannot "
                           "both be true");
    rc = attempt(t, messages, opts, CALLS_OPEN, &opened, out, untrusted, err);
    bool empty = rc == ASH_EINVAL && lacks_content(messages);
    for (size_t i = 0; i < sizeof further / sizeof *further && rc == ASH_EINVAL; i++) {
        bool differs = (opened || (further[i] & CALLS_OPEN)) && (empty || !(further[i] & CONTENT_FILLED));
        if (differs && !attempt(t, messages, opts, further[i], &opened, out, untrusted, NULL)) {
            if (err)
                *err = ASH_ERR_INIT;
            rc = 0;
        }
    }
    return rc;
}
