"""Run a server that must not outlive its parent.

``python guard.py <signal> <program> <argument>…`` starts the program and waits for either of two things: the program
ends, or the guard's standard input closes, which is what the kernel does to the pipe when the parent is gone, SIGKILL included. Then the
program gets ``signal``, and SIGKILL when it has not ended ten seconds later.

PostgreSQL refuses to run as root. A guard that is root gives its server another identity: a user namespace in which
root's files belong to "nobody", where the kernel allows one, else the ids of "nobody" themselves.

Standard library only, and run by path: importing a package would cost the start of every server.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

NOBODY = 65534
GRACE_SECONDS = 10
PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000


def main() -> int:
    """Guard one program; returns its exit status."""
    stop_signal, command = int(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the pipe alone decides, so that no server is left behind
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_become_servant)
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    _wait(server)
    if server.poll() is None:
        server.send_signal(stop_signal)
        try:
            server.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
    return server.wait()


def _wait(server: "subprocess.Popen[bytes]") -> None:
    """Return when standard input closes or the server has ended."""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while server.poll() is None:
            if selector.select(timeout=0.2) and not os.read(sys.stdin.fileno(), 1):
                return


def _become_servant() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.getuid() == 0 and not _enter_user_namespace():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if sys.platform == "linux":
        # Should the guard itself be killed. After the change of ids, which clears it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _enter_user_namespace() -> bool:
    """Appear as "nobody" while the files stay root's. False where the kernel or a container forbids it."""
    uid, gid = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")
    return True


if __name__ == "__main__":
    sys.exit(main())
