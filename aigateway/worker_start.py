"""What `serve` and `worker` start where they do not fork: a worker process, or with `--template` the process that forks them.

A worker is tied to its parent before anything else is loaded: loading takes most of a second, and a parent that is killed in that
time must not leave one behind. A template looks at the end of its parent as soon as it has loaded everything.
"""

import argparse
import socket
import sys
import threading

from worker.parent import end_with_parent


def _start() -> None:
    parser = argparse.ArgumentParser(description="A process of `aigateway serve` or `aigateway worker`.")
    parser.add_argument("--config", help="the configuration file")
    parser.add_argument("--template", type=int, metavar="FD", help="fork workers as told on this socket")
    told, arguments = parser.parse_known_args()
    if told.template is None:
        threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
        from aigateway.worker_process import load  # noqa: PLC0415 - see above

        sys.exit(load(told.config)(arguments))

    from aigateway.worker_process import load  # noqa: PLC0415 - the same
    from worker.template import be_template  # noqa: PLC0415 - the same

    be_template(socket.socket(fileno=told.template), lambda: load(told.config))


if __name__ == "__main__":
    _start()
