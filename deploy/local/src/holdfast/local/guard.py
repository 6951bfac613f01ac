"""Run a program that must not outlive its parent.

``python guard.py <stop signal> <grace seconds> <program> <argument>…`` starts the program in a session of its own, tells
its process id on descriptor 3, and waits for either of two things: the program ends, or the guard's standard input closes,
which is what the kernel does to the pipe when the parent is gone, SIGKILL included. Then the program gets the signal, and
after the grace all that is left of its process group is killed.

PostgreSQL refuses to run as root. With ``HOLDFAST_GUARD_UNROOT=1`` a guard that is root gives its program another identity: a
user namespace in which root's files belong to "nobody", where the kernel allows one, else the ids of "nobody" themselves.

Standard library only, and run by path: importing a package would cost the start of every program.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

NOBODY = 65534
PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000


def main() -> int:
    """Guard one program; returns its exit status."""
    stop_signal, grace_seconds, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    is_unrooting = os.environ.pop("HOLDFAST_GUARD_UNROOT", "") == "1"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the pipe alone decides, so that nothing is left behind
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=lambda: _become(is_unrooting)
    )
    os.write(3, f"{program.pid}\n".encode())
    os.close(3)
    _wait(program)
    if program.poll() is None:
        program.send_signal(stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(grace_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    return program.wait()


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
    if is_unrooting and os.getuid() == 0 and not _enter_user_namespace():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if sys.platform == "linux":
        # Should the guard itself be killed. After the change of ids, which clears it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


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
