/* A tokenizer.json, opened and used. */
#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    open_tokenizer("tokenizer.json", data, size);
    return 0;
}
