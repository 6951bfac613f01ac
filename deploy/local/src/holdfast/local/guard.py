"""Run a program that must not outlive its parent.

``python guard.py <stop signal> <grace seconds> <program> <argument>…`` starts the program in a session of its own, tells
its process id on descriptor 3, and waits for either of two things: the program ends, or the guard's standard input closes,
which is what the kernel does to the pipe when the parent is gone, SIGKILL included. Then the program gets the signal.
However it ends, all that it leaves behind is killed: two generations of one program must not run side by side.

PostgreSQL refuses to run as root, and as a user without a name. With ``HOLDFAST_GUARD_UNROOT=1`` the guard of such a user
gives its program another identity: a user namespace in which the user's files belong to "nobody", where the kernel allows
one; else, if it is root, the ids of "nobody" themselves, with the one capability that lets them pass through directories
like a 0700 ``/root``.

Standard library only, and run by path: importing a package would cost the start of every program.
"""

import contextlib
import ctypes
import os
import pwd
import selectors
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["NOBODY", "main"]

NOBODY = 65534
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
CAP_DAC_OVERRIDE = 1
LINUX_CAPABILITY_VERSION_3 = 0x20080522
CLONE_NEWUSER = 0x10000000


def main() -> int:
    """Guard one program; returns its exit status."""
    stop_signal, grace_seconds, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    is_unrooting = os.environ.pop("HOLDFAST_GUARD_UNROOT", "") == "1"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the pipe alone decides, so that nothing is left behind
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the program leaves behind becomes the guard's child
    program = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=lambda: _become(is_unrooting)
    )
    os.write(3, f"{program.pid}\n".encode())
    os.close(3)
    _wait(program)
    if program.poll() is None:
        program.send_signal(stop_signal)
        program.send_signal(signal.SIGCONT)  # a paused program would not see it
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(grace_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    status = program.wait()
    _end_orphans()
    return status


def _end_orphans() -> None:
    """Kill and reap adopted children until there are none: a backend of PostgreSQL leads a process group of its own, and
    while one lives the data directory stays locked.
    """
    while orphans := _children():
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan, 0)


def _children() -> list[int]:
    found, me = [], str(os.getpid())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything: fields count from behind it.
            if stat.read_text().rpartition(")")[2].split()[1] == me:
                found.append(int(stat.parent.name))
    return found


def _wait(program: "subprocess.Popen[bytes]") -> None:
    """Return when standard input closes or the program has ended."""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while program.poll() is None:
            if selector.select(timeout=0.1) and not os.read(sys.stdin.fileno(), 1):
                return


def _become(is_unrooting: bool) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if is_unrooting and not _is_ordinary_user() and not _enter_user_namespace() and os.getuid() == 0:
        _drop_to_nobody()
    if sys.platform == "linux":
        # Should the guard itself be killed. After the change of ids, which clears it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _is_ordinary_user() -> bool:
    """What PostgreSQL wants to be run by: not root, and known by name, as a container's ``--user 1000`` is not."""
    try:
        return pwd.getpwuid(os.getuid()).pw_uid != 0
    except KeyError:
        return False


def _drop_to_nobody() -> None:
    """Change the ids for good. Where a capability cannot be kept, the paths must be open to everybody."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc:
        libc.prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    if libc:
        bit = 1 << CAP_DAC_OVERRIDE
        header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
        libc.capset(header, (ctypes.c_uint32 * 6)(bit, bit, bit))  # effective, permitted, inheritable
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def _enter_user_namespace() -> bool:
    """Appear as "nobody" while the files stay root's. False where the kernel or a container forbids it."""
    uid, gid = os.getuid(), os.getgid()
    if sys.platform != "linux" or ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")
    return True


if __name__ == "__main__":
    sys.exit(main())
