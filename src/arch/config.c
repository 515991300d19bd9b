/* Owns the getters of config.json and its settings of rotary embeddings. Refuses values of the
 * wrong kind and scalings that are not computed, by name. Any thread. Keys and defaults:
 * transformers modeling_rope_utils.py. */
#include "arch/config.h"

#include <math.h>
#include <string.h>

enum { MAX_CONTEXT = 1 << 26 };

/* A getter's error with the file before it: what a file holds is a matter of format. */
static int whose(const ash_checkpoint *c, int rc, ash_err *err)
{
    if (!rc) return 0;
    ash_err_prefix(err, "%s/config.json", c->dir);
    if (rc != ASH_EINVAL) return rc;
    if (err) err->code = ASH_EFORMAT;
    return ASH_EFORMAT;
}

int ash_config_int(const ash_checkpoint *c, const char *key, int64_t lo, int64_t hi, int64_t *out,
                   ash_err *err)
{
    return whose(c, ash_json_get_int(c->config, key, lo, hi, out, err), err);
}

int ash_config_need_int(const ash_checkpoint *c, const char *key, int64_t lo, int64_t hi,
                        int64_t *out, ash_err *err)
{
    const json_t *v = json_object_get(c->config, key);
    if (!v || json_is_null(v))
        return ash_err_set(err, ASH_ENOENT, "%s/config.json: '%s' is missing", c->dir, key);
    return ash_config_int(c, key, lo, hi, out, err);
}

int ash_config_num(const ash_checkpoint *c, const char *key, double lo, double hi, double *out,
                   ash_err *err)
{
    return whose(c, ash_json_get_num(c->config, key, lo, hi, out, err), err);
}

int ash_config_bool(const ash_checkpoint *c, const char *key, bool *out, ash_err *err)
{
    return whose(c, ash_json_get_bool(c->config, key, out, err), err);
}

int ash_config_str(const ash_checkpoint *c, const char *key, const char **out, ash_err *err)
{
    return whose(c, ash_json_get_str(c->config, key, out, err), err);
}

/* ---- rotary embeddings ---------------------------------------------------------------------- */

static int need(const json_t *o, const char *key, double lo, double hi, double *out, ash_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v))
        return ash_err_set(err, ASH_ENOENT, "'%s' of the rope scaling is missing", key);
    return ash_json_get_num(o, key, lo, hi, out, err);
}

/* YaRN's factor of cosines and sines (transformers' attention_factor), and what it follows from. */
static int read_yarn(const json_t *s, ash_rope_options *o, double *all_dim, ash_err *err)
{
    double attention = 0, mscale = 0;
    bool truncate = true;
    int rc;
    if ((rc = ash_json_get_num(s, "attention_factor", 1e-3, 1e3, &attention, err)) ||
        (rc = ash_json_get_num(s, "mscale", 0, 1e3, &mscale, err)) ||
        (rc = ash_json_get_num(s, "mscale_all_dim", 0, 1e3, all_dim, err)) ||
        (rc = ash_json_get_num(s, "beta_fast", 1e-3, 1e6, &o->beta_fast, err)) ||
        (rc = ash_json_get_num(s, "beta_slow", 1e-3, 1e6, &o->beta_slow, err)) ||
        (rc = ash_json_get_bool(s, "truncate", &truncate, err)))
        return rc;
    double l = o->factor > 1 ? 0.1 * log(o->factor) : 0;
    bool both = mscale > 0 && *all_dim > 0;
    o->attention_factor = attention > 0 ? attention
                          : both        ? (mscale * l + 1) / (*all_dim * l + 1)
                                        : l + 1;
    o->fractional = !truncate;
    return 0;
}

