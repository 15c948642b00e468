/* Preloaded: makes every fsync and fdatasync as much slower as a slow disk is. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static const struct timespec slower = {0, 5 * 1000 * 1000};   /* 5 ms */

static int wait_and_call(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    nanosleep(&slower, 0);
    return real(fd);
}

int fsync(int fd) { return wait_and_call("fsync", fd); }

int fdatasync(int fd) { return wait_and_call("fdatasync", fd); }
