/* GGUF bytes -> a model, if they are one: sizes, binding, packed weights and one forward of three
 * tokens by the scalar kernels. Whatever the metadata says, a refusal has a message, and what was
 * accepted computes inside its memory. */
#include "base/log.h"
#include "net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ash_gguf *g;
    ash_err err = ASH_ERR_INIT;
    ash_log_set_level(ASH_LOG_NONE);
    if (ash_gguf_open_memory(data, size, "input", &g, &err))
        return 0;
    const ash_checkpoint c = {.path = "input", .dir = ".", .gguf = g, .tensors = ash_gguf_tensors(g),
                              .note = ""};
    use_checkpoint(&c);
    ash_gguf_close(g);
    return 0;
}
