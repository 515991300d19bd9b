/* OpenAI's response bodies and stream lines, built from answer events without a JSON tree per token.
 * One thread at a time. Appends go to the caller's buffer, whose sticky failure the caller checks. */
#ifndef ASHLEY_API_OPENAI_TEXT_H
#define ASHLEY_API_OPENAI_TEXT_H

#include "provider/provider.h"

typedef struct ash_oai ash_oai;

/* n choices of an answer; NULL without memory. `model` (copied) may be changed by ash_oai_model before
 * the first append. */
ash_oai *ash_oai_open(ash_request_kind kind, bool stream, int n, const char *model);
void ash_oai_close(ash_oai *t); /* NULL is fine */
/* 0 or ASH_ENOMEM. */
int ash_oai_model(ash_oai *t, const char *model) ASH_MUST_CHECK;

/* HEAD. What a client could not learn from the headers goes into the answer: `truncated`, and in a
 * stream whose headers left before (`late`) also who answers, as `served_by` and `reason`. */
void ash_oai_head(ash_oai *t, const ash_answer *a, bool late, ash_buf *out);
/* Events of the answer. A stream's lines are appended to `out`; else the text is kept until the end.
 * An index out of range is ignored. 0 or the first failure of the kept texts. */
int ash_oai_delta(ash_oai *t, const ash_answer *a, ash_buf *out);
/* In a stream the line with finish_reason is held until the next event, because the last of them also
 * tells the timings. */
void ash_oai_finish(ash_oai *t, int index, const char *reason, ash_buf *out);
/* Streams only: prompt_progress, and `loading` with the progress object. */
void ash_oai_progress(ash_oai *t, const ash_answer *a, ash_buf *out);
void ash_oai_waiting(ash_oai *t, const json_t *progress, ash_buf *out);
/* Stream: the last lines, to [DONE]. Else the whole body. usage may be NULL. */
int ash_oai_end(ash_oai *t, const ash_answer_usage *usage, bool include_usage, ash_buf *out);

#endif
