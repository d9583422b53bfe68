"""The command ``esper-exporter stack``: run the installed servers together until Ctrl-C."""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import select
import shutil
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from esper_exporter.commands.console import FAILED, OK, CommandError
from esper_exporter.replay.stop import Stop, stop_on_signals
from esper_exporter.stack.programs import (
    ALERTMANAGER,
    GRAFANA,
    KINDS,
    PROMETHEUS,
    Kind,
    find,
    grafana_home,
)
from esper_exporter.stack.provisioning import (
    Scraped,
    alertmanager_config,
    prometheus_config,
    write_grafana,
)
from esper_exporter.stack.servers import Server, answers, free_port

WATCH_SECONDS = 2.0
READY = {PROMETHEUS: "/-/ready", ALERTMANAGER: "/-/ready", GRAFANA: "/api/health"}

GRAPHS = (
    ("each head's entropy where it had a choice", "esper_tamiyo_head_choice_entropy_ratio"),
    ("each head's gradient norm", "esper_tamiyo_head_grad_norm"),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """An installed program, and its port."""

    kind: Kind
    program: Path
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


def run(options: argparse.Namespace) -> int:
    """Run the servers until a signal or, with ``--with-parent``, the end of standard input.

    Raises CommandError when Prometheus is missing, or a given program or file does not exist.
    """
    with stop_on_signals() as stop, _folders(options) as (folder, targets):
        stopping = threading.Event()
        started: list[Server] = []
        try:
            with _one_at_a_time():
                chosen = _choose(options)
                scraped = Scraped(_targets(options), targets, options.interval)
                for one in chosen.values():
                    started.append(_start(one, chosen, scraped, folder, options))
                made = targets if options.with_parent else ()
                threads = [
                    threading.Thread(
                        target=_announce, args=(server, kind, made, stopping), daemon=True
                    )
                    for server, kind in zip(started, chosen, strict=True)
                ]
                for thread in threads:
                    thread.start()
                _wait_for_ports(threads, stop)
            for kind in KINDS:
                if kind not in chosen:
                    say(f"{kind.title:13} missing. {kind.origin}")
            return _watch(started, stop, options.with_parent)
        finally:
            stopping.set()
            for server in reversed(started):
                server.end()


def say(text: str) -> None:
    """Print a line, above a live line that another process draws on the same terminal."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}{text}", file=sys.stderr, flush=True)


def _choose(options: argparse.Namespace) -> dict[Kind, Chosen]:
    """The installed programs. Raises CommandError without Prometheus."""
    chosen = {}
    for kind in KINDS:
        program = find(kind, getattr(options, kind.option))
        if program is None:
            if kind is PROMETHEUS:
                raise CommandError(f"Prometheus is missing: {kind.origin}")
            continue
        wanted = getattr(options, f"{kind.option}_port")
        port, held_by = free_port(wanted)
        if held_by is not None:
            say(f"{kind.title:13} port {wanted} is taken by {held_by}; using {port} instead")
        chosen[kind] = Chosen(kind, program, port)
    return chosen


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Serialise the start of stacks: the second chooses its ports once the first listens."""
    descriptor = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _wait_for_ports(threads: list[threading.Thread], stop: Stop) -> None:
    """Wait until all servers answer or have ended, some seconds at most."""
    for _ in range(50):
        if not any(thread.is_alive() for thread in threads) or stop.wait(0.1):
            return


def _targets(options: argparse.Namespace) -> list[str]:
    if options.target or options.targets_dir:
        return list(options.target)
    return ["127.0.0.1:9108"]


def _start(
    one: Chosen,
    chosen: dict[Kind, Chosen],
    scraped: Scraped,
    folder: Path,
    options: argparse.Namespace,
) -> Server:
    """Write the program's configuration and start it."""
    prometheus = chosen[PROMETHEUS].address
    alertmanager = chosen[ALERTMANAGER].address if ALERTMANAGER in chosen else None
    data = folder if options.data is None else Path(options.data).absolute()
    store = data / one.kind.option
    store.mkdir(parents=True, exist_ok=True)
    config = folder / f"{one.kind.option}.yml"
    variables: dict[str, str] = {}
    if one.kind is PROMETHEUS:
        config.write_text(prometheus_config(scraped, prometheus, alertmanager), encoding="utf-8")
        command = [
            f"--config.file={config}",
            f"--storage.tsdb.path={store}",
            f"--web.listen-address={one.address}",
            "--log.level=warn",
        ]
    elif one.kind is ALERTMANAGER:
        own = Path(options.alertmanager_config) if options.alertmanager_config else None
        try:
            config.write_text(alertmanager_config(own), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"--alertmanager-config {own}: {error.strerror}") from error
        command = [
            f"--config.file={config}",
            f"--storage.path={store}",
            f"--web.listen-address={one.address}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]
    else:
        provisioning = folder / "provisioning"
        write_grafana(provisioning, prometheus, alertmanager)
        command, variables = _grafana(one, provisioning, store)
    return Server(
        one.kind.title,
        [str(one.program), *command],
        one.address,
        folder / f"{one.kind.option}.log",
        variables,
    )


def _grafana(one: Chosen, provisioning: Path, store: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of Grafana: viewers need no login; the admin's password is
    random."""
    home = grafana_home(one.program)
    command = ["server"] if one.program.name == "grafana" else []
    if home is not None:
        command += ["--homepath", str(home)]
    return command, {
        "GF_PATHS_PROVISIONING": str(provisioning),
        "GF_PATHS_DATA": str(store),
        "GF_PATHS_LOGS": str(store / "log"),
        "GF_PATHS_PLUGINS": str(store / "plugins"),
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(one.port),
        "GF_SECURITY_ADMIN_PASSWORD": secrets.token_urlsafe(24),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_USERS_ALLOW_SIGN_UP": "false",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
    }


def _let_exporter_speak(folders: Sequence[Path], stopping: threading.Event) -> None:
    """Wait for a target file, to print the exporter's address first."""
    for _ in range(50):
        if any(any(folder.glob("*.json")) for folder in folders) or stopping.wait(0.1):
            break
    stopping.wait(0.3)


def _announce(
    server: Server, kind: Kind, folders: Sequence[Path], stopping: threading.Event
) -> None:
    """Print the server's address once it answers."""
    url = f"http://{server.address}"
    if folders:
        _let_exporter_speak(folders, stopping)
    if not server.wait_until_ready(READY[kind], stopping):
        if not stopping.is_set() and server.running:
            say(f"{server.title:13} does not answer on {url}: {server.last_words()}")
        return
    if kind is PROMETHEUS:
        # Debian's build has only the classic pages.
        classic = not answers(f"{url}/alerts")
        front = f"{url}/classic" if classic else url
        say(f"{server.title:13} {front}/alerts  (EsperWatchdog always fires: alerting works)")
        for what, expression in GRAPHS:
            query = {"g0.expr": expression, "g0.tab": "0", "g0.range_input": "5m"}
            say(f"  {what}: {front}/graph?{urllib.parse.urlencode(query)}")
    elif kind is GRAFANA:
        say(f"{server.title:13} {url}/dashboards  (no login for viewing; folder esper)")
    else:
        say(f"{server.title:13} {url}  (routes of the notifications)")


def _watch(servers: list[Server], stop: Stop, with_parent: bool) -> int:
    """Wait for the end; if one server ends, stop all."""
    while True:
        if stop.wait(WATCH_SECONDS, 0 if with_parent else None):
            return OK
        if with_parent and _closed(0):
            return OK
        for server in servers:
            if not server.running:
                say(f"{server.title:13} ended: {server.last_words()}")
                return FAILED


def _closed(descriptor: int) -> bool:
    """Whether the parent has closed its end of the pipe; ignores the content."""
    return bool(select.select([descriptor], [], [], 0)[0]) and os.read(descriptor, 4096) == b""


@contextmanager
def _folders(options: argparse.Namespace) -> Iterator[tuple[Path, list[Path]]]:
    """A temporary folder for configuration and data, and the folders of target files.

    Creates a missing target folder, and removes it at the end.
    """
    made = []
    with tempfile.TemporaryDirectory(prefix="esper-stack-", ignore_cleanup_errors=True) as name:
        targets = [Path(folder).absolute() for folder in options.targets_dir]
        try:
            for folder in targets:
                if not folder.exists():
                    folder.mkdir(parents=True)
                    made.append(folder)
            yield Path(name), targets
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}") from error
        finally:
            for folder in made:
                shutil.rmtree(folder, ignore_errors=True)
