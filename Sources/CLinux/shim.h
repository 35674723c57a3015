// The kernel's calls that Swift's own map of glibc leaves out: epoll, eventfd, accept4 and CPU sets.
// Header only: nothing here is compiled on its own, and only Reactor imports it.
#ifndef MOONGATE_CLINUX_H
#define MOONGATE_CLINUX_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// A GNU extension, declared here because the toolchain reads glibc's headers without the macro that shows it; for
// the same reason CPU affinity goes by its system call.
extern int accept4(int, struct sockaddr *, socklen_t *, int);

// One read; the answer is the count, or -errno: errno is thread-local state that is best read at once.
static inline ssize_t moongate_read(int fd, void *into, size_t count) {
    ssize_t n = recv(fd, into, count, 0);
    return n < 0 ? -errno : n;
}

// One write of up to two parts, as one message, without SIGPIPE. The count, or -errno.
static inline ssize_t moongate_send(int fd, const void *first, size_t first_count,
                                    const void *second, size_t second_count) {
    ssize_t n;
    if (second_count == 0) {
        n = send(fd, first, first_count, MSG_NOSIGNAL);
    } else if (first_count == 0) {
        n = send(fd, second, second_count, MSG_NOSIGNAL);
    } else {
        struct iovec parts[2] = {{(void *)first, first_count}, {(void *)second, second_count}};
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        n = sendmsg(fd, &message, MSG_NOSIGNAL);
    }
    return n < 0 ? -errno : n;
}

static inline int moongate_accept(int fd, struct sockaddr_storage *peer, socklen_t *length) {
    int accepted = accept4(fd, (struct sockaddr *)peer, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return accepted < 0 ? -errno : accepted;
}

static inline int moongate_epoll_add(int epoll, int fd, uint32_t events, uint64_t token) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events;
    event.data.u64 = token;
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

// The same descriptor under another name, from here on. What is there to be read or written is told anew.
static inline int moongate_epoll_rename(int epoll, int fd, uint32_t events, uint64_t token) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events;
    event.data.u64 = token;
    return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) < 0 ? -errno : 0;
}

static inline int moongate_epoll_wait(int epoll, struct epoll_event *events, int capacity, int timeout_ms) {
    int n = epoll_wait(epoll, events, capacity, timeout_ms);
    return n < 0 ? -errno : n;
}

static inline uint64_t moongate_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline int moongate_connect(int fd, const void *address, socklen_t length) {
    return connect(fd, (const struct sockaddr *)address, length) < 0 ? errno : 0;
}

static inline int moongate_bind(int fd, const void *address, socklen_t length) {
    return bind(fd, (const struct sockaddr *)address, length) < 0 ? errno : 0;
}

static inline int moongate_local_address(int fd, struct sockaddr_storage *address) {
    socklen_t length = sizeof *address;
    return getsockname(fd, (struct sockaddr *)address, &length) < 0 ? errno : 0;
}

#define MOONGATE_CPU_WORDS 128

// Pins the calling thread to one CPU. 0, or an errno.
static inline int moongate_pin_to_cpu(int cpu) {
    unsigned long set[MOONGATE_CPU_WORDS] = {0};
    const int bits = 8 * (int)sizeof set[0];
    if (cpu < 0 || cpu >= MOONGATE_CPU_WORDS * bits) return EINVAL;
    set[cpu / bits] |= 1ul << (cpu % bits);
    return syscall(SYS_sched_setaffinity, 0, sizeof set, set) < 0 ? errno : 0;
}

static inline int moongate_name_thread(const char *name) {
    return prctl(PR_SET_NAME, name, 0, 0, 0);
}

static inline int moongate_cpu_count(void) {
    unsigned long set[MOONGATE_CPU_WORDS] = {0};
    long length = syscall(SYS_sched_getaffinity, 0, sizeof set, set);
    int n = 0;
    for (long i = 0; i < length / (long)sizeof set[0]; i++) n += __builtin_popcountl(set[i]);
    return n > 0 ? n : 1;
}

// Raises the limit of descriptors to the most that this process may have, and answers what it may have then.
static inline uint64_t moongate_raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (before != limit.rlim_max && setrlimit(RLIMIT_NOFILE, &limit) != 0) return before;
    return limit.rlim_cur;
}

#endif
