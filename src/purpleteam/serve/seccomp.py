"""Filters of system calls for this process and all that it starts: seccomp(2), by ctypes alone.

A filter is a program in classic BPF over number and arguments of each call; once in, it stays. It
knows Linux on x86_64 and aarch64, and calls by the numbers of the kernel's own tables.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

NO_NEW_PRIVS = 38  # PR_SET_NO_NEW_PRIVS
ALL_THREADS = 1  # SECCOMP_FILTER_FLAG_TSYNC
LOAD, AND, JUMP, EQUAL, GREATER, RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x06
ALLOW, KILL, REFUSE, UNKNOWN = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
MACHINES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
"""By machine: its number in the kernel's audit records, and that of the call `seccomp`."""
NEWEST = 469
"""The last call that CALLS was made with, of Linux 6.17; what came later is refused unseen."""


class Where(NamedTuple):
    """What must be true of an argument of a call, of the lower 32 bits of it."""

    argument: int  # from 0
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    among: bool = True  # it is one of the values; else it is none of them


CALLS = """
execve=59/221 execveat=322/281 fork=57 vfork=58 clone=56/220 clone3=435/435

open=2 openat=257/56 openat2=437/437 creat=85 open_by_handle_at=304/265
name_to_handle_at=303/264 memfd_create=319/279 memfd_secret=447/447

truncate=76/45 ftruncate=77/46 fallocate=285/47 rename=82 renameat=264/38 renameat2=316/276
mkdir=83 mkdirat=258/34 rmdir=84 link=86 linkat=265/37 unlink=87 unlinkat=263/35
symlink=88 symlinkat=266/36 mknod=133 mknodat=259/33 chmod=90 fchmod=91/52 fchmodat=268/53
fchmodat2=452/452 chown=92 fchown=93/55 lchown=94 fchownat=260/54 setxattr=188/5 lsetxattr=189/6
fsetxattr=190/7 removexattr=197/14 lremovexattr=198/15 fremovexattr=199/16 setxattrat=463/463
removexattrat=466/466 file_setattr=469/469 utime=132 utimes=235 utimensat=280/88 futimesat=261

socket=41/198 socketpair=53/199 connect=42/203 bind=49/200

ptrace=101/117 process_vm_readv=310/270 process_vm_writev=311/271 process_madvise=440/440
process_mrelease=448/448 kcmp=312/272 pidfd_open=434/434 pidfd_getfd=438/438
pidfd_send_signal=424/424 rt_sigqueueinfo=129/138 rt_tgsigqueueinfo=297/240 kill=62/129
tkill=200/130 tgkill=234/131 prlimit64=302/261 migrate_pages=256/238 move_pages=279/239
shmget=29/194 shmat=30/196 shmctl=31/195 semget=64/190 semop=65/193 semtimedop=220/192
semctl=66/191 msgget=68/186 msgsnd=69/189 msgrcv=70/188 msgctl=71/187 mq_open=240/180
mq_unlink=241/181

bpf=321/280 perf_event_open=298/241 userfaultfd=323/282 io_uring_setup=425/425
io_uring_enter=426/426 io_uring_register=427/427 io_setup=206/0 io_submit=209/2 keyctl=250/219
add_key=248/217 request_key=249/218 init_module=175/105 finit_module=313/273
delete_module=176/106 kexec_load=246/104 kexec_file_load=320/294 reboot=169/142 syslog=103/116
acct=163/89 quotactl=179/60 quotactl_fd=443/443 swapon=167/224 swapoff=168/225
settimeofday=164/170 clock_settime=227/112 clock_adjtime=305/266 adjtimex=159/171
sethostname=170/161 setdomainname=171/162 iopl=172 ioperm=173 personality=135/92 modify_ldt=154
lookup_dcookie=212/18 vhangup=153/58 nfsservctl=180/42 fanotify_init=300/262
fanotify_mark=301/263 ioctl=16/29

mount=165/40 umount2=166/39 mount_setattr=442/442 move_mount=429/429 open_tree=428/428
open_tree_attr=467/467 fsopen=430/430 fsconfig=431/431 fsmount=432/432 fspick=433/433
pivot_root=155/41 chroot=161/51 unshare=272/97 setns=308/268 statmount=457/457 listmount=458/458

setuid=105/146 setgid=106/144 setreuid=113/145 setregid=114/143 setresuid=117/147
setresgid=119/149 setfsuid=122/151 setfsgid=123/152 setgroups=116/159 capset=126/91

mmap=9/222 mprotect=10/226 pkey_mprotect=329/288
"""
"""Calls by what they are for (to execute, open, change, connect, meddle with other processes or
the kernel, move, gain rights, get memory), with the number on x86_64/aarch64, where there is one.
"""


def supported() -> bool:
    """Say whether this module knows the calls of this machine."""
    return sys.platform == "linux" and platform.machine() in MACHINES


def calls() -> dict[str, int]:
    """Return the numbers of CALLS on this machine, by name."""
    place = list(MACHINES).index(platform.machine())
    rows = (part.partition("=") for part in CALLS.split())
    numbers = {name: number.split("/")[place : place + 1] for name, _, number in rows}
    return {name: int(number[0]) for name, number in numbers.items() if number}


def program(
    refused: Iterable[str],
    allowed: Mapping[str, tuple[Where, ...]] = {},
    verdict: int = REFUSE,
) -> bytes:
    """Return the filter that gives the `refused` calls the verdict and lets others through.

    Of the `allowed` only those come through of which all is true that is asked. Calls by the
    numbers of another architecture end the process; calls newer than CALLS do not exist.
    """
    machine, numbers = MACHINES[platform.machine()][0], calls()
    rules = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, machine), (RETURN, 0, 0, KILL)]
    rules += [(LOAD, 0, 0, 0), (GREATER, 0, 1, NEWEST), (RETURN, 0, 0, UNKNOWN)]
    for name in filter(numbers.__contains__, allowed):
        tests = []
        for argument, values, mask, among in allowed[name]:
            tests += [(LOAD, 0, 0, 16 + 8 * argument), (AND, 0, 0, mask)]
            tests += [(EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
            tests += [] if among else [(JUMP, 0, 0, 1)]
            tests += [(RETURN, 0, 0, verdict)]
        rules += [(EQUAL, 0, len(tests) + 1, numbers[name]), *tests, (RETURN, 0, 0, ALLOW)]
    for name in filter(numbers.__contains__, refused):
        # glibc falls back on the old call where a new one does not exist
        told = UNKNOWN if name in ("clone3", "openat2") else verdict
        rules += [(EQUAL, 0, 1, numbers[name]), (RETURN, 0, 0, told)]
    return b"".join(struct.pack("HBBI", *rule) for rule in [*rules, (RETURN, 0, 0, ALLOW)])


def install(rules: bytes) -> None:
    """Put a filter on all threads of this process, which gives up new rights; OSError if not."""
    held = ctypes.create_string_buffer(rules)
    asked = struct.pack("HxxxxxxP", len(rules) // 8, ctypes.addressof(held))
    call("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    call(MACHINES[platform.machine()][1], 1, ALL_THREADS, asked)  # 1 is SECCOMP_SET_MODE_FILTER


def call(function: str | int, *arguments: object) -> int:
    """Call a function of the C library, or a system call by its number; a failure is an OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(part) if isinstance(part, int) else part for part in arguments]
    if isinstance(function, int):
        result = libc.syscall(ctypes.c_long(function), *words)
    else:
        result = getattr(libc, function)(*words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)
