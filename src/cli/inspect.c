/* Owns `ashley version`, and how commands print JSON. */
#include <jansson.h>
#include <microhttpd.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/curl.h"
#include "cli/cli.h"

int ash_cli_print_json(json_t *v)
{
    ash_err err = ASH_ERR_INIT;
    if (!v) return ash_cli_fail((ash_err_nomem(&err, "JSON"), &err));
    json_dumpf(v, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(v);
    return ASH_EXIT_DONE;
}


int ash_cmd_version(ash_cli *cli)
{
    char pcre[64] = "";
    const char *curl = "missing";
    ash_curl lib;
    ash_err err = ASH_ERR_INIT;
    const ash_cpu *cpu = ash_cpu_get();
    if (!ash_curl_open(&lib, &err)) curl = lib.version_info(CURLVERSION_NOW)->version;
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    pcre[strcspn(pcre, " ")] = 0;
    if (cli->json)
        return ash_cli_print_json(json_pack(
            "{s:s, s:s, s:s, s:{s:s, s:s, s:s, s:s, s:s}}", "version", ASHLEY_VERSION, "kernels",
            ash_cpu_level_name(cpu->level), "processor", cpu->name, "libraries", "libmicrohttpd",
            MHD_get_version(), "libcurl", curl, "jansson",
            jansson_version_str(), "sqlite", sqlite3_libversion(), "pcre2", pcre));
    printf("ashley %s (kernel set %s; libmicrohttpd %s, libcurl %s, jansson %s, sqlite %s, pcre2 "
           "%s)\n",
           ASHLEY_VERSION, ash_cpu_level_name(cpu->level), MHD_get_version(),
           curl, jansson_version_str(), sqlite3_libversion(), pcre);
    return ASH_EXIT_DONE;
}
