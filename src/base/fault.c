/* Owns the handler of SIGBUS and the ranges that it looks after. Refuses more than GUARDS of them. Any
 * thread; the handler reads only atomics and calls only mmap. */
#include "base/fault.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

enum { GUARDS = 256, PAGE = 4096 };

typedef struct guard {
    atomic_uintptr_t from; /* 0: free. Set last and cleared first */
    uintptr_t to;
    atomic_bool *lost;
} guard;

static guard guards[GUARDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    for (int i = 0; i < GUARDS; i++) {
        uintptr_t from = atomic_load_explicit(&guards[i].from, memory_order_acquire);
        if (!from || at < from || at >= guards[i].to) continue;
        /* all from here on: of a file that was cut the rest is gone too */
        uintptr_t page = at / PAGE * PAGE;
        atomic_store(guards[i].lost, true);
        void *zeros = mmap((void *)page, guards[i].to - page, PROT_READ,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        if (zeros != MAP_FAILED) return;
    }
    if ((before.sa_flags & SA_SIGINFO) && before.sa_sigaction)
        before.sa_sigaction(sig, info, context);
    else
        sigaction(SIGBUS, &before, NULL); /* the fault comes again, and goes there */
}

static bool install(void)
{
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER}, now;
    if (sigaction(SIGBUS, NULL, &now)) return false;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault) return true;
    before = now; /* whoever has put another handler there since is asked for what is not guarded */
    return !sigaction(SIGBUS, &sa, NULL);
}

bool ash_fault_guard(void *at, size_t n, atomic_bool *lost)
{
    bool done = false;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < GUARDS && !done && install(); i++) {
        if (atomic_load(&guards[i].from)) continue;
        guards[i].to = (uintptr_t)at + n;
        guards[i].lost = lost;
        atomic_store_explicit(&guards[i].from, (uintptr_t)at, memory_order_release);
        done = true;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

void ash_fault_forget(const void *at)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < GUARDS; i++)
        if (at && atomic_load(&guards[i].from) == (uintptr_t)at) atomic_store(&guards[i].from, 0);
    pthread_mutex_unlock(&lock);
}
