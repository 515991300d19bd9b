/* Owns what is known of tensors before their files are there: types from config.json and the names that
 * GPTQ and FP8 give. One thread. */
#include <stdio.h>
#include <string.h>

#include "format/checkpoint_private.h"

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* The type of what is not quantised. */
static ash_dtype plain_type(const json_t *config)
{
    const char *t = json_string_value(json_object_get(config, "torch_dtype"));
    if (!t) t = json_string_value(json_object_get(config, "dtype"));
    if (t && !strcmp(t, "float32")) return ASH_DTYPE_F32;
    return t && !strcmp(t, "float16") ? ASH_DTYPE_F16 : ASH_DTYPE_BF16;
}

static bool has_fp8_scales(const ash_tensor_index *idx, const char *name)
{
    char scale[ASH_MAX_HF_NAME + 16];
    return ends_with(name, ".weight") &&
           snprintf(scale, sizeof scale, "%s_scale_inv", name) < (int)sizeof scale &&
           ash_tensor_find(idx, scale);
}

void ash_checkpoint_declare_types(const json_t *config, ash_tensor_index *idx)
{
    static const struct {
        const char *end;
        ash_dtype type;
    } known[] = {{".qweight", ASH_DTYPE_I32},         {".qzeros", ASH_DTYPE_I32},
                 {".g_idx", ASH_DTYPE_I32},           {".scales", ASH_DTYPE_F16},
                 {"_scale_inv", ASH_DTYPE_F32},       {".e_score_correction_bias", ASH_DTYPE_F32}};
    ash_dtype plain = plain_type(config);
    for (size_t i = 0; i < idx->n_tensors; i++) {
        ash_tensor *t = &idx->tensors[i];
        t->dtype = has_fp8_scales(idx, t->name) ? ASH_DTYPE_F8_E4M3 : plain;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            if (ends_with(t->name, known[k].end)) t->dtype = known[k].type;
    }
}
