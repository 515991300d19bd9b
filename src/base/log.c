/* Owns the process's log (the one global state besides cpu). Any thread; one line is one write. */
#include "base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { MAX_SECRETS = 64, MIN_SECRET = 4 };

static struct {
    pthread_mutex_t mutex;
    ash_log_level least;
    char *secrets[MAX_SECRETS];
    int n_secrets;
} log_state = {.mutex = PTHREAD_MUTEX_INITIALIZER, .least = ASH_LOG_INFO};

void ash_log_set_level(ash_log_level least)
{
    pthread_mutex_lock(&log_state.mutex);
    log_state.least = least;
    pthread_mutex_unlock(&log_state.mutex);
}

void ash_log_hide(const char *secret)
{
    if (!secret || strlen(secret) < MIN_SECRET)
        return;
    pthread_mutex_lock(&log_state.mutex);
    bool known = false;
    for (int i = 0; i < log_state.n_secrets; i++) known |= !strcmp(log_state.secrets[i], secret);
    if (!known && log_state.n_secrets < MAX_SECRETS) {
        char *copy = strdup(secret);
        if (copy)
            log_state.secrets[log_state.n_secrets++] = copy;
    }
    pthread_mutex_unlock(&log_state.mutex);
}

static void redact_locked(char *text)
{
    for (int i = 0; i < log_state.n_secrets; i++) {
        size_t n = strlen(log_state.secrets[i]);
        for (char *p = text; (p = strstr(p, log_state.secrets[i])); p += 3) {
            memcpy(p, "***", 3);
            memmove(p + 3, p + n, strlen(p + n) + 1);
        }
    }
}

void ash_log_redact(char *text)
{
    pthread_mutex_lock(&log_state.mutex);
    redact_locked(text);
    pthread_mutex_unlock(&log_state.mutex);
}

void ash_log_write(ash_log_level level, const char *area, const char *fmt, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    pthread_mutex_lock(&log_state.mutex);
    if (level >= log_state.least && level < ASH_LOG_NONE) {
        char line[2048], at[25];
        ash_clock_iso(ash_clock_wall(), at);
        int n = snprintf(line, sizeof line, "%s %-5s %s: ", at, names[level], area);
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(line + n, sizeof line - (size_t)n - 2, fmt, ap);
        va_end(ap);
        redact_locked(line);
        for (char *p = line; *p; p++) /* one event is one line, whatever its text holds */
            if ((unsigned char)*p < 0x20 || *p == 0x7F)
                *p = ' ';
        size_t len = strlen(line);
        line[len++] = '\n';
        ssize_t ignored = write(STDERR_FILENO, line, len);
        (void)ignored;
    }
    pthread_mutex_unlock(&log_state.mutex);
}
