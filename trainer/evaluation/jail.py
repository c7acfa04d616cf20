"""The inside of the sandbox: a script that gives up every right it can, runs one program, and says how it ended.

Run as `python -I -S jail.py FOLDER FD LIMITS` with the program on standard input; it imports the standard library only.
Rights go in this order: resource limits, the file system but FOLDER (Landlock), then system calls (seccomp: sockets,
processes, signals, other people's files' attributes, its own limits). The outcome is one JSON line on FD. A program
that ends the interpreter itself never gets to "passed". It shares this interpreter, so one that is written against
this very file could forge its outcome; it could still not get out.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = 1, 38
CLONE_THREAD = 0x10000
LOAD, JUMP_EQUAL, JUMP_FROM, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

# Numbers of linux/arch/{x86/entry/syscalls/syscall_64.tbl, arm64 = include/uapi/asm-generic/unistd.h}.
REFUSED = {
    "x86_64": (
        *(41, 425),  # socket, io_uring_setup
        *(57, 58, 59, 322),  # fork, vfork, execve, execveat
        *(62, 200, 234, 129, 297, 424, 434),  # kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_*
        *(101, 310, 311, 298, 321, 323),  # ptrace, process_vm_*, perf_event_open, bpf, userfaultfd
        *(160, 302, 29, 64, 68, 319),  # setrlimit, prlimit64, shmget, semget, msgget, memfd_create
        *(90, 91, 268, 452, 92, 93, 94, 260, 188, 189, 190),  # chmod…, chown…, setxattr…
        *(132, 235, 261, 280),  # utime…
        *(272, 308, 155, 161, 165, 166, 248, 249, 250),  # unshare, setns, pivot_root, chroot, mount…, keys
        *(164, 227, 167, 168, 169, 170, 175, 176, 246, 313),  # clocks, swap, reboot, names, modules, kexec
    ),
    "aarch64": (
        *(198, 425),
        *(221, 281),
        *(129, 130, 131, 138, 240, 424, 434),
        *(117, 270, 271, 241, 280, 282),
        *(164, 261, 194, 190, 186, 279),
        *(52, 53, 452, 54, 55, 5, 6, 7),
        *(88,),
        *(97, 268, 41, 51, 40, 39, 217, 218, 219),
        *(170, 112, 224, 225, 142, 161, 105, 106, 104, 273),
    ),
}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE, CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
X32_BIT = 0x40000000

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
LANDLOCK_VERSIONS_WITH_TRUNCATE = 3
READING = 0b1101  # execute (libraries are mapped), read files, read folders
EVERYTHING = (1 << 15) - 1
READABLE = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom")


def limit_resources(limits: dict[str, int]) -> None:
    """CPU seconds, bytes of address space and of a file, open files, processes; no core dumps."""
    for name, value in {**limits, "CORE": 0}.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def close_file_system(libc: ctypes.CDLL, folder: str) -> bool:
    """Landlock: Python and the system's libraries may be read, `folder` used. False where it cannot be had."""
    if libc.syscall(LANDLOCK_CREATE, None, 0, 1) < LANDLOCK_VERSIONS_WITH_TRUNCATE:
        return False
    rules = libc.syscall(LANDLOCK_CREATE, struct.pack("Q", EVERYTHING), 8, 0)
    prefixes = {sys.base_prefix, sys.prefix, os.path.dirname(os.path.realpath(sys.executable))}
    for path, rights in [(folder, EVERYTHING), *((path, READING) for path in (*prefixes, *READABLE))]:
        if os.path.exists(path):
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            kept = rights if os.path.isdir(path) else rights & 0b101
            libc.syscall(LANDLOCK_ADD, rules, 1, struct.pack("=Qi", kept, handle), 0)
            os.close(handle)
    done = libc.syscall(LANDLOCK_RESTRICT, rules, 0) == 0
    os.close(rules)
    return bool(done)


def close_system_calls(libc: ctypes.CDLL) -> bool:
    """seccomp: what is refused gives EPERM; threads may begin, processes may not. False where it is not to be had."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return False
    steps = [
        (LOAD, 0, 0, 4),
        (JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),
        (JUMP_FROM, 0, 1, X32_BIT),
        (RETURN, 0, 0, REFUSE | EPERM),
        (JUMP_EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, REFUSE | ENOSYS),
    ]
    for number in REFUSED[machine]:
        steps += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | EPERM)]
    steps += [
        (JUMP_EQUAL, 0, 3, CLONE[machine]),
        (LOAD, 0, 0, 16),
        (JUMP_SET, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, REFUSE | EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    return bool(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) == 0)


def run_program(source: str) -> dict[str, object]:
    """Run it as `__main__`; whatever it raises is how it ended."""
    try:
        exec(compile(source, "program", "exec"), {"__name__": "__main__"})
    except BaseException as error:
        return {"passed": False, "reason": f"{type(error).__name__}: {error}"[:300]}
    return {"passed": True, "reason": ""}


def main() -> None:
    folder, result, limits = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    source = sys.stdin.buffer.read().decode("utf-8")
    guards = {"files": False, "calls": False}
    limit_resources(limits)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        guards["files"] = close_file_system(libc, folder)
        guards["calls"] = close_system_calls(libc)
    line = json.dumps({"guards": guards, **run_program(source)})
    os.write(result, line.encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    main()
