// Runs a program and makes chosen calls of it on the files of one folder fail.
//
//   faults DIR RULES TRACE -- PROGRAM ARGS...
//
// DIR    the folder, absolute; calls on other files are left alone.
// RULES  a file, read again whenever it was replaced. One rule a line:
//            CALLS GLOB ERROR [after=N] [count=N]
//        CALLS  names of the table below, separated by commas, or *.
//        GLOB   of the path relative to DIR, as fnmatch(3) has it; * matches slashes, too. The folder
//               itself is ".".
//        ERROR  EIO, ENOSPC, EROFS, EACCES or EMFILE.
//        after  that many matching calls succeed first; count: that many fail, then it is over.
//        The first rule that matches decides.
// TRACE  a file that gets one line for each call on a file of DIR: CALL PATH POSITION BYTES RESULT,
//        the result being "ok" for what went to the kernel.
//
// The program's own code makes system calls without the C library, so that a preloaded library would
// not see them. Instead a seccomp filter has the kernel ask for each: the program becomes this process,
// its number included, and the one that answers is its child, which ends with it. A call that is to
// fail is never made.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "say how this machine is called in linux/audit.h"
#endif

// Where a call says which file it means, and which bytes of it. -1: it does not.
struct call {
    long number;
    const char *name;
    int descriptor; // the argument with the file, or with the folder that `path` is relative to
    int path;
    int position;
    int bytes;
    int vectored; // `bytes` counts buffers, which the argument before it points to
};

static const struct call CALLS[] = {
    {__NR_openat, "open", 0, 1, -1, -1, 0},
    {__NR_pread64, "read", 0, -1, 3, 2, 0},
    {__NR_preadv, "read", 0, -1, 3, 2, 1},
    {__NR_preadv2, "read", 0, -1, 3, 2, 1},
    {__NR_pwrite64, "write", 0, -1, 3, 2, 0},
    {__NR_pwritev, "write", 0, -1, 3, 2, 1},
    {__NR_pwritev2, "write", 0, -1, 3, 2, 1},
    {__NR_fsync, "sync", 0, -1, -1, -1, 0},
    {__NR_fdatasync, "sync", 0, -1, -1, -1, 0},
    {__NR_syncfs, "syncfs", 0, -1, -1, -1, 0},
    {__NR_sync_file_range, "writeout", 0, -1, 1, 2, 0},
    {__NR_fallocate, "allocate", 0, -1, 2, 3, 0},
    {__NR_ftruncate, "truncate", 0, -1, 1, -1, 0},
#ifdef __NR_open
    {__NR_open, "open", -1, 0, -1, -1, 0},
    {__NR_rename, "rename", -1, 0, -1, -1, 0},
    {__NR_unlink, "unlink", -1, 0, -1, -1, 0},
    {__NR_rmdir, "unlink", -1, 0, -1, -1, 0},
    {__NR_mkdir, "mkdir", -1, 0, -1, -1, 0},
#endif
#ifdef __NR_renameat
    {__NR_renameat, "rename", 0, 1, -1, -1, 0},
#endif
    {__NR_renameat2, "rename", 0, 1, -1, -1, 0},
    {__NR_unlinkat, "unlink", 0, 1, -1, -1, 0},
    {__NR_mkdirat, "mkdir", 0, 1, -1, -1, 0},
};
enum { CALL_COUNT = sizeof CALLS / sizeof CALLS[0], RULES_MAX = 64, BUFFERS_MAX = 1024 };

static const struct { const char *name; int number; } ERRORS[] = {
    {"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EROFS", EROFS}, {"EACCES", EACCES}, {"EMFILE", EMFILE},
};

struct rule {
    char calls[128];
    char glob[PATH_MAX];
    const char *error_name;
    int error;
    long after;
    long count; // -1: without end
};

static struct rule rules[RULES_MAX];
static int rule_count;
static struct stat rules_seen;

static void die(const char *what) {
    fprintf(stderr, "faults: %s: %s\n", what, strerror(errno));
    exit(125);
}

// --- rules ---

