/* Threads whose work nobody waits for. */
#ifndef ASHLEY_BASE_IDLE_H
#define ASHLEY_BASE_IDLE_H

/* The calling thread gives way to every other of the machine from now on, for its core (nice 19) and for its
 * disk (I/O class idle). What the system refuses of it is left out. */
void ash_idle_enter(void);

#endif
