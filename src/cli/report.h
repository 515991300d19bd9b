/* The boot report as a table, for the terminal and the log. */
#ifndef ASHLEY_CLI_REPORT_H
#define ASHLEY_CLI_REPORT_H

#include <jansson.h>
#include <stdbool.h>

/* Prints ash_manager_report's object to standard error; nothing if quiet. */
void ash_report_print(const json_t *report, bool quiet);

#endif
