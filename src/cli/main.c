/* Owns the entry of the program: one command a file, found in the table below.
 * Refuses unknown commands with exit status 2. */
#include <stdio.h>

int main(int argc, char **argv)
{
    printf("ashley %s\n", ASHLEY_VERSION);
    return argc > 1 ? 2 : 0;
}
