// The kernel's calls that Swift's own map of glibc leaves out: epoll, eventfd, accept4 and CPU sets.
// Header only: nothing here is compiled on its own, and only Reactor imports it.
#ifndef MOONGATE_CLINUX_H
#define MOONGATE_CLINUX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// accept4 and the CPU sets are GNU extensions and macros: declared or wrapped here so that they can be imported
// whatever the feature macros were when glibc's headers were first read.
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

static inline int moongate_epoll_wait(int epoll, struct epoll_event *events, int capacity, int timeout_ms) {
    int n = epoll_wait(epoll, events, capacity, timeout_ms);
    return n < 0 ? -errno : n;
}

static inline uint64_t moongate_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// Pins the calling thread to one CPU. 0, or an errno.
static inline int moongate_pin_to_cpu(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu < 0 || cpu >= CPU_SETSIZE) return EINVAL;
    CPU_SET(cpu, &set);
    return pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static inline int moongate_cpu_count(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

#endif
