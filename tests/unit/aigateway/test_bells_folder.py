"""The folder of a server's bells: there while it lives, and not left for ever by one that was killed."""

import subprocess
import sys
from pathlib import Path

from aigateway.bells_folder import bells_folder

HOLD = "import sys\nfrom aigateway.bells_folder import bells_folder\nwith bells_folder() as at:\n    print(at, flush=True)\n    sys.stdin.read()"


def test_what_a_killed_server_left_goes_when_another_starts() -> None:
    with subprocess.Popen([sys.executable, "-P", "-c", HOLD], stdin=-1, stdout=-1, text=True) as server:
        assert server.stdout
        left = Path(server.stdout.readline().strip())
        with bells_folder() as own:
            assert left.is_dir() and own.is_dir() and own != left
        assert left.is_dir() and not own.exists()
        server.kill()
        server.wait()
    with bells_folder() as own:
        assert own.is_dir() and not left.exists()
    assert not own.exists()
