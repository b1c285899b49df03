/*
 * A worker that an attacker has taken over: loaded into a real server with LD_PRELOAD, this is machine code in each of its
 * processes, with every descriptor and every limit that they have.
 *
 * A connection whose first bytes are "ATTACK NAME" makes the worker that accepts it do what NAME says. It answers "done",
 * "errno N", or nothing if it did not live that long, and then the worker goes on as if nothing had happened. The state
 * process does the same on its socket.
 *
 * With WRUN_TEST_KERNEL=without-landlock or without-seccomp the kernel seems to have no such thing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define MPTCP 262
#define DESCRIPTORS 4096

typedef int (*accept4_fn)(int, struct sockaddr *, socklen_t *, int);

static accept4_fn real_accept4;
/* The listening socket, and the connection that the attack came in on. */
static int listener, client;
/* The worker's argument after the name, if any. */
static long argument;

/* Has a system call fail as in a kernel that was built without it. */
static void hide(unsigned call)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof steps / sizeof *steps, steps};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

__attribute__((constructor)) static void prepare(void)
{
    const char *kernel = getenv("WRUN_TEST_KERNEL");
    real_accept4 = (accept4_fn)dlsym(RTLD_NEXT, "accept4");
    if (kernel && strcmp(kernel, "without-landlock") == 0)
        hide(SYS_landlock_create_ruleset);
    if (kernel && strcmp(kernel, "without-seccomp") == 0)
        hide(SYS_seccomp);
}

/* Returns 0, or the error of a call that returned -1. */
static int result(long returned)
{
    return returned == -1 ? errno : 0;
}

static int option(int fd, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    return getsockopt(fd, SOL_SOCKET, name, &value, &len) ? -1 : value;
}

/* Finds the worker's line to the supervisor (SOCK_SEQPACKET) or to the state process (SOCK_STREAM). */
static int line(int type)
{
    for (int fd = 3; fd < DESCRIPTORS; fd++)
        if (option(fd, SO_DOMAIN) == AF_UNIX && option(fd, SO_TYPE) == type)
            return fd;
    return -1;
}

/* Case 53: other programs, other processes. */

static int run_a_program(void)
{
    char *none[] = {NULL};
    return result(execve("/dev/null/program", none, none));
}

static int run_a_program_by_descriptor(void)
{
    char *none[] = {NULL};
    return result(syscall(SYS_execveat, client, "", none, none, AT_EMPTY_PATH));
}

static int fork_a_process(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return result(pid);
}

static int clone_a_process(void)
{
    long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return result(pid);
}

static int trace_a_process(void)
{
    return result(ptrace(PTRACE_ATTACH, 0x7ffffff0, 0, 0));
}

static int read_a_process(void)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)&real_accept4, 1};
    return result(process_vm_readv(getppid(), &here, 1, &there, 1, 0));
}

static int signal_the_supervisor(void)
{
    return result(kill(getppid(), SIGURG));
}

static int signal_a_sibling(void)
{
    return result(kill((pid_t)argument, SIGURG));
}

static int signal_a_sibling_by_pidfd(void)
{
    long pidfd = syscall(SYS_pidfd_open, (pid_t)argument, 0);
    return pidfd < 0 ? errno : result(syscall(SYS_pidfd_send_signal, pidfd, SIGURG, NULL, 0));
}

/* Case 54: code that was not there. */

static int map_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno
                                                                                                                  : 0;
}

static int turn_data_into_code(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? errno : result(mprotect(page, 4096, PROT_READ | PROT_EXEC));
}

static int change_personality(void)
{
    return result(syscall(SYS_personality, 0xffffffff));
}

/* Case 55: ways out. */

static int new_socket(int family, int type, int protocol)
{
    int fd = socket(family, type | SOCK_CLOEXEC, protocol);
    int error = result(fd);
    if (fd >= 0)
        close(fd);
    return error;
}

static int tcp(void) { return new_socket(AF_INET, SOCK_STREAM, 0); }
static int mptcp(void) { return new_socket(AF_INET, SOCK_STREAM, MPTCP); }
static int udp(void) { return new_socket(AF_INET, SOCK_DGRAM, 0); }
static int raw(void) { return new_socket(AF_INET, SOCK_RAW, IPPROTO_ICMP); }
static int packets(void) { return new_socket(AF_PACKET, SOCK_RAW, 0); }
static int netlink(void) { return new_socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE); }
static int unix_stream(void) { return new_socket(AF_UNIX, SOCK_STREAM, 0); }
static int unix_datagram(void) { return new_socket(AF_UNIX, SOCK_DGRAM, 0); }

