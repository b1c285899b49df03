//! Which system calls a role needs, and with which arguments.
//!
//! Those whose arguments do not matter are listed in `numbers`.

use super::super::{Needs, Role};
use super::numbers::{EVERYBODY, FATAL, FILES, RESOLVER, SCATTERED, SOCKETS, UNKNOWN};
use libc::{c_int, c_long};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use std::collections::BTreeMap;
use std::os::fd::RawFd;

/// The calls that a program matches; those without a rule it matches whatever their arguments.
pub(in super::super) type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// The flags of clone(2) that every thread has, and no process.
const THREAD: c_int = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;

/// The flags that would put it into namespaces of its own.
const NAMESPACES: c_int = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

/// Returns the calls that end the process.
pub(super) fn fatal() -> Rules {
    let mut rules = Rules::new();
    always(&mut rules, FATAL);
    when(&mut rules, libc::SYS_clone, &[lacks(0, libc::CLONE_THREAD)]);
    rules
}

/// Returns the calls that fail as if the kernel did not have them.
pub(super) fn unknown() -> Rules {
    let mut rules = Rules::new();
    always(&mut rules, UNKNOWN);
    rules
}

/// Returns the calls that are allowed.
pub(super) fn allowed(needs: &Needs) -> Rules {
    let mut rules = Rules::new();
    always(&mut rules, EVERYBODY);
    // The other program has the say: an error here would be as strict as its own.
    always(&mut rules, UNKNOWN);
    memory(&mut rules, needs.role);
    threads(&mut rules);
    match needs.role {
        Role::Worker => {
            always(&mut rules, SOCKETS);
            connections(&mut rules, &needs.listeners);
            outbound(&mut rules, needs);
        }
        Role::State => {
            always(&mut rules, SOCKETS);
            always(&mut rules, FILES);
            // Its event loop comes after its threads' filter.
            always(&mut rules, &[libc::SYS_epoll_create1]);
            connections(&mut rules, &needs.listeners);
            when(&mut rules, libc::SYS_fcntl, &others(&needs.listeners));
            outbound(&mut rules, needs);
            if !needs.ports.is_empty() {
                keepalive(&mut rules);
            }
            if needs.scatters {
                scattered(&mut rules);
            }
        }
        Role::Compile => {
            always(&mut rules, FILES);
            always(&mut rules, &[libc::SYS_fcntl, libc::SYS_memfd_create]);
        }
    }
    rules
}

/// Memory is written or run, never both; in a process that runs guests, none becomes code any more.
fn memory(rules: &mut Rules, role: Role) {
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        when(rules, call, &[lacks(2, libc::PROT_EXEC)]);
        if role == Role::Compile {
            when(rules, call, &[lacks(2, libc::PROT_WRITE)]);
        }
    }
    // What madvise(2) does, for many parts at once; to no other process.
    let own = [
        is(0, number(PIDFD_SELF)),
        is(3, number(libc::MADV_DONTNEED)),
    ];
    when(rules, libc::SYS_process_madvise, &own);
}

fn threads(rules: &mut Rules) {
    let whole = THREAD | NAMESPACES;
    when(rules, libc::SYS_clone, &[masked(0, whole, THREAD)]);
    let own = u64::from(std::process::id());
    when(rules, libc::SYS_tgkill, &[is(0, own)]);
    // To ask for a limit, not to set one.
    when(rules, libc::SYS_prlimit64, &[null(2)]);
    for option in [libc::PR_SET_NAME, PR_SET_VMA] {
        when(rules, libc::SYS_prctl, &[is(0, number(option))]);
    }
}

/// What is done to a connection, but not to a listening socket, which belongs to all workers: shut down by one of them it
/// would be shut for all.
fn connections(rules: &mut Rules, listeners: &[RawFd]) {
    when(rules, libc::SYS_shutdown, &others(listeners));
    for query in [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL] {
        when(rules, libc::SYS_fcntl, &[is(1, number(query))]);
    }
    let duplicate = [is(1, number(libc::F_DUPFD_CLOEXEC))];
    when(
        rules,
        libc::SYS_fcntl,
        &[&duplicate[..], &others(listeners)].concat(),
    );
    // Without an address, and so to who is connected; "fast open" would connect on the way.
    let to_peer = [lacks(3, libc::MSG_FASTOPEN), null(4)];
    when(rules, libc::SYS_sendto, &to_peer);
    let no_delay = [
        is(1, number(libc::IPPROTO_TCP)),
        is(2, number(libc::TCP_NODELAY)),
    ];
    when(
        rules,
        libc::SYS_setsockopt,
        &[&no_delay[..], &others(listeners)].concat(),
    );
}

