/* Ollama's answers to /api/chat and /api/generate (its docs/api.md): lines of JSON, or one object. One
 * choice. One thread at a time. Appends go to the caller's buffer, whose sticky failure the caller checks. */
#ifndef ASHLEY_API_OLLAMA_TEXT_H
#define ASHLEY_API_OLLAMA_TEXT_H

#include "provider/provider.h"

typedef struct ash_ollama ash_ollama;

/* chat: `message`, else `response`. NULL without memory. `model` (copied) is cut to ASH_MAX_MODEL_ID. */
ash_ollama *ash_ollama_open(bool chat, bool stream, const char *model);
void ash_ollama_close(ash_ollama *t); /* NULL is fine */
/* The request came at ms of ash_clock_ms: its durations count from there, not from open. */
void ash_ollama_since(ash_ollama *t, int64_t ms);
void ash_ollama_model(ash_ollama *t, const char *model);
/* A piece: a line of a stream, else kept. 0 or the failure of what is kept. */
int ash_ollama_delta(ash_ollama *t, ash_str text, ash_str thinking, ash_buf *out) ASH_MUST_CHECK;
/* `reason` of the last line: "stop", "length", "load", "unload"; copied. */
void ash_ollama_finish(ash_ollama *t, const char *reason);
/* An upstream's chunk (stream) or body, in OpenAI's form: its text, reason and usage are taken. Others are
 * ignored. As ash_ollama_delta. */
int ash_ollama_raw(ash_ollama *t, ash_str raw, ash_buf *out) ASH_MUST_CHECK;
/* The last line, or the whole object. usage may be NULL. */
int ash_ollama_end(ash_ollama *t, const ash_answer_usage *usage, ash_buf *out) ASH_MUST_CHECK;

#endif