static int pair_of_sockets(void)
{
    int pair[2];
    return result(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
}

static struct sockaddr_in loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)argument)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int connect_tcp(void)
{
    struct sockaddr_in to = loopback();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? errno : result(connect(fd, (struct sockaddr *)&to, sizeof to));
}

static int fast_open(void)
{
    struct sockaddr_in to = loopback();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return errno;
    return result(sendto(fd, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof to));
}

static int fast_open_by_option(void)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? errno : result(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on));
}

/* A connection that a client made, turned around. */
static int reuse_a_connection(void)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    return result(connect(client, &none, sizeof none));
}

static int bind_a_port(void)
{
    struct sockaddr_in to = loopback();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? errno : result(bind(fd, (struct sockaddr *)&to, sizeof to));
}

static int io_uring(void)
{
    char parameters[120] = {0};
    return result(syscall(SYS_io_uring_setup, 1, parameters));
}

/* Case 56: the listening socket, which belongs to all. */

static int shut_the_listener_down(void) { return result(shutdown(listener, SHUT_RDWR)); }
static int shorten_its_queue(void) { return result(listen(listener, 4096)); }
static int set_its_flags(void) { return result(fcntl(listener, F_SETFL, O_RDWR | O_NONBLOCK)); }
static int duplicate_it(void) { return result(dup(listener)); }
static int duplicate_it_by_fcntl(void) { return result(fcntl(listener, F_DUPFD_CLOEXEC, 100)); }

static int set_it_blocking_or_not(void)
{
    int on = 1;
    return result(ioctl(listener, FIONBIO, &on));
}

static int set_its_options(void)
{
    int on = 1;
    return result(setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
}

/* Case 57: files. */

static int opened(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    int error = result(fd);
    if (fd >= 0)
        close(fd);
    return error;
}

static int open_a_file(void) { return opened("/etc/passwd", O_RDONLY); }
static int open_its_own_maps(void) { return opened("/proc/self/maps", O_RDONLY); }
static int make_a_file(void) { return opened("/tmp", O_WRONLY | O_TMPFILE); }
static int list_a_folder(void) { return opened("/", O_RDONLY | O_DIRECTORY); }

static int open_the_supervisor(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", getppid());
    return opened(path, O_RDONLY);
}

static int make_a_folder(void)
{
    const char *path = "/tmp/wrun-made-by-a-worker";
    int error = result(mkdir(path, 0700));
    rmdir(path);
    return error;
}

/* What only the state process may do. */
static int make_a_database(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/made-by-an-attack", getenv("SQLITE_TMPDIR"));
    int error = opened(path, O_RDWR | O_CREAT);
    unlink(path);
    return error;
}

static int look_at_a_file(void)
{
    struct stat found;
    return result(stat("/etc/passwd", &found));
}

static int file_in_memory(void) { return result(memfd_create("code", MFD_CLOEXEC)); }

/* Case 58: what it says to others. */

static int says(int type, const void *bytes, size_t len)
{
    return result(send(line(type), bytes, len, MSG_NOSIGNAL));
}

static int garbage_to_the_supervisor(void) { return says(SOCK_SEQPACKET, "\xff{", 2); }

static int oversized_to_the_supervisor(void)
{
    static char bytes[70 << 10];
    memset(bytes, '"', sizeof bytes);
    return says(SOCK_SEQPACKET, bytes, sizeof bytes);
}

static int flood_of_the_supervisor(void)
{
    static const char beat[] = "{\"Heartbeat\":{\"requests\":0,\"in_flight\":0,\"connections\":0,\"busy\":0,\"recent\":0}}";
    for (int sent = 0; sent < 100000;)
        if (says(SOCK_SEQPACKET, beat, sizeof beat - 1) == 0)
            sent++;
        else if (errno != EAGAIN)
            return errno;
        else
            sched_yield();
    return 0;
}

static int garbage_to_the_state_process(void)
{
    return says(SOCK_STREAM, "\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12);
}

static int oversized_to_the_state_process(void) { return says(SOCK_STREAM, "\xff\xff\xff\x7f", 4); }

static int pass_a_descriptor_to(int type)
{
    char byte = '{';
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &listener, sizeof(int));
    return result(sendmsg(line(type), &message, MSG_NOSIGNAL));
}

static int pass_a_descriptor_to_the_supervisor(void) { return pass_a_descriptor_to(SOCK_SEQPACKET); }
static int pass_a_descriptor_to_the_state_process(void) { return pass_a_descriptor_to(SOCK_STREAM); }

/* Case 59: to be somebody else. Connects anew by the path that the worker has, and returns whether it was let in. */

static int introduced_as(const char *hello, size_t len)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    char answer[64] = {0};
    socklen_t size = sizeof to;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return errno;
    if (getpeername(line(SOCK_STREAM), (struct sockaddr *)&to, &size))
        return errno;
    /* The name that the socket was bound by goes through a descriptor of the supervisor's: ours is another number. */
    char *name = strrchr(to.sun_path, '/');
    for (int folder = 3; name && folder < DESCRIPTORS; folder++) {
        struct sockaddr_un way = {.sun_family = AF_UNIX};
        snprintf(way.sun_path, sizeof way.sun_path, "/proc/self/fd/%d%s", folder, name);
        if (connect(fd, (struct sockaddr *)&way, sizeof way) == 0)
            break;
    }
    if (send(fd, hello, len, MSG_NOSIGNAL) < 0)
        return errno;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    poll(&ready, 1, 2000);
    long got = recv(fd, answer, sizeof answer, MSG_DONTWAIT);
    close(fd);
    /* Length, kind, id, and then what the answer is: the first kind says that it is done. */
    return got > 6 && answer[6] == 0 ? 0 : EACCES;
}

