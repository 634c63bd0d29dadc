/* Slow disks, for processes that this is preloaded into: while a directory named in SLOW_DISKS (paths, colons between
 * them) holds a file `slow`, every write and sync of a file below it first waits as many milliseconds as that file
 * begins with (three digits), and leaves a dot there, which shows afterwards that the harm was done. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static void wait_in(const char *directory, int length) {
    char name[PATH_MAX], digits[4] = "";
    snprintf(name, sizeof name, "%.*s/slow", length, directory);
    int flag = open(name, O_RDWR | O_APPEND | O_CLOEXEC);
    if (flag < 0)
        return;
    if (pread(flag, digits, 3, 0) == 3 && syscall(SYS_write, flag, ".", 1) == 1) {
        long ms = strtol(digits, NULL, 10);
        struct timespec left = {ms / 1000, ms % 1000 * 1000000};
        while (nanosleep(&left, &left) != 0 && errno == EINTR) {
        }
    }
    close(flag);
}

static void wait_if_slow(int file) {
    const char *directory = getenv("SLOW_DISKS");
    char link[64], path[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = directory == NULL ? 0 : readlink(link, path, sizeof path);
    while (size > 0 && *directory != '\0') {
        int length = (int)strcspn(directory, ":");
        if (size > length && path[length] == '/' && strncmp(path, directory, (size_t)length) == 0)
            wait_in(directory, length);
        directory += length + (directory[length] == ':');
    }
    errno = before;
}

ssize_t write(int file, const void *bytes, size_t size) {
    wait_if_slow(file);
    return syscall(SYS_write, file, bytes, size);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    wait_if_slow(file);
    return syscall(SYS_writev, file, parts, count);
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t offset) {
    wait_if_slow(file);
    return syscall(SYS_pwrite64, file, bytes, size, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t offset) {
    wait_if_slow(file);
    return syscall(SYS_pwrite64, file, bytes, size, offset);
}

int fsync(int file) {
    wait_if_slow(file);
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    wait_if_slow(file);
    return (int)syscall(SYS_fdatasync, file);
}
