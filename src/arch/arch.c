/* Owns the list of architectures. Constant data, any thread. */
#include "arch/arch.h"

#include <stdio.h>

static const ash_arch *const all[] = {&ash_arch_llama};
enum { N_ALL = sizeof all / sizeof *all };

int ash_arch_find(const ash_gguf *g, const ash_arch **out, ash_err *err)
{
    for (int i = 0; i < N_ALL; i++)
        if (all[i]->match(g)) {
            *out = all[i];
            return 0;
        }
    ash_str name = {0};
    int rc = ash_gguf_need_str(g, "general.architecture", &name, err);
    if (rc)
        return rc;
    char known[128];
    size_t len = 0;
    for (int i = 0; i < N_ALL && len < sizeof known; i++)
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", all[i]->name);
    return ash_err_set(err, ASH_EUNSUPPORTED, "%s: architecture '%.*s'; known here: %s",
                       ash_gguf_path(g), (int)(name.n < 64 ? name.n : 64), name.p, known);
}

void ash_net_close(ash_net *net)
{
    if (net)
        net->arch->close(net);
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
