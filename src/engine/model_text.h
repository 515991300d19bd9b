/* Tokenizer and template of a model, read while its load is planned and its weights are mapped: it takes some
 * 10 ms of one processor, which are a part of a restart that is felt.
 *
 * Between start and wait its thread alone touches the model's arena, tokenizer, template, the texts and
 * figures that come of them, and info's members about the template; it reads files and net. */
#ifndef ASHLEY_ENGINE_MODEL_TEXT_H
#define ASHLEY_ENGINE_MODEL_TEXT_H

#include "engine/model.h"

/* Begins, unless that was done; without a thread to be had it is done in here. Copies what it needs of opts:
 * path, template_text, bare. */
void ash_model_text_start(ash_model *m, const ash_engine_opts *opts);
/* Waits for the end, whatever came of it. Fine twice, and without a start. */
void ash_model_text_end(ash_model *m);
/* The same, and says how it went. */
int ash_model_text_wait(ash_model *m, ash_err *err) ASH_MUST_CHECK;

#endif
