"""Install what an environment needs with pip: sizes first, progress, failures in a sentence.

usage: install_packages.py runtime|demo|dev      runs on the environment's own interpreter

torch is the one large part. A machine without an NVIDIA GPU gets its CPU build (0.2 GB to
download, 0.8 GB on disk) instead of the CUDA build (2.7 GB, 5 GB on disk): the one that the
configured pip finds, else the one of torch's own index, else, when neither can be reached, the
ordinary build, after a line that says how large it is.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import platform
import pwd
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.parse
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {"runtime": "", "demo": "[demo]", "dev": "[dev]"}
PURPOSES = {
    "runtime": "",
    "demo": " and what the demo trains with",
    "dev": " and what its tests need",
}
QUIET_SECONDS = 8.0
"""A line at least this often where no terminal shows a live one."""


class Failed(Exception):
    """pip could not install; the message is for the user."""


def pinned(name: str) -> str:
    """``name==version`` as constraints.txt has it."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def torch_index() -> str:
    """The address of torch's index of CPU builds; the Dockerfile is where it is written."""
    found = re.search(r"^ARG TORCH_INDEX=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if found is None:
        raise Failed("the Dockerfile names no TORCH_INDEX")
    return found[1]


def reachable(address: str, seconds: float = 3.0) -> bool:
    """Whether the address' host accepts connections, directly or through the configured proxy."""
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy")):
        return True
    parts = urllib.parse.urlsplit(address)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), seconds):
            return True
    except OSError:
        return False


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU with a driver."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def wants_torch(what: str) -> bool:
    """Whether an environment of this kind trains, by the markers of pyproject.toml."""
    if what == "runtime":
        return False
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [one for one in project["optional-dependencies"][what] if one.startswith("torch")]
    newest = re.search(r"python_version < '3\.(\d+)'", "".join(wanted))
    return bool(wanted) and (newest is None or sys.version_info < (3, int(newest[1])))


def install_torch() -> None:
    """Install the build of torch that fits this machine."""
    wanted = pinned("torch")
    if importlib.util.find_spec("torch") is not None:
        return
    if has_gpu():
        say("this machine has an NVIDIA GPU: torch with CUDA (2.7 GB to download, 5 GB on disk)")
        pip("torch", wanted)
        return
    if platform.system() != "Linux":
        pip("torch", wanted)
        return
    cpu = f"{wanted}+cpu"
    if offered(cpu):
        say("no NVIDIA GPU here: the CPU build of torch (0.2 GB to download, 0.8 GB on disk)")
        pip("torch", cpu)
        return
    for folder in account_wheel_folders():
        if offered(cpu, "--find-links", folder):
            say(
                f"no NVIDIA GPU here: the CPU build of torch from {folder}, which this account's"
                " pip configuration names (0.8 GB on disk)"
            )
            pip("torch", "--find-links", folder, cpu)
            return
    index = torch_index()
    if reachable(index):
        say(
            "no NVIDIA GPU here: the CPU build of torch from torch's own index"
            " (0.2 GB to download, 0.8 GB on disk)"
        )
        try:
            pip("torch", "--extra-index-url", index, cpu)
            return
        except Failed as error:
            say(f"torch's own index did not give it ({error})")
    else:
        say("torch's own index of CPU builds cannot be reached from here")
    say(
        "so this is the ordinary build with CUDA: 2.7 GB to download, 5 GB on disk, minutes."
        " Ctrl-C stops it; `make demo-replay` needs no torch; PIP_FIND_LINKS=DIR names a folder"
        f" with a wheel of {cpu}"
    )
    free = shutil.disk_usage(sys.prefix).free / 1e9
    if free < 8:
        raise Failed(f"it needs 8 GB while it installs, and the disk has {free:.1f} GB left")
    pip("torch", wanted)


def account_wheel_folders() -> list[str]:
    """Folders of wheels that the account's pip configuration names, where HOME is another folder.

    With HOME replaced (a build agent, `sudo`), pip does not read the account's configuration.
    """
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    if home == Path.home():
        return []
    parser = configparser.RawConfigParser()
    try:
        parser.read([home / ".pip" / "pip.conf", home / ".config" / "pip" / "pip.conf"])
    except (OSError, configparser.Error):
        return []
    named = parser.get("global", "find-links", fallback="").split()
    return [folder for folder in named if Path(folder).is_dir()]


def offered(requirement: str, *options: str) -> bool:
    """Whether pip with these options finds this version, without downloading it."""
    name, version = requirement.split("==")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check"),
            *("index", "versions", *options, name),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    return re.search(rf"(?<![\w.]){re.escape(version)}(?![\w.+])", done.stdout) is not None


