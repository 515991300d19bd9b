/* The log: one line an event on standard error, "time LEVEL area: message". Any thread.
 * Secrets registered with ash_log_hide are replaced by "***" wherever they would show. */
#ifndef ASHLEY_BASE_LOG_H
#define ASHLEY_BASE_LOG_H

#include "base/err.h"

typedef enum { ASH_LOG_DEBUG, ASH_LOG_INFO, ASH_LOG_WARN, ASH_LOG_ERROR, ASH_LOG_NONE } ash_log_level;

void ash_log_set_level(ash_log_level least);
/* Remembers a secret of 4 bytes or more (copied, at most 64 of them) that no line may show. */
void ash_log_hide(const char *secret);
/* Replaces registered secrets in text[0..) in place; for errors and pages. */
void ash_log_redact(char *text);
void ash_log_write(ash_log_level level, const char *area, const char *fmt, ...) ASH_PRINTF(3, 4);

#define ash_debug(area, ...) ash_log_write(ASH_LOG_DEBUG, area, __VA_ARGS__)
#define ash_info(area, ...) ash_log_write(ASH_LOG_INFO, area, __VA_ARGS__)
#define ash_warn(area, ...) ash_log_write(ASH_LOG_WARN, area, __VA_ARGS__)
#define ash_error(area, ...) ash_log_write(ASH_LOG_ERROR, area, __VA_ARGS__)

#endif