static int read_scaling(const json_t *s, const char *type, ash_rope_options *o, double *all_dim,
                        ash_err *err)
{
    static const struct {
        const char *name;
        ash_rope_scaling scaling;
    } known[] = {{"default", ASH_ROPE_NONE},
                 {"linear", ASH_ROPE_LINEAR},
                 {"dynamic", ASH_ROPE_DYNAMIC},
                 {"llama3", ASH_ROPE_LLAMA3},
                 {"yarn", ASH_ROPE_YARN}};
    size_t i = 0, n = sizeof known / sizeof *known;
    while (i < n && strcmp(type, known[i].name) != 0) i++;
    if (i == n)
        return ash_err_set(
            err, ASH_EUNSUPPORTED,
            "rope scaling '%.40s'; known here: default, linear, dynamic, llama3, yarn", type);
    o->scaling = known[i].scaling;
    if (o->scaling == ASH_ROPE_NONE) return 0;
    int rc = need(s, "factor", 1, 1e6, &o->factor, err);
    if (!rc && (o->scaling == ASH_ROPE_LLAMA3 || o->scaling == ASH_ROPE_YARN))
        rc = ash_json_get_num(s, "original_max_position_embeddings", 1, MAX_CONTEXT,
                              &o->original_context, err);
    if (!rc && o->scaling == ASH_ROPE_LLAMA3 &&
        !(rc = need(s, "low_freq_factor", 1e-6, 1e6, &o->low_freq, err)))
        rc = need(s, "high_freq_factor", 1e-6, 1e6, &o->high_freq, err);
    if (!rc && o->scaling == ASH_ROPE_YARN) rc = read_yarn(s, o, all_dim, err);
    return rc;
}

/* The object with the scaling: "rope_parameters", or the one of its layer types if they are all
 * alike. */
static int find_scaling(const ash_checkpoint *c, const json_t **out, ash_err *err)
{
    const json_t *s = json_object_get(c->config, "rope_parameters"), *one = NULL, *v;
    const char *key;
    if (!s || json_is_null(s)) s = json_object_get(c->config, "rope_scaling");
    *out = s && !json_is_null(s) ? s : NULL;
    if (*out && !json_is_object(s))
        return ash_err_set(err, ASH_EFORMAT, "the rope scaling must be an object, not %s",
                           ash_json_type_name(s));
    json_object_foreach((json_t *)s, key, v)
    {
        if (!json_is_object(v)) continue;
        if (one && !json_equal((json_t *)one, v))
            return ash_err_set(err, ASH_EUNSUPPORTED, "rope settings that differ between layers");
        one = v;
    }
    *out = one ? one : *out;
    return 0;
}

static int read_rope(const ash_checkpoint *c, ash_rope_options *o, double *all_dim, ash_err *err)
{
    const json_t *s;
    const char *type = "default";
    double rotated = 1;
    int rc;
    if ((rc = find_scaling(c, &s, err)) ||
        (rc = ash_json_get_num(c->config, "rope_theta", 1, 1e12, &o->base, err)) ||
        (rc = ash_json_get_num(c->config, "partial_rotary_factor", 0, 1, &rotated, err)))
        return rc;
    if (s && ((rc = ash_json_get_num(s, "rope_theta", 1, 1e12, &o->base, err)) ||
              (rc = ash_json_get_num(s, "partial_rotary_factor", 0, 1, &rotated, err)) ||
              (rc = ash_json_get_str(s, "type", &type, err)) ||
              (rc = ash_json_get_str(s, "rope_type", &type, err)) ||
              (rc = read_scaling(s, type, o, all_dim, err))))
        return rc;
    if (rotated != 1)
        return ash_err_set(err, ASH_EUNSUPPORTED, "'partial_rotary_factor' is %g; known here: 1",
                           rotated);
    return 0;
}

int ash_config_rope(const ash_checkpoint *c, int64_t n_ctx, ash_rope_options *out,
                    double *mscale_all_dim, ash_err *err)
{
    double all_dim = 0;
    *out = (ash_rope_options){.base = 10000,
                              .factor = 1,
                              .low_freq = 1,
                              .high_freq = 4,
                              .beta_fast = 32,
                              .beta_slow = 1,
                              .original_context = (double)n_ctx};
    int rc = whose(c, read_rope(c, out, &all_dim, err), err);
    if (mscale_all_dim) *mscale_all_dim = all_dim;
    return rc;
}
