/* Owns reading quantisation settings. Refuses what this program has no reader for, by name. Any
 * thread. Keys: AutoGPTQ auto_gptq/quantization/config.py, GPTQModel
 * gptqmodel/quantization/config.py, transformers utils/quantization_config.py, DeepSeek-V3
 * README_WEIGHTS.md. */
#include "arch/quantization.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define INSTEAD "take the GPTQ or GGUF conversion of this model, or the original"

enum { MAX_BLOCK = 1 << 20 };

/* Errors of this file are without the file's name: ash_quantization_read puts it before them. */
static int refuse(const char *key, const char *value, const char *known, ash_err *err)
{
    return ash_err_set(err, ASH_EUNSUPPORTED,
                       "quantisation '%s' is '%.40s'; known here: %s: " INSTEAD, key, value, known);
}

/* The method by its name or, where early writers gave none, by the keys there are. */
static int read_method(const ash_checkpoint *c, const char **out, ash_err *err)
{
    const char *version = "";
    bool marlin = false, load4 = false, load8 = false;
    int rc;
    *out = NULL;
    if ((rc = ash_json_get_str(c->quant, "quant_method", out, err)) ||
        (!*out && (rc = ash_json_get_str(c->quant, "method", out, err))) ||
        (rc = ash_json_get_bool(c->quant, "is_marlin_format", &marlin, err)) ||
        (rc = ash_json_get_bool(c->quant, "load_in_4bit", &load4, err)) ||
        (rc = ash_json_get_bool(c->quant, "load_in_8bit", &load8, err)))
        return rc;
    if (marlin) *out = "marlin";
    if (*out) return 0;
    const char *quant_type = NULL;
    if (json_is_string(json_object_get(c->quant, "version")))
        version = json_string_value(json_object_get(c->quant, "version"));
    if (json_is_string(json_object_get(c->quant, "quant_type")))
        quant_type = json_string_value(json_object_get(c->quant, "quant_type"));
    if (!strncasecmp(version, "gem", 3))
        *out = "awq";
    else if (load4 || load8)
        *out = "bitsandbytes";
    else if (json_object_get(c->quant, "bits") || json_object_get(c->quant, "w_bit"))
        *out = "gptq";
    else
        *out = quant_type ? quant_type : "(not named)";
    return 0;
}

static int read_gptq(const ash_checkpoint *c, ash_quantization *q, ash_err *err)
{
    const char *format = "gptq", *other = NULL, *words = "int32";
    int64_t bits = 0;
    int rc;
    if ((rc = ash_json_get_int(c->quant, "w_bit", 0, 64, &bits, err)) ||
        (rc = ash_json_get_int(c->quant, "bits", 0, 64, &bits, err)) ||
        (rc = ash_json_get_int(c->quant, "q_group_size", -1, INT32_MAX, &q->group_size, err)) ||
        (rc = ash_json_get_int(c->quant, "group_size", -1, INT32_MAX, &q->group_size, err)) ||
        (rc = ash_json_get_str(c->quant, "format", &other, err)) ||
        (rc = ash_json_get_str(c->quant, "checkpoint_format", &other, err)) ||
        (rc = ash_json_get_str(c->quant, "pack_dtype", &words, err)))
        return rc;
    format = other ? other : format;
    if (strcasecmp(format, "gptq") && strcasecmp(format, "gptq_v2"))
        return refuse("checkpoint_format", format, "gptq, gptq_v2", err);
    if (strcasecmp(words, "int32") && strcasecmp(words, "torch.int32"))
        return refuse("pack_dtype", words, "int32", err);
    if (bits && bits != 2 && bits != 3 && bits != 4 && bits != 8)
        return ash_err_set(err, ASH_EUNSUPPORTED,
                           "GPTQ of %lld bits; known here: 2, 3, 4, 8: " INSTEAD, (long long)bits);
    q->bits = (int)bits;
    q->v2 = !strcasecmp(format, "gptq_v2");
    return 0;
}

static int read_fp8(const ash_checkpoint *c, ash_quantization *q, ash_err *err)
{
    const char *fmt = "e4m3";
    int rc = ash_json_get_str(c->quant, "fmt", &fmt, err);
    if (rc) return rc;
    if (strcasecmp(fmt, "e4m3") && strcasecmp(fmt, "float8_e4m3fn"))
        return refuse("fmt", fmt, "e4m3", err);
    const json_t *size = json_object_get(c->quant, "weight_block_size");
    json_int_t out = json_integer_value(json_array_get(size, 0));
    json_int_t in = json_integer_value(json_array_get(size, 1));
    if (json_array_size(size) != 2 || out < 1 || in < 1 || out > MAX_BLOCK || in > MAX_BLOCK)
        return ash_err_set(
            err, size && !json_is_null(size) ? ASH_EFORMAT : ASH_EUNSUPPORTED,
            "'weight_block_size' must be two integers of 1 or more: FP8 is read with block "
            "scales only");
    q->block_out = out;
    q->block_in = in;
    return 0;
}

int ash_quantization_read(const ash_checkpoint *c, ash_quantization *out, ash_err *err)
{
    *out = (ash_quantization){0};
    if (!c->quant || c->kind == ASH_CHECKPOINT_GGUF) return 0;
    const char *method = "";
    int rc = read_method(c, &method, err);
    if (!rc && !strcasecmp(method, "gptq")) {
        out->method = ASH_QUANT_GPTQ;
        rc = read_gptq(c, out, err);
    } else if (!rc && !strcasecmp(method, "fp8")) {
        out->method = ASH_QUANT_FP8;
        rc = read_fp8(c, out, err);
    } else if (!rc) {
        rc = refuse("quant_method", method, "gptq, fp8", err);
    }
    if (!rc) return 0;
    ash_err_prefix(err, "%s", c->quant_from);
    if (rc != ASH_EINVAL) return rc;
    if (err) /* a getter's: the value came from a file */
        err->code = ASH_EFORMAT;
    return ASH_EFORMAT;
}