def environment() -> dict[str, str]:
    """The environment of pip: fewer retries than usual, so that no network is said soon."""
    return {"PIP_RETRIES": "2", "PIP_ROOT_USER_ACTION": "ignore", **os.environ, "NO_COLOR": "1"}


def pip(what: str, *arguments: str) -> None:
    """Run ``pip install`` with a line about what it does. Raises Failed with its reason."""
    log = Path(sys.prefix) / "pip.log"
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install"),
        # Byte code is written when a module is first imported: of torch's files few ever are.
        *(
            "--no-compile",
            "--progress-bar",
            "off",
            "--constraint",
            str(ROOT / "constraints.txt"),
            *arguments,
        ),
    ]
    lines: list[str] = []
    with log.open("w", encoding="utf-8") as file, Shown(f"installing {what}") as shown:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            cwd=ROOT,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                lines.append(line.strip())
                shown.read(line.strip())
            process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        shown.succeeded = process.returncode == 0
    if process.returncode:
        raise Failed(f"{reason(lines)}; pip's own words are in {os.path.relpath(log)}")


def reason(lines: list[str]) -> str:
    """Why pip failed, in one sentence."""
    text = "\n".join(lines)
    if re.search(r"No space left on device", text):
        return f"the disk is full ({sys.prefix})"
    if re.search(
        r"Failed to establish a new connection|NewConnectionError|NameResolutionError"
        r"|Temporary failure in name resolution|Connection to \S+ timed out|ProxyError"
        r"|Network is unreachable|ConnectTimeoutError",
        text,
    ):
        return (
            "pip reaches no package index; check the network and the proxy (HTTPS_PROXY), or name"
            " a mirror with PIP_INDEX_URL or a folder of wheels with PIP_FIND_LINKS"
        )
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    missing = [line for line in errors if line.startswith("No matching distribution")]
    return (missing or errors or ["pip failed"])[-1]


class Shown:
    """One live line on a terminal; elsewhere a line now and then, never silence for long."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._live = sys.stdout.isatty()
        self._began = time.monotonic()
        self._doing = "asking the package index"
        self._packages = 0
        self._megabytes = 0.0
        self.succeeded = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Shown:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._live:
            print("\r\x1b[K", end="", flush=True)
        if self.succeeded:
            size = f", {self._megabytes:.0f} MB" if self._megabytes >= 1 else ""
            took = time.monotonic() - self._began
            print(f"· {self._what}: done in {took:.0f} s{size}", flush=True)

    def read(self, line: str) -> None:
        """What pip says it does."""
        if found := re.match(r"Downloading (\S+)(?:.*\((\d+(?:\.\d+)?) (kB|MB|GB)\))?", line):
            name = re.split(r"-\d", found[1].rsplit("/", 1)[-1])[0]
            size = float(found[2] or 0) * {"kB": 0.001, "MB": 1.0, "GB": 1000.0}[found[3] or "kB"]
            self._packages += 1
            self._megabytes += size
            self._doing = f"downloading {name}" + (f", {size:.0f} MB" if size >= 5 else "")
        elif line.startswith(("Using cached", "Processing")):
            self._packages += 1
        elif line.startswith("Installing collected packages: "):
            count = line.count(",") + 1
            self._doing = f"unpacking {count} package" + ("s" if count > 1 else "")
        elif line.startswith(("Building", "Preparing", "Installing build dependencies")):
            self._doing = line.split(":")[0].lower().rstrip(". ")

    def _run(self) -> None:
        while not self._over.wait(0.2 if self._live else QUIET_SECONDS):
            took = time.monotonic() - self._began
            line = (
                f"· {self._what}: {self._doing} ({self._packages} packages,"
                f" {self._megabytes:.0f} MB so far, {took:.0f} s)"
            )
            if self._live:
                print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="")
                sys.stdout.flush()
            else:
                print(line, flush=True)


def say(text: str) -> None:
    """A line of the installation."""
    print(f"· {text}", flush=True)


def main(what: str) -> int:
    """Install, and return the exit code."""
    try:
        if wants_torch(what):
            install_torch()
        pip(f"esper-exporter{PURPOSES[what]}", "--editable", f".{EXTRAS[what]}")
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the next start goes on from here", file=sys.stderr)
        return 130
    size = sum(f.stat().st_size for f in Path(sys.prefix).rglob("*") if f.is_file())
    count = len(list(metadata.distributions()))
    say(f"{Path(sys.prefix).name}: {count} packages, {size / 1e6:,.0f} MB on disk")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in EXTRAS:
        print("usage: install_packages.py runtime|demo|dev", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv[1]))
