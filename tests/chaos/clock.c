/* Shifts the wall clock of a process by what a file says, in seconds: for `tests/chaos` only.
   Built with `cc -shared -fPIC`, loaded with LD_PRELOAD; CHAOS_CLOCK names the file, 8 bytes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *shift_s;

__attribute__((constructor)) static void map_shift(void)
{
    const char *path = getenv("CHAOS_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *found = mmap(NULL, sizeof *shift_s, PROT_READ, MAP_SHARED, fd, 0);
        shift_s = found == MAP_FAILED ? NULL : found;
        close(fd);
    }
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && shift_s && clock == CLOCK_REALTIME)
        now->tv_sec += *shift_s;
    return failed;
}
