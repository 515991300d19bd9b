/* A tokenizer.model (SentencePiece's protocol buffer), opened and used. */
#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    open_tokenizer("tokenizer.model", data, size);
    return 0;
}
