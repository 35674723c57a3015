// The calls that Swift's own map of glibc leaves out: epoll, eventfd, accept4, CPU sets and the loaded objects.
// Header only: nothing here is compiled on its own, and only Reactor imports it.
#ifndef MOONGATE_CLINUX_H
#define MOONGATE_CLINUX_H

#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
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

// Datagrams, by the batch. What glibc shows only with a macro that the toolchain does not set stands here again, as in
// its headers: struct mmsghdr, the pktinfo structures and their options (ip(7), ipv6(7)).
#define MOONGATE_DATAGRAMS 32
#define MOONGATE_IP_PKTINFO 8
#define MOONGATE_IPV6_RECVPKTINFO 49
#define MOONGATE_IPV6_PKTINFO 50

struct moongate_mmsghdr {
    struct msghdr header;
    unsigned int count;
};

struct moongate_pktinfo {
    int interface;
    struct in_addr local;
    struct in_addr destination;
};

struct moongate_pktinfo6 {
    struct in6_addr destination;
    unsigned int interface;
};

struct moongate_datagram {
    struct sockaddr_storage peer;
    // Our own address that it was sent to; of no family where the kernel has not said.
    struct sockaddr_storage local;
    uint32_t count;
    // It was longer than the room for it.
    uint32_t is_cut;
};

// Up to `most` datagrams, number i to `bytes + i * size`; with `addressed` also whence and whither they were sent. How many,
// or -errno.
static inline int moongate_receive_datagrams(int fd, struct moongate_datagram *into, uint8_t *bytes, size_t size, int most,
                                             int addressed) {
    struct moongate_mmsghdr messages[MOONGATE_DATAGRAMS];
    struct iovec parts[MOONGATE_DATAGRAMS];
    union {
        struct cmsghdr first;
        uint8_t bytes[128];
    } control[MOONGATE_DATAGRAMS];
    if (most > MOONGATE_DATAGRAMS) most = MOONGATE_DATAGRAMS;
    for (int i = 0; i < most; i++) {
        struct msghdr *header = &messages[i].header;
        memset(&messages[i], 0, sizeof messages[i]);
        parts[i].iov_base = bytes + (size_t)i * size;
        parts[i].iov_len = size;
        header->msg_iov = &parts[i];
        header->msg_iovlen = 1;
        if (addressed) {
            header->msg_name = &into[i].peer;
            header->msg_namelen = sizeof into[i].peer;
            header->msg_control = control[i].bytes;
            header->msg_controllen = sizeof control[i].bytes;
        }
    }
    long n = syscall(SYS_recvmmsg, fd, messages, (unsigned int)most, MSG_DONTWAIT, (void *)0);
    if (n < 0) return -errno;
    for (int i = 0; i < (int)n; i++) {
        struct msghdr *header = &messages[i].header;
        into[i].count = messages[i].count;
        into[i].is_cut = (header->msg_flags & MSG_TRUNC) != 0;
        into[i].local.ss_family = 0;
        if (!addressed) continue;
        for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item; item = CMSG_NXTHDR(header, item)) {
            if (item->cmsg_level == IPPROTO_IP && item->cmsg_type == MOONGATE_IP_PKTINFO) {
                struct moongate_pktinfo info;
                struct sockaddr_in *local = (struct sockaddr_in *)&into[i].local;
                memcpy(&info, CMSG_DATA(item), sizeof info);
                memset(local, 0, sizeof *local);
                local->sin_family = AF_INET;
                local->sin_addr = info.local;
            } else if (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == MOONGATE_IPV6_PKTINFO) {
                struct moongate_pktinfo6 info;
                struct sockaddr_in6 *local = (struct sockaddr_in6 *)&into[i].local;
                memcpy(&info, CMSG_DATA(item), sizeof info);
                memset(local, 0, sizeof *local);
                local->sin6_family = AF_INET6;
                local->sin6_addr = info.destination;
                // Zero but for addresses of a link, which both ends are then on.
                if (into[i].peer.ss_family == AF_INET6)
                    local->sin6_scope_id = ((struct sockaddr_in6 *)&into[i].peer)->sin6_scope_id;
            }
        }
    }
    return (int)n;
}

