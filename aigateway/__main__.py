"""`python -m aigateway`: the same program as the `aigateway` script."""

import sys
from pathlib import Path


def leave_working_folder() -> None:
    """Take the working folder, which `-m` puts first, out of the search path, or a user's own `api` would be taken for ours.

    It stays where this very package lies in it: in a checkout that is installed nowhere.
    """
    if sys.flags.safe_path or not sys.path:
        return
    first = Path(sys.path[0] or ".").resolve()
    if first == Path.cwd() and first != Path(__file__).resolve().parents[1]:
        del sys.path[0]


if __name__ == "__main__":
    leave_working_folder()
    from aigateway.cli.main import main

    main()