static void read_rules(const char *file) {
    struct stat now;
    if (stat(file, &now) != 0) {
        rule_count = 0;
        memset(&rules_seen, 0, sizeof rules_seen);
        return;
    }
    if (now.st_ino == rules_seen.st_ino && now.st_mtim.tv_sec == rules_seen.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == rules_seen.st_mtim.tv_nsec)
        return;
    rules_seen = now;
    rule_count = 0;
    FILE *in = fopen(file, "re");
    char *line = NULL;
    size_t room = 0;
    while (in && rule_count < RULES_MAX && getline(&line, &room, in) >= 0) {
        struct rule *rule = &rules[rule_count];
        char error[32];
        int used = 0;
        if (sscanf(line, "%127s %4095s %31s%n", rule->calls, rule->glob, error, &used) != 3)
            continue;
        rule->error = 0;
        for (size_t i = 0; i < sizeof ERRORS / sizeof ERRORS[0]; i++)
            if (strcmp(error, ERRORS[i].name) == 0) {
                rule->error = ERRORS[i].number;
                rule->error_name = ERRORS[i].name;
            }
        const char *after = strstr(line + used, "after="), *count = strstr(line + used, "count=");
        rule->after = after ? atol(after + 6) : 0;
        rule->count = count ? atol(count + 6) : -1;
        if (rule->error != 0)
            rule_count++;
    }
    free(line);
    if (in)
        fclose(in);
}

static int names_call(const char *calls, const char *name) {
    size_t length = strlen(name);
    for (const char *at = calls; *at; at += strcspn(at, ","), at += *at == ',')
        if (*at == '*' || (strcspn(at, ",") == length && strncmp(at, name, length) == 0))
            return 1;
    return 0;
}

static const struct rule *decide(const char *name, const char *path) {
    for (int i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (!names_call(rule->calls, name) || fnmatch(rule->glob, path, 0) != 0)
            continue;
        if (rule->after > 0) {
            rule->after--;
            return NULL;
        }
        if (rule->count == 0)
            continue;
        if (rule->count > 0)
            rule->count--;
        return rule;
    }
    return NULL;
}

// --- what a call means ---

static size_t read_memory(pid_t pid, uint64_t address, void *into, size_t bytes) {
    struct iovec local = {into, bytes}, remote = {(void *)(uintptr_t)address, bytes};
    ssize_t got = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    return got < 0 ? 0 : (size_t)got;
}

// A string may end shortly before memory that is not there: page by page.
static int read_string(pid_t pid, uint64_t address, char *into, size_t room) {
    size_t done = 0;
    while (done < room) {
        size_t step = 4096 - ((address + done) & 4095);
        if (step > room - done)
            step = room - done;
        size_t got = read_memory(pid, address + done, into + done, step);
        if (memchr(into + done, 0, got))
            return 1;
        if (got < step)
            return 0;
        done += got;
    }
    return 0;
}

static int descriptor_path(pid_t pid, int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return 1;
}

