/*
 * Kills a program, or fails its calls, at the n-th of the chosen system calls on files below one directory.
 *
 *   cc -shared -fPIC -O2 -o inject.so inject.c
 *   DUCTILE_FAULTS_CONTROL=FILE LD_PRELOAD=./inject.so PROGRAM
 *
 * FILE is mapped and shared: whoever runs the program arms it, chooses the call, and reads what was counted and met
 * (control.py, which has the same layout). A killed write has written half of its bytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "a 64-bit system is needed: offsets are passed in one register");

enum { WRITE = 1, SYNC = 2, CREATE = 4, OPEN = 8, RENAME = 16, LINK = 32, UNLINK = 64, MKDIR = 128, TRUNCATE = 256 };
enum { KILL = 1, FAIL_ONCE = 2, FAIL_ON = 3 };

struct control {
    uint32_t armed;
    uint32_t calls;      /* which, by the bits above */
    uint32_t action;
    int32_t error;       /* the errno of a call that fails */
    uint32_t target;     /* the first call is 1; 0 only counts */
    uint32_t counted;
    uint32_t met;        /* calls that were killed or failed */
    uint32_t unused;
    char what[480];      /* the first of them */
    char root[3584];     /* files below this directory count */
};

static struct control *control;

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("DUCTILE_FAULTS_CONTROL");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED)
        control = mapped;
    syscall(SYS_close, fd);
}

/* Put the absolute path of a call's file into `full`, of a descriptor where there is no `path`. Return 0 without. */
static int resolve(char full[2 * PATH_MAX], int dirfd, const char *path)
{
    char link[64];
    ssize_t length;

    if (path && path[0] == '/') {
        snprintf(full, 2 * PATH_MAX, "%s", path);
        return 1;
    }
    if (dirfd == AT_FDCWD)
        strcpy(link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
    length = syscall(SYS_readlinkat, AT_FDCWD, link, full, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    full[length] = 0;
    if (path && path[0])
        snprintf(full + length, 2 * PATH_MAX - length, "/%s", path);
    return 1;
}

static void die(void)
{
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;)
        pause();
}

/* Return 0 where the call goes on, -1 where the program dies in it, else the errno with which it fails. */
static int verdict(uint32_t call, const char *name, int dirfd, const char *path)
{
    char full[2 * PATH_MAX];
    int saved = errno;
    size_t length;

    if (!control || !__atomic_load_n(&control->armed, __ATOMIC_ACQUIRE) || !(control->calls & call))
        return 0;
    length = strnlen(control->root, sizeof control->root);
    if (!resolve(full, dirfd, path) || strncmp(full, control->root, length) || (full[length] && full[length] != '/')) {
        errno = saved;
        return 0;
    }
    errno = saved;
    uint32_t number = __atomic_add_fetch(&control->counted, 1, __ATOMIC_ACQ_REL);
    if (!control->target || number < control->target || (number > control->target && control->action != FAIL_ON))
        return 0;
    if (__atomic_fetch_add(&control->met, 1, __ATOMIC_ACQ_REL) == 0)
        snprintf(control->what, sizeof control->what, "%s %s", name, full + length + (full[length] == '/'));
    return control->action == KILL ? -1 : control->error;
}

/* Run one call, unless it is the one. */
#define CALL(type, call, name, dirfd, path, real)                   \
    do {                                                            \
        int found = verdict((call), (name), (dirfd), (path));       \
        if (found < 0)                                              \
            die();                                                  \
        if (found > 0) {                                            \
            errno = found;                                          \
            return -1;                                              \
        }                                                           \
        return (type)(real);                                        \
    } while (0)

ssize_t write(int fd, const void *data, size_t size)
{
    int found = verdict(WRITE, "write", fd, NULL);

    if (found < 0) {
        syscall(SYS_write, fd, data, size / 2);
        die();
    }
    if (found > 0) {
        errno = found;
        return -1;
    }
    return syscall(SYS_write, fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    int found = verdict(WRITE, "pwrite", fd, NULL);

    if (found < 0) {
        syscall(SYS_pwrite64, fd, data, size / 2, offset);
        die();
    }
    if (found > 0) {
        errno = found;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite64(fd, data, size, offset);
}

int fsync(int fd)
{
    CALL(int, SYNC, "fsync", fd, NULL, syscall(SYS_fsync, fd));
}

int fdatasync(int fd)
{
    CALL(int, SYNC, "fdatasync", fd, NULL, syscall(SYS_fdatasync, fd));
}

int ftruncate64(int fd, off64_t size)
{
    CALL(int, TRUNCATE, "ftruncate", fd, NULL, syscall(SYS_ftruncate, fd, size));
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

static int open_at(int dirfd, const char *path, int flags, mode_t mode)
{
    int is_new = (flags & O_CREAT) && syscall(SYS_faccessat, dirfd, path, F_OK) != 0;

    CALL(int, is_new ? OPEN | CREATE : OPEN, is_new ? "create" : "open", dirfd, path,
         syscall(SYS_openat, dirfd, path, flags, mode));
}

#define MODE(flags, mode)                                           \
    mode_t mode = 0;                                                \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                        \
        va_list arguments;                                          \
        va_start(arguments, flags);                                 \
        mode = va_arg(arguments, mode_t);                           \
        va_end(arguments);                                          \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int dirfd, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(dirfd, path, flags, mode);
}

int openat64(int dirfd, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(dirfd, path, flags, mode);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned int flags)
{
    CALL(int, RENAME, "rename", to_dir, to, syscall(SYS_renameat2, from_dir, from, to_dir, to, flags));
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return renameat2(from_dir, from, to_dir, to, 0);
}

int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    CALL(int, LINK, "link", to_dir, to, syscall(SYS_linkat, from_dir, from, to_dir, to, flags));
}

int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int symlinkat(const char *target, int dirfd, const char *path)
{
    CALL(int, LINK, "symlink", dirfd, path, syscall(SYS_symlinkat, target, dirfd, path));
}

int symlink(const char *target, const char *path)
{
    return symlinkat(target, AT_FDCWD, path);
}

int unlinkat(int dirfd, const char *path, int flags)
{
    CALL(int, UNLINK, flags & AT_REMOVEDIR ? "rmdir" : "unlink", dirfd, path,
         syscall(SYS_unlinkat, dirfd, path, flags));
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
    CALL(int, MKDIR, "mkdir", dirfd, path, syscall(SYS_mkdirat, dirfd, path, mode));
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}
