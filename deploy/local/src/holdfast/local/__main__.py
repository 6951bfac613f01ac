"""``python -m holdfast.local``: see :mod:`holdfast.local.command`."""

import signal
import sys


def main() -> int:
    """Run the command line; importing it takes a second or more, in which Ctrl-C ends the process without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from holdfast.local import command

    return command.main()


if __name__ == "__main__":
    sys.exit(main())