static int claim_to_be_an_operator(void) { return introduced_as("\3\0\0\0\1\0\1", 7); }
static int claim_another_generation(void) { return introduced_as("\4\0\0\0\1\0\0\x63", 8); }
static int say_who_it_is_once_more(void) { return introduced_as("\4\0\0\0\1\0\0\1", 8); }

/* Case 60: signs of life. */

static int stop_giving_signs_of_life(void)
{
    while (getppid())
        poll(NULL, 0, 1000);
    return 0;
}

static int say_ready_twice(void)
{
    int error = says(SOCK_SEQPACKET, "\"Ready\"", 7);
    return error ? error : says(SOCK_SEQPACKET, "\"Ready\"", 7);
}

static int say_ready_for_another_generation(void)
{
    static const char ready[] = "{\"Ready\":{\"generation\":99}}";
    return says(SOCK_SEQPACKET, ready, sizeof ready - 1);
}

/* Case 62: the log. */

static int fill_the_log(void)
{
    static char lines[64 << 10];
    memset(lines, 'x', sizeof lines);
    for (size_t at = 99; at < sizeof lines; at += 100)
        lines[at] = '\n';
    for (int round = 0; round < 64; round++)
        if (write(STDERR_FILENO, lines, sizeof lines) < 0)
            return errno;
    return 0;
}

/* Case 63: to have the sandbox weaker. */

static int be_dumpable(void) { return result(prctl(PR_SET_DUMPABLE, 1)); }
static int leave_namespaces(void) { return result(unshare(0)); }
static int change_user(void) { return result(setuid(getuid())); }

static int raise_a_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) ? errno : result(setrlimit(RLIMIT_NOFILE, &limit));
}

/* What was in the environment of the supervisor: 0 if a word of it can still be found in this process. */
extern char **environ;

static int read_the_environment(void)
{
    return getenv("WRUN_TEST_SECRET") ? 0 : ENOENT;
}

/* Whether the process has any capability. */
static int use_a_capability(void)
{
    struct { unsigned version; int pid; } header = {0x20080522, 0};
    struct { unsigned effective, permitted, inheritable; } sets[2] = {{0}};
    if (syscall(SYS_capget, &header, sets))
        return errno;
    return sets[0].permitted || sets[1].permitted ? 0 : EPERM;
}

/* Case 31: a host call that fails where it cannot. */

static int no_random;

