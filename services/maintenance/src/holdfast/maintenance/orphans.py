"""No worker process lives on without its master."""

import multiprocessing
import os
import signal
import threading

__all__ = ["stop_with_master"]


def stop_with_master() -> None:
    """Send this process SIGTERM when Dramatiq's master is gone, by whatever end.

    Its workers would go on: beside their successors, with their port, for ever.
    """
    if (master := multiprocessing.parent_process()) is None:
        return

    def stop() -> None:
        master.join()  # on a pipe that the kernel closes with the master, so nothing has to be looked at
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, name="parent-watch", daemon=True).start()
