/* Telling systemd about this service (sd_notify(3)): one datagram to $NOTIFY_SOCKET. Any thread. */
#ifndef ASHLEY_CLI_NOTIFY_H
#define ASHLEY_CLI_NOTIFY_H

/* "READY=1", "STOPPING=1", "STATUS=...". Without a socket in the environment it does nothing; a
 * failure to send is not reported, as the service runs all the same. */
void ash_notify(const char *state);

#endif
