/* Owns the copy of what the manager is told of a model. Any thread. */
#include <stdlib.h>
#include <string.h>

#include "residency/state.h"

static char *copy_text(const char *s, bool *ok)
{
    char *p = s ? strdup(s) : NULL;
    *ok &= !s || p;
    return p;
}

bool ash_spec_copy(ash_model_spec *to, const ash_model_spec *from)
{
    bool ok = true;
    *to = *from;
    to->id = copy_text(from->id, &ok);
    to->path = copy_text(from->path, &ok);
    to->absent_reason = copy_text(from->absent_reason, &ok);
    to->absent_code = copy_text(from->absent_code, &ok);
    to->absent_hint = copy_text(from->absent_hint, &ok);
    to->template_text = copy_text(from->template_text, &ok);
    to->repo = copy_text(from->repo, &ok);
    to->format = copy_text(from->format, &ok);
    to->size = copy_text(from->size, &ok);
    to->description = copy_text(from->description, &ok);
    to->warning = copy_text(from->warning, &ok);
    to->warm_prompt = copy_text(from->warm_prompt, &ok);
    to->draft = copy_text(from->draft, &ok);
    to->draft_path = copy_text(from->draft_path, &ok);
    to->draft_absent = copy_text(from->draft_absent, &ok);
    return ok;
}

void ash_spec_free(ash_model_spec *s)
{
    const char *all[] = {s->id,          s->path,        s->absent_reason, s->absent_code,
                         s->absent_hint, s->repo,        s->format,        s->template_text,
                         s->size,        s->description, s->warning,       s->warm_prompt,
                         s->draft,       s->draft_path,  s->draft_absent};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free((void *)all[i]);
}