// Sends `count` datagrams in their order: to `peer`, or where the socket is connected to; from `local`, or as the kernel
// likes. How many went, or -errno of the first that did not.
static inline int moongate_send_datagrams(int fd, const struct moongate_datagram *from, const uint8_t *bytes, size_t size,
                                          int count, const void *peer, socklen_t peer_length, const void *local) {
    struct moongate_mmsghdr messages[MOONGATE_DATAGRAMS];
    struct iovec parts[MOONGATE_DATAGRAMS];
    union {
        struct cmsghdr first;
        uint8_t bytes[128];
    } control;
    size_t control_length = 0;
    if (count > MOONGATE_DATAGRAMS) count = MOONGATE_DATAGRAMS;
    if (local) {
        const struct sockaddr *address = local;
        memset(&control, 0, sizeof control);
        if (address->sa_family == AF_INET) {
            struct moongate_pktinfo info;
            memset(&info, 0, sizeof info);
            info.local = ((const struct sockaddr_in *)local)->sin_addr;
            control.first.cmsg_level = IPPROTO_IP;
            control.first.cmsg_type = MOONGATE_IP_PKTINFO;
            control.first.cmsg_len = CMSG_LEN(sizeof info);
            memcpy(CMSG_DATA(&control.first), &info, sizeof info);
            control_length = CMSG_SPACE(sizeof info);
        } else {
            struct moongate_pktinfo6 info;
            info.destination = ((const struct sockaddr_in6 *)local)->sin6_addr;
            // An address that is the link's own means nothing without the link.
            info.interface = ((const struct sockaddr_in6 *)local)->sin6_scope_id;
            control.first.cmsg_level = IPPROTO_IPV6;
            control.first.cmsg_type = MOONGATE_IPV6_PKTINFO;
            control.first.cmsg_len = CMSG_LEN(sizeof info);
            memcpy(CMSG_DATA(&control.first), &info, sizeof info);
            control_length = CMSG_SPACE(sizeof info);
        }
    }
    for (int i = 0; i < count; i++) {
        struct msghdr *header = &messages[i].header;
        memset(&messages[i], 0, sizeof messages[i]);
        parts[i].iov_base = (void *)(bytes + (size_t)i * size);
        parts[i].iov_len = from[i].count;
        header->msg_iov = &parts[i];
        header->msg_iovlen = 1;
        header->msg_name = (void *)peer;
        header->msg_namelen = peer_length;
        if (local) {
            header->msg_control = control.bytes;
            header->msg_controllen = control_length;
        }
    }
    long n = syscall(SYS_sendmmsg, fd, messages, (unsigned int)count, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? -errno : (int)n;
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

// What `dl_iterate_phdr` tells of a loaded object; declared here for the reason above.
struct moongate_object {
    ElfW(Addr) address;
    const char *name;
    const ElfW(Phdr) *headers;
    ElfW(Half) count;
};
extern int dl_iterate_phdr(int (*)(struct moongate_object *, size_t, void *), void *);

// Unmaps the pages of an object that nobody may write: they are those of its file, and come back from it when touched.
static inline int moongate_leave_pages(struct moongate_object *object, size_t size, void *context) {
    (void)size;
    (void)context;
    for (int i = 0; i < object->count; i++) {
        if (object->headers[i].p_type != PT_DYNAMIC) continue;
        const ElfW(Dyn) *entry = (const ElfW(Dyn) *)(object->address + object->headers[i].p_vaddr);
        // Code that was written to when it was loaded is not that of the file.
        for (; entry->d_tag != DT_NULL; entry++) {
            if (entry->d_tag == DT_TEXTREL || (entry->d_tag == DT_FLAGS && (entry->d_un.d_val & DF_TEXTREL))) return 0;
        }
    }
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < object->count; i++) {
        const ElfW(Phdr) *header = &object->headers[i];
        // What is writable, and what became read-only after it was relocated, is in segments with PF_W.
        if (header->p_type != PT_LOAD || (header->p_flags & PF_W)) continue;
        const uintptr_t start = (object->address + header->p_vaddr + page - 1) & ~(page - 1);
        const uintptr_t end = (object->address + header->p_vaddr + header->p_memsz) & ~(page - 1);
        if (start < end) madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return 0;
}

// Gives back what lies on whole pages of memory that is about to be freed: the heap would keep it. It is there again, all zero,
// when it is written to.
static inline void moongate_leave(void *start, size_t count) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)start + page - 1) & ~(page - 1);
    const uintptr_t end = ((uintptr_t)start + count) & ~(page - 1);
    if (first < end) madvise((void *)first, end - first, MADV_DONTNEED);
}

// Gives back the memory that only starting needed: free pages of the heap, and pages of code.
static inline void moongate_settle(void) {
    malloc_trim(0);
    dl_iterate_phdr(moongate_leave_pages, NULL);
}

#endif
