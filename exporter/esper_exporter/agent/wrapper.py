"""``esper-exporter run``: run a training as a child process and record how it ends.

The wrapper starts the command first and everything else in parallel. Where no agent serves the
share, the wrapper does, so that the child ends at once while its last page stays up. Several
wrappers of a node (one for each rank) share one directory: the first to get the lock serves all
of it, and another takes over when that one ends. An agent that starts later takes it from them.
"""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from esper_exporter.agent.child import Children, end_like
from esper_exporter.agent.process_identity import WRAPPER_VARIABLE, is_locked
from esper_exporter.agent.wrapper_notices import NOTHING_ATTACHED, notify, page_is_served
from esper_exporter.daemon_thread import start_daemon

if TYPE_CHECKING:
    from esper_exporter.agent.exit_reason import OomWatch
    from esper_exporter.agent.node_agent import NodeAgent
    from esper_exporter.settings import Settings

logger = logging.getLogger("esper_exporter")

SHARE_VARIABLE = "ESPER_EXPORTER_SHARE"
PORT_VARIABLE = "ESPER_EXPORTER_PORT"
TAKE_OVER_SECONDS = 0.5
KILL_SECONDS = 30.0


class EndPusher(Protocol):
    """Pushes how processes of a share ended."""

    def begin(self, directory: Path) -> None:
        """Begin to push the end of the process of a directory, unless it did so itself."""

    def wait(self) -> bool:
        """Wait for the receiver, for a bounded time; whether it has all ends that needed it."""


