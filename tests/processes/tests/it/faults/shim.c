/* What a test does to a program from outside, loaded before the C library: its wall clock runs ahead or behind, and a
   folder refuses to be written to, as a file system does that was remounted read-only beneath open files. The test
   writes both into a file that is mapped here, so they change while the program runs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t offset_us;
    /* An errno, or 0. */
    volatile int64_t refuse;
};

static struct control quiet;
static struct control *control = &quiet;
static const char *folder = "";

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TRIBUTARY_SHIM_CONTROL");
    const char *below = getenv("TRIBUTARY_SHIM_FOLDER");
    int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0) : -1;
    if (below)
        folder = below;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        control = mapped;
    close(file);
}

/* Time. */

static void shift(struct timespec *time) {
    int64_t micros = time->tv_sec * 1000000LL + time->tv_nsec / 1000 + control->offset_us;
    if (micros < 0)
        micros = 0;
    time->tv_nsec = micros % 1000000 * 1000 + time->tv_nsec % 1000;
    time->tv_sec = micros / 1000000;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        shift(now);
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec time;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

/* Writing. */

static int is_below(const char *path) {
    return *folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int refused_path(const char *path) {
    int error = (int)control->refuse;
    if (error && is_below(path)) {
        errno = error;
        return 1;
    }
    return 0;
}

static int refused(int file) {
    char link[64], path[4096];
    if (!control->refuse)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return refused_path(path);
}

static int opened(int at, const char *path, int flags, mode_t mode) {
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) && refused_path(path))
        return -1;
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;                                      \
        va_end(rest);                                                                                                  \
        return opened(AT_FDCWD, path, flags, mode);                                                                    \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int file, const void *bytes, size_t length) {
    return refused(file) ? -1 : syscall(SYS_write, file, bytes, length);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) {
    return refused(file) ? -1 : syscall(SYS_pwrite64, file, bytes, length, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off_t at) {
    return pwrite(file, bytes, length, at);
}

int fsync(int file) {
    return refused(file) ? -1 : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    return refused(file) ? -1 : (int)syscall(SYS_fdatasync, file);
}

int ftruncate(int file, off_t length) {
    return refused(file) ? -1 : (int)syscall(SYS_ftruncate, file, length);
}

int ftruncate64(int file, off_t length) {
    return ftruncate(file, length);
}

int rename(const char *from, const char *to) {
    return refused_path(to) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path) {
    return refused_path(path) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int mkdir(const char *path, mode_t mode) {
    return refused_path(path) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