/// To notice that the other side is gone without a word.
fn keepalive(rules: &mut Rules) {
    for (level, option) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    ] {
        let setting = [is(1, number(level)), is(2, number(option))];
        when(rules, libc::SYS_setsockopt, &setting);
    }
}

/// Messages of several parts. Whose address is behind a pointer: what is not connected is not there, or asks DNS.
fn scattered(rules: &mut Rules) {
    when(rules, libc::SYS_sendmsg, &[lacks(2, libc::MSG_FASTOPEN)]);
    always(rules, SCATTERED);
}

/// What takes a process out of itself: a worker to the places that are granted and to the state process, the state process
/// to the servers that are bound.
fn outbound(rules: &mut Rules, needs: &Needs) {
    if !needs.sockets.is_empty() {
        socket(rules, libc::AF_UNIX, libc::SOCK_STREAM, 0);
    }
    if !needs.ports.is_empty() {
        for family in [libc::AF_INET, libc::AF_INET6] {
            socket(rules, family, libc::SOCK_STREAM, 0);
            socket(rules, family, libc::SOCK_STREAM, libc::IPPROTO_TCP);
        }
    }
    if !needs.sockets.is_empty() || !needs.ports.is_empty() {
        always(rules, &[libc::SYS_connect]);
    }
    if needs.resolves {
        resolver(rules);
    }
}

/// UDP to whomever, and files, which `access` names.
fn resolver(rules: &mut Rules) {
    always(rules, RESOLVER);
    for family in [libc::AF_INET, libc::AF_INET6] {
        socket(rules, family, libc::SOCK_DGRAM, 0);
        socket(rules, family, libc::SOCK_DGRAM, libc::IPPROTO_UDP);
    }
    let writes = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    when(rules, libc::SYS_openat, &[lacks(2, writes)]);
    when(rules, libc::SYS_sendmmsg, &[lacks(3, libc::MSG_FASTOPEN)]);
    for (level, option) in [
        (libc::IPPROTO_IP, libc::IP_RECVERR),
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    ] {
        let setting = [is(1, number(level)), is(2, number(option))];
        when(rules, libc::SYS_setsockopt, &setting);
    }
    when(rules, libc::SYS_ioctl, &[is(1, FIONREAD)]);
}

/// Allows sockets of a kind; `kind` is without the two flags that may come with it.
fn socket(rules: &mut Rules, family: c_int, kind: c_int, protocol: c_int) {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let wanted = [
        is(0, number(family)),
        masked(1, !flags, kind),
        is(2, number(protocol)),
    ];
    when(rules, libc::SYS_socket, &wanted);
}

/// Any descriptor but these.
fn others(descriptors: &[RawFd]) -> Vec<SeccompCondition> {
    let differs = |&fd: &RawFd| condition(0, SeccompCmpOp::Ne, number(fd));
    match descriptors {
        // A rule has at least one condition; this one always holds.
        [] => vec![condition(0, SeccompCmpOp::Ge, 0)],
        some => some.iter().map(differs).collect(),
    }
}

fn always(rules: &mut Rules, calls: &[c_long]) {
    for &call in calls {
        rules.insert(call, Vec::new());
    }
}

/// Adds a way in which a call matches. One that matches whatever its arguments goes on to do so.
fn when(rules: &mut Rules, call: c_long, conditions: &[SeccompCondition]) {
    if rules.get(&call).is_some_and(Vec::is_empty) {
        return;
    }
    let rule = SeccompRule::new(conditions.to_vec()).expect("there is a condition");
    rules.entry(call).or_default().push(rule);
}

/// The argument is this number; the kernel looks at 32 bits of it.
fn is(argument: u8, value: u64) -> SeccompCondition {
    condition(argument, SeccompCmpOp::Eq, value)
}

/// The argument has none of these bits.
fn lacks(argument: u8, bits: c_int) -> SeccompCondition {
    masked(argument, bits, 0)
}

/// Of these bits the argument has just those of `value`.
fn masked(argument: u8, bits: c_int, value: c_int) -> SeccompCondition {
    condition(
        argument,
        SeccompCmpOp::MaskedEq(number(bits)),
        number(value),
    )
}

/// The argument is a null pointer.
fn null(argument: u8) -> SeccompCondition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
        .expect("a call has six arguments")
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
        .expect("a call has six arguments")
}

/// The 32 bits of a number, as the kernel compares them.
fn number(value: c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

/// The calling process, where a pidfd is asked for.
const PIDFD_SELF: c_int = -10_000;

/// Names a part of memory for `/proc/PID/maps`: the allocator does.
const PR_SET_VMA: c_int = 0x5356_4d41;

/// How much there is to read.
const FIONREAD: u64 = 0x541b;