// The path relative to `dir`, or NULL for a file elsewhere.
static const char *path_of(const struct seccomp_notif *asked, const struct call *call,
                           const char *dir, char *path) {
    pid_t pid = (pid_t)asked->pid;
    if (call->path < 0) {
        if (!descriptor_path(pid, (int)asked->data.args[call->descriptor], path))
            return NULL;
    } else {
        char given[PATH_MAX];
        if (!read_string(pid, asked->data.args[call->path], given, sizeof given))
            return NULL;
        if (given[0] == '/') {
            strcpy(path, given);
        } else {
            int folder = call->descriptor < 0 ? AT_FDCWD : (int)asked->data.args[call->descriptor];
            if (folder == AT_FDCWD || !descriptor_path(pid, folder, path))
                return NULL;
            size_t length = strlen(path);
            if (snprintf(path + length, PATH_MAX - length, "/%s", given) >= (int)(PATH_MAX - length))
                return NULL;
        }
    }
    size_t length = strlen(dir);
    if (strncmp(path, dir, length) != 0)
        return NULL;
    if (path[length] == 0)
        return ".";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static long long bytes_of(const struct seccomp_notif *asked, const struct call *call) {
    if (call->bytes < 0)
        return 0;
    uint64_t count = asked->data.args[call->bytes];
    if (!call->vectored)
        return (long long)count;
    static struct iovec buffers[BUFFERS_MAX];
    if (count > BUFFERS_MAX)
        return -1;
    size_t size = count * sizeof buffers[0];
    if (read_memory((pid_t)asked->pid, asked->data.args[call->bytes - 1], buffers, size) != size)
        return -1;
    long long bytes = 0;
    for (uint64_t i = 0; i < count; i++)
        bytes += (long long)buffers[i].iov_len;
    return bytes;
}

// --- the one who answers ---

static void answer(int listener, const char *dir, const char *rules_file, int trace) {
    static struct seccomp_notif asked;
    static char path[PATH_MAX], line[PATH_MAX + 128];
    for (;;) {
        struct pollfd waiting = {listener, POLLIN, 0};
        if (poll(&waiting, 1, -1) < 0 && errno != EINTR)
            return;
        if (waiting.revents & (POLLHUP | POLLERR))
            return; // nobody is left to ask
        memset(&asked, 0, sizeof asked);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0)
            continue; // who asked was killed
        const struct call *call = NULL;
        for (int i = 0; i < CALL_COUNT; i++)
            if (CALLS[i].number == asked.data.nr)
                call = &CALLS[i];
        struct seccomp_notif_resp reply = {asked.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        const char *relative = call ? path_of(&asked, call, dir, path) : NULL;
        if (relative) {
            read_rules(rules_file);
            const struct rule *rule = decide(call->name, relative);
            if (rule) {
                reply.error = -rule->error;
                reply.flags = 0;
            }
            long long position = call->position < 0 ? -1 : (long long)asked.data.args[call->position];
            int length = snprintf(line, sizeof line, "%s %s %lld %lld %s\n", call->name, relative,
                                  position, bytes_of(&asked, call), rule ? rule->error_name : "ok");
            // Before the call goes on: who sees its effect finds it in the trace.
            if (write(trace, line, (size_t)length) < 0)
                return;
        }
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
    }
}

// --- the filter ---

static int install(void) {
    static struct sock_filter filter[CALL_COUNT + 6];
    int at = 0;
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                offsetof(struct seccomp_data, arch));
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                offsetof(struct seccomp_data, nr));
    for (int i = 0; i < CALL_COUNT; i++)
        filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                    (uint32_t)CALLS[i].number, CALL_COUNT - i, 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {(unsigned short)at, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        die("prctl");
    long listener = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER,
                            SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0)
        die("seccomp");
    return (int)listener;
}

static void hand_over(int socket, int descriptor) {
    char byte = 0, space[CMSG_SPACE(sizeof descriptor)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space,
                             .msg_controllen = sizeof space};
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(control), &descriptor, sizeof descriptor);
    if (sendmsg(socket, &message, 0) != 1)
        die("sendmsg");
}

static int taken_over(int socket) {
    int descriptor = -1;
    char byte, space[CMSG_SPACE(sizeof descriptor)];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space,
                             .msg_controllen = sizeof space};
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message))
        exit(125);
    memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof descriptor);
    return descriptor;
}

int main(int argc, char **argv) {
    if (argc < 6 || strcmp(argv[4], "--") != 0 || argv[1][0] != '/') {
        fprintf(stderr, "usage: faults /DIR RULES TRACE -- PROGRAM ARGS...\n");
        return 125;
    }
    // Paths of descriptors come without links in them.
    char dir[PATH_MAX];
    if (!realpath(argv[1], dir))
        die(argv[1]);
    int trace = open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (trace < 0)
        die(argv[3]);
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
        die("socketpair");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        close(sockets[0]);
        setsid(); // a Ctrl-C is the program's
        int listener = taken_over(sockets[1]);
        // Whoever waits for the end of the program's output must not wait for this one.
        for (int descriptor = 0; descriptor < 3; descriptor++)
            close(descriptor);
        answer(listener, dir, argv[2], trace);
        return 0;
    }
    close(sockets[1]);
    int listener = install();
    hand_over(sockets[0], listener);
    close(listener);
    execvp(argv[5], argv + 5);
    die(argv[5]);
}
