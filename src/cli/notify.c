/* Owns the datagram to systemd; the protocol is one text to a Unix socket, '@' meaning the abstract
 * namespace (sd_notify(3)), so that no library is needed for it. */
#include "cli/notify.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void ash_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t n = path ? strlen(path) : 0;
    if (n < 2 || n >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@')) return;
    memcpy(to.sun_path, path, n);
    if (path[0] == '@') to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    bool status = !strncmp(state, "STATUS=", 7); /* not worth waiting for one who reads slowly */
    int flags = MSG_NOSIGNAL | (status ? MSG_DONTWAIT : 0);
    (void)!sendto(fd, state, strlen(state), flags, (struct sockaddr *)&to, len);
    close(fd);
}