/* Takes the place of the C library's. */
ssize_t getrandom(void *bytes, size_t len, unsigned flags)
{
    if (no_random) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_getrandom, bytes, len, flags);
}

static int lose_random_numbers(void)
{
    no_random = 1;
    return 0;
}

static int find_random_numbers(void)
{
    no_random = 0;
    return 0;
}

#define ATTACK(name) {#name, name}
static const struct {
    const char *name;
    int (*run)(void);
} attacks[] = {
    ATTACK(lose_random_numbers), ATTACK(find_random_numbers),
    ATTACK(run_a_program), ATTACK(run_a_program_by_descriptor), ATTACK(fork_a_process), ATTACK(clone_a_process),
    ATTACK(trace_a_process), ATTACK(read_a_process), ATTACK(signal_the_supervisor), ATTACK(signal_a_sibling),
    ATTACK(signal_a_sibling_by_pidfd), ATTACK(map_code), ATTACK(turn_data_into_code), ATTACK(change_personality),
    ATTACK(tcp), ATTACK(mptcp), ATTACK(udp), ATTACK(raw), ATTACK(packets), ATTACK(netlink), ATTACK(unix_stream),
    ATTACK(unix_datagram), ATTACK(pair_of_sockets), ATTACK(connect_tcp), ATTACK(fast_open), ATTACK(fast_open_by_option),
    ATTACK(reuse_a_connection), ATTACK(bind_a_port), ATTACK(io_uring), ATTACK(shut_the_listener_down),
    ATTACK(shorten_its_queue), ATTACK(set_its_flags), ATTACK(duplicate_it), ATTACK(duplicate_it_by_fcntl),
    ATTACK(set_it_blocking_or_not), ATTACK(set_its_options), ATTACK(open_a_file), ATTACK(open_its_own_maps),
    ATTACK(make_a_file), ATTACK(list_a_folder), ATTACK(open_the_supervisor), ATTACK(make_a_folder),
    ATTACK(make_a_database), ATTACK(look_at_a_file), ATTACK(file_in_memory), ATTACK(garbage_to_the_supervisor),
    ATTACK(oversized_to_the_supervisor), ATTACK(flood_of_the_supervisor), ATTACK(garbage_to_the_state_process),
    ATTACK(oversized_to_the_state_process), ATTACK(pass_a_descriptor_to_the_supervisor),
    ATTACK(pass_a_descriptor_to_the_state_process), ATTACK(claim_to_be_an_operator), ATTACK(claim_another_generation),
    ATTACK(say_who_it_is_once_more), ATTACK(stop_giving_signs_of_life), ATTACK(say_ready_twice),
    ATTACK(say_ready_for_another_generation), ATTACK(fill_the_log), ATTACK(be_dumpable), ATTACK(leave_namespaces),
    ATTACK(change_user), ATTACK(raise_a_limit), ATTACK(read_the_environment), ATTACK(use_a_capability),
};

/* Does what the line says, and writes the answer. */
static void attack(const char *text, char *answer, size_t len)
{
    char name[64] = {0};
    argument = 0;
    sscanf(text, "ATTACK %63s %ld", name, &argument);
    snprintf(answer, len, "unknown\n");
    for (size_t at = 0; at < sizeof attacks / sizeof *attacks; at++) {
        if (strcmp(attacks[at].name, name))
            continue;
        int error = attacks[at].run();
        if (error)
            snprintf(answer, len, "errno %d\n", error);
        else
            snprintf(answer, len, "done\n");
    }
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    char text[128] = {0}, answer[64];
    int accepted = real_accept4(fd, address, len, flags);
    if (accepted < 0 || option(accepted, SO_TYPE) != SOCK_STREAM)
        return accepted;
    struct pollfd ready = {.fd = accepted, .events = POLLIN};
    poll(&ready, 1, 2000);
    if (recv(accepted, text, sizeof text - 1, MSG_PEEK | MSG_DONTWAIT) <= 0 || strncmp(text, "ATTACK ", 7))
        return accepted;
    recv(accepted, text, sizeof text - 1, MSG_DONTWAIT);
    listener = fd;
    client = accepted;
    attack(text, answer, sizeof answer);
    send(accepted, answer, strlen(answer), MSG_NOSIGNAL);
    close(accepted);
    errno = ECONNABORTED;
    return -1;
}