NewEndPusher = Callable[[Path, "Settings"], EndPusher]


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run. ``command`` is a program with its arguments, ``environment`` that of its
    process, ``copies`` how many ranks of it (each gets RANK, LOCAL_RANK, WORLD_SIZE and the
    address to meet at, as torchrun sets them), ``share`` the directory of the shared pages, None
    for none: then only the exit status passes through, and the program serves itself. When one
    rank fails the others get SIGTERM, and SIGKILL ``kill_seconds`` later. ``pusher`` makes what
    pushes the ends of processes that could not do so, where the settings name a receiver."""

    command: Sequence[str]
    environment: Mapping[str, str]
    share: Path | None
    copies: int = 1
    kill_seconds: float = KILL_SECONDS
    pusher: NewEndPusher | None = None


def run(launch: Launch) -> int:
    """Run the command and end as it did: return its exit code, or die of the signal that ended
    it.

    Raises OSError if the command does not start.
    """
    children = Children()
    token = secrets.token_hex(8)
    started = [children.start(launch.command, each) for each in _environments(launch, token)]
    wrapper = None
    if launch.share is not None:
        wrapper = _Wrapper(launch.share, token, launch.pusher)
        wrapper.start(launch.environment)
    first: int | None = None
    while (pid := children.wait()) is not None:
        status = children.ended[pid]
        if wrapper is not None:
            wrapper.report(pid, status, ended_by_us=pid in children.signalled)
        if status and first is None:
            first = status
            children.end(launch.kill_seconds)  # the other ranks would wait for it
    children.let_signals_in()
    if wrapper is not None:
        wrapper.finish()
    return end_like(first if first is not None else children.ended[started[0]])


def _environments(launch: Launch, token: str) -> list[dict[str, str]]:
    common = dict(launch.environment)
    if launch.share is not None:
        # The environment's port is for the wrapper or agent, which serves instead.
        common |= {WRAPPER_VARIABLE: token, SHARE_VARIABLE: str(launch.share), PORT_VARIABLE: "off"}
    if launch.copies == 1:
        return [common]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        meeting = found.getsockname()[1]
    return [
        common
        | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(launch.copies),
            "LOCAL_WORLD_SIZE": str(launch.copies),
            "MASTER_ADDR": common.get("MASTER_ADDR", "127.0.0.1"),
            "MASTER_PORT": common.get("MASTER_PORT", str(meeting)),
        }
        for rank in range(launch.copies)
    ]


class _Wrapper:
    """Serves the share if no agent does, and records how children end."""

    def __init__(self, share: Path, token: str, pusher: NewEndPusher | None) -> None:
        self._share = share
        self._token = token
        self._agent: NodeAgent | None = None
        self._settings: Settings | None = None
        self._oom: OomWatch | None = None
        self._pusher = pusher
        self._ends: EndPusher | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._failed = False
        self._on_a_node_of_agents = False
        self._attached = False
        self._address_shown = False

    def start(self, environment: Mapping[str, str]) -> None:
        """Start serving on separate threads, with an environment's settings; a failure does not
        affect the training."""
        from esper_exporter.agent.exit_reason import OomWatch
        from esper_exporter.agent.share_directory import make_share
        from esper_exporter.settings import read_settings

        try:
            self._oom = OomWatch()
            self._settings = read_settings({}, environment)
            make_share(self._share)
        except Exception as problem:
            logger.warning("the wrapper does not serve this run's page: %s", problem)
            return
        start_daemon(self._take_over, "esper-run-serve")

    def _take_over(self) -> None:
        # What ends sooner has hardly a page to serve, and is not slowed by a server that starts.
        while not self._done.wait(TAKE_OVER_SECONDS):
            try:
                with self._lock:
                    if self._done.is_set():
                        return
                    self._hand_over()
                    self._look_for_agent()
                    if self._agent is None:
                        self._serve()
                self._show_address()
                # The agent may retire the page of an exporter that ended before the program does.
                self._attached = self._attached or bool(self._ours())
            except Exception as problem:
                logger.warning("the wrapper does not serve this run's page: %s", problem)
                return

    def _hand_over(self) -> None:
        """Stop serving when a node agent claims the share: it stays longer than this run."""
        from esper_exporter.agent.share_claim import is_claimed

        if self._agent is not None and is_claimed(self._share):
            self._agent.close()
            self._agent = None

    def _look_for_agent(self) -> None:
        """Remember an agent: one that is away now reads the share when it is back."""
        from esper_exporter.agent.share_claim import is_claimed

        self._on_a_node_of_agents = self._on_a_node_of_agents or is_claimed(self._share)

    def _show_address(self) -> None:
        """Print once where the page is; one of the wrappers of a node is enough."""
        from esper_exporter.agent.share_claim import serving_address

        if self._address_shown:
            return
        address = serving_address(self._share)
        if address is not None:
            self._address_shown = True
            settings = self._settings
            if self._agent is not None or settings is None or not settings.rank:
                notify(page_is_served(address, by_agent=self._agent is None))

    def _serve(self) -> None:
        """Serve the share unless an agent or another wrapper does, or is about to."""
        from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
        from esper_exporter.agent.share_claim import is_served

        if is_served(self._share):
            return
        settings = self._settings
        assert settings is not None
        agent = NodeAgent(
            AgentSettings(
                shares=[self._share],
                host=settings.host,
                port=settings.port if settings.port is not None else 9108,
                unix_socket=settings.unix_socket,
                web_config=settings.web_config,
                allowed_hosts=settings.allowed_hosts or (),
                file_sd=settings.file_sd,
                strict=False,
            )
        )
        with suppress(BlockingIOError):
            agent.start()
            self._agent = agent

    def report(self, pid: int, status: int, *, ended_by_us: bool) -> None:
        """Record how a child ended, for the server of its page.

        A signal that the wrapper sent is no fault of the rank, a SIGKILL neither.
        """
        from esper_exporter.agent.exit_reason import exit_of
        from esper_exporter.agent.share_directory import EXIT, write_record

        try:
            oom = self._oom is not None and self._oom.killed()
            self._attached = self._attached or bool(self._ours())
            shell = not self._pages_of(pid)
            target = pid
            if shell:
                # The command was a script: the training is its one ended process.
                gone = self._gone_processes()
                if len(gone) == 1:
                    target = gone[0]
            end = exit_of(status, out_of_memory=oom, by_shell=shell)
            if ended_by_us and end.signal in (signal.SIGTERM, signal.SIGKILL):
                end = replace(end, reason="signal")
            if target != pid and not end.signal:
                return  # the script's exit code is not the training's
            self._failed = self._failed or bool(end.reason)
            for directory in self._pages_of(target):
                write_record(directory / EXIT, end.to_json())
                self._push_end(directory)
            if self._settings is not None and self._settings.journal is not None:
                from esper_exporter.journal.exit_record import record_exit

                code, number = end.exit_code, end.signal
                record_exit(self._settings.journal, target, end.reason, code, number)
        except Exception as problem:
            logger.warning("could not record how the training ended: %s", problem)

    def _push_end(self, directory: Path) -> None:
        """Push how the process of a directory ended, where its page is pushed."""
        if self._settings is None or self._settings.push is None or self._pusher is None:
            return
        if self._ends is None:
            self._ends = self._pusher(self._share, self._settings)
        self._ends.begin(directory)

    def _ours(self) -> list[tuple[int, Path]]:
        from esper_exporter.agent.share_directory import identify, process_directories

        found = []
        with suppress(OSError):
            for directory in process_directories(self._share):
                with suppress(Exception):
                    _, identity = identify(self._share, directory)
                    if identity.wrapper == self._token:
                        found.append((identity.pid, directory))
        return found

    def _pages_of(self, pid: int) -> list[Path]:
        return [directory for found, directory in self._ours() if found == pid]

    def _gone_processes(self) -> list[int]:
        from esper_exporter.agent.share_directory import LOCK

        return [pid for pid, directory in self._ours() if not is_locked(directory / LOCK)]

    def _pushed(self) -> bool:
        """Wait until the receiver of what is pushed has every end; Ctrl-C ends the wait."""
        for pid in self._gone_processes():
            for directory in self._pages_of(pid):
                self._push_end(directory)
        if self._ends is None:
            return False
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            return self._ends.wait()
        return False

    def finish(self) -> None:
        """Push how the training ended where it could not do so. If this wrapper serves the page,
        wait until every regular scraper has fetched the end; Ctrl-C or SIGTERM ends each wait."""
        self._done.set()
        if not self._attached:
            notify(NOTHING_ATTACHED)
        pages = [directory for _, directory in self._ours()]
        # A command that ended before the server was up, and left no page, is not held up by it.
        if not self._lock.acquire(blocking=bool(pages)):
            return
        try:
            # What ended sooner than a server was up has its end served all the same.
            if pages and self._agent is None and self._settings is not None:
                self._serve()
        except Exception as problem:
            logger.warning("the wrapper does not serve this run's page: %s", problem)
        finally:
            self._lock.release()
        agent, settings = self._agent, self._settings
        pushed = self._pushed()
        if agent is None or settings is None:
            return
        if pages:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            seen = False
            with suppress(KeyboardInterrupt):
                seen = agent.wait_until_seen(
                    settings.linger, failed=self._failed, ends_at_once="Ctrl-C", pushed=pushed
                )
            if seen or not self._failed or not self._on_a_node_of_agents:
                agent.retire(pages)
        agent.close()
