/* Owns the list of architectures. Constant data, any thread. */
#include "arch/arch.h"

#include <stdio.h>

static const ash_arch *const all[] = {&ash_arch_llama, &ash_arch_deepseek2};
enum { N_ALL = sizeof all / sizeof *all };

bool ash_arch_name(const ash_checkpoint *c, ash_str *out)
{
    *out = (ash_str){0};
    if (c->gguf) {
        const ash_gguf_kv *kv = ash_gguf_find(c->gguf, "general.architecture");
        return kv && kv->type == ASH_GGUF_STRING &&
               !ash_gguf_get_str(c->gguf, "general.architecture", out, NULL);
    }
    const json_t *type = json_object_get(c->config, "model_type");
    if (!json_is_string(type))
        type = json_array_get(json_object_get(c->config, "architectures"), 0);
    if (!json_is_string(type))
        return false;
    *out = (ash_str){json_string_value(type), json_string_length(type)};
    return true;
}

int ash_arch_find(const ash_checkpoint *c, const ash_arch **out, ash_err *err)
{
    for (int i = 0; i < N_ALL; i++)
        if (all[i]->match(c)) {
            *out = all[i];
            return 0;
        }
    ash_str name = {0};
    int rc = c->gguf ? ash_gguf_need_str(c->gguf, "general.architecture", &name, err) : 0;
    if (rc)
        return rc;
    if (!c->config && !c->gguf)
        return ash_err_set(err, ASH_ENOENT, "%s: there is no config.json beside it", c->path);
    if (!ash_arch_name(c, &name))
        return ash_err_set(err, ASH_EFORMAT, "%s/config.json: 'model_type' is missing", c->dir);
    char known[256], shown[80];
    size_t len = 0;
    for (int i = 0; i < N_ALL && len < sizeof known; i++)
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", all[i]->names);
    return ash_err_set(err, ASH_EUNSUPPORTED, "%s: architecture '%s'; known here: %s", c->path,
                       ash_gguf_show(name, shown), known);
}

void ash_net_close(ash_net *net)
{
    if (!net)
        return;
    ash_bind_release(&net->binding);
    net->arch->close(net);
}

uint32_t ash_net_fixed(const ash_net *net)
{
    const ash_rope_options *o = &net->hp.rope;
    return o->scaling == ASH_ROPE_DYNAMIC ? (uint32_t)o->original_context : UINT32_MAX;
}

ash_nn_options ash_net_nn_options(const ash_net *net, ash_cpu_level level, int threads, int max_rows,
                                  int64_t max_context)
{
    const ash_hparams *hp = &net->hp;
    return (ash_nn_options){
        .level = level,
        .threads = threads,
        .max_rows = max_rows,
        .max_in = net->binding.max_in,
        .max_heads = (int)hp->n_heads,
        .max_head_dim = net->kv.k_dim > net->kv.v_dim ? net->kv.k_dim : net->kv.v_dim,
        .max_context = max_context,
    };
}
