/* A pretended manager and engine behind the local provider: real tokenizer and templates, scripted
 * tokens. The functions of residency/manager.h and engine/engine.h that the provider calls are
 * defined in pretend.c. */
#ifndef ASHLEY_TESTS_PROVIDER_PRETEND_H
#define ASHLEY_TESTS_PROVIDER_PRETEND_H

#include "residency/manager.h"

enum { PRETEND_MAX = 64 };

/* What the engine does with each job from here on. */
typedef struct pretend_play {
    const char *const *tokens; /* text of each, NULL-terminated */
    int hold_at;               /* before this many tokens; -1: before it starts; 99: never */
    ash_finish finish;
    bool logprobs, progress;
    int submit_rc; /* what submit returns */
    int steps;     /* of the prompt's computing, 100 ms each, told where progress is wanted */
} pretend_play;

/* What was submitted last, and counters. */
typedef struct pretend_log {
    int32_t ids[4096];
    size_t n_ids;
    int64_t seeds[PRETEND_MAX], max_tokens, kept_ms;
    char stop[64];
    int submitted, canceled, released, leases, abandoned, kept;
} pretend_log;

/* template_text NULL: none. n_ctx of the model. */
void pretend_open(const char *template_text, uint32_t n_ctx);
void pretend_close(void);
void pretend_set(pretend_play play);
pretend_log pretend_seen(void);
const ash_tokenizer *pretend_tokenizer(void);
/* Lets held jobs go on. */
void pretend_go(void);
/* ready false: acquire waits until pretend_loaded. rc of acquire itself. */
void pretend_manager(bool ready, int acquire_rc, const char *message);
/* Ends all waits: with the engine, or with an error. */
void pretend_loaded(int code, const char *message);

#endif
