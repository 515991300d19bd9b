/* A folder of Hugging Face files -> a model, if it is one: config.json, quantize_config.json and
 * model.safetensors, which the input holds in this order with a zero byte between them. So settings
 * that contradict the tensors, GPTQ's pieces that do not fit, FP8 without scales and orders of columns
 * out of range meet everything up to a forward pass. Files are rewritten in one folder under /tmp. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "format/checkpoint.h"
#include "net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"config.json", "quantize_config.json", "model.safetensors"};
static char dir[] = "/tmp/ashley-fuzz-XXXXXX";

static void put(int folder, const char *name, const uint8_t *p, size_t n)
{
    unlinkat(folder, name, 0); /* a file made shorter would be written to disk by ext4 */
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, p, n) != (ssize_t)n)
        abort();
    close(fd);
}

static void clean_up(void)
{
    char path[64];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static int open_folder(void)
{
    static int fd = -1;
    if (fd >= 0)
        return fd;
    if (!mkdtemp(dir) || (fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        abort();
    atexit(clean_up);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ash_checkpoint *c;
    ash_err err = ASH_ERR_INIT;
    int folder = open_folder();
    ash_log_set_level(ASH_LOG_NONE);
    for (int i = 0; i < 3; i++) {
        const uint8_t *zero = i < 2 && size ? memchr(data, 0, size) : NULL;
        size_t n = zero ? (size_t)(zero - data) : size;
        if (i == 1 && !n) /* most checkpoints have no such file */
            unlinkat(folder, names[i], 0);
        else
            put(folder, names[i], data, n);
        n += zero != NULL;
        data += n;
        size -= n;
    }
    if (ash_checkpoint_open(dir, &c, &err)) {
        if (!err.msg[0])
            abort();
        return 0;
    }
    use_checkpoint(c);
    ash_checkpoint_close(c);
    return 0;
}
