"""The program of a forwarder process: `python -m trioproxy.process.child --control-fd N`.

Started by the supervisor, and by nobody else. Exits with 0 after a drain, with 1 when it could not work.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys


def main() -> int:
    """Forward until the supervisor says otherwise, or is gone."""
    # A terminal's Ctrl-C and a service manager's SIGTERM reach the whole group: what they mean the supervisor decides.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="trioproxy.process.child", description="A forwarder of a running trioproxy.")
    parser.add_argument("--control-fd", type=int, required=True, help="a socket that leads to the supervisor")
    arguments = parser.parse_args()
    # Only now: a signal during the imports, which take longest, would have ended it.
    import trio  # noqa: PLC0415

    from trioproxy.process.apart import forward_apart  # noqa: PLC0415

    with socket.socket(fileno=arguments.control_fd) as control:
        control.set_inheritable(False)
        return trio.run(forward_apart, control)


if __name__ == "__main__":
    sys.exit(main())
