/* Moves the wall clock of the process that preloads this, and of its children, by the seconds (an int64) that stand in
   the mapped file $WALL_CLOCK, at once and both ways. The monotonic clock stays. Without any header, so that a compiler is
   all it takes. */

struct timespec { long seconds, nanoseconds; };
struct timeval { long seconds, microseconds; };

extern long syscall(long number, ...);
extern char *getenv(const char *name);
extern int open(const char *path, int flags, ...);
extern int close(int file);
extern void *mmap(void *address, unsigned long length, int protection, int flags, int file, long offset);

#if defined(__x86_64__)
enum { SYS_CLOCK_GETTIME = 228 };
#elif defined(__aarch64__)
enum { SYS_CLOCK_GETTIME = 113 };
#endif
enum { REALTIME = 0, REALTIME_COARSE = 5, READ_ONLY = 0, PROT_READ = 1, MAP_SHARED = 1 };

static const volatile long *shift;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WALL_CLOCK");
    int file = path ? open(path, READ_ONLY) : -1;
    if (file < 0) return;
    void *map = mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (map != (void *)-1) shift = map;
    close(file);
}

int clock_gettime(int clock, struct timespec *now) {
    int failed = (int)syscall(SYS_CLOCK_GETTIME, (long)clock, now);
    if (!failed && shift && (clock == REALTIME || clock == REALTIME_COARSE)) now->seconds += *shift;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(REALTIME, &exact)) return -1;
    now->seconds = exact.seconds;
    now->microseconds = exact.nanoseconds / 1000;
    return 0;
}

long time(long *into) {
    struct timespec exact;
    if (clock_gettime(REALTIME, &exact)) return -1;
    if (into) *into = exact.seconds;
    return exact.seconds;
}
