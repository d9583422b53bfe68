"""The command ``esper-exporter agent``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from esper_exporter.commands.console import OK, PROGRAM, CommandError
from esper_exporter.commands.values import port, seconds
from esper_exporter.settings import KEEP_SECONDS

if TYPE_CHECKING:
    from esper_exporter.agent.node_agent import NodeAgent

ENDS = {signal.SIGINT, signal.SIGTERM}
WAIT_SECONDS = 0.5


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    agent = commands.add_parser(
        "agent",
        help="serve the pages of all training processes of this machine on one port",
        description="Serve the pages shared by this machine's training processes on one port."
        " A process that dies stays on the page, with its latches and the reason, until every"
        " regular scraper has fetched them. Runs in the foreground until Ctrl-C or SIGTERM.",
    )
    agent.add_argument(
        "shares",
        metavar="DIR",
        nargs="*",
        type=Path,
        help="directory of Exporter(share=DIR) (default: this user's share under /dev/shm)",
    )
    agent.add_argument("--host", default="127.0.0.1", help="address to serve on (%(default)s)")
    agent.add_argument("--port", type=port, default=9108, help="0: any free port (%(default)s)")
    agent.add_argument(
        "--unix-socket", type=Path, metavar="PATH", help="also serve on a unix socket"
    )
    agent.add_argument(
        "--web-config",
        type=Path,
        metavar="FILE",
        help="TLS and passwords, a Prometheus web configuration file",
    )
    agent.add_argument(
        "--allowed-host",
        dest="allowed_hosts",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name that requests may use, beside this machine's; repeatable",
    )
    agent.add_argument(
        "--file-sd", type=Path, metavar="DIR", help="write a target file for Prometheus's file_sd"
    )
    agent.add_argument(
        "--keep",
        type=seconds,
        default=KEEP_SECONDS,
        metavar="SECONDS",
        help="how long to keep the page of an ended process (%(default)g)",
    )
    agent.add_argument(
        "--linger",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="at the end, serve on at most this long until every regular scraper has fetched how"
        " the processes ended; a second signal ends at once (%(default)g)",
    )
    agent.add_argument(
        "--wait",
        action="store_true",
        help="while another agent serves the directory or the port is taken, wait for it",
    )
    agent.add_argument(
        "--no-vitals", action="store_true", help="do not sample this machine and its GPUs"
    )
    agent.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.agent.owned_file import PageRefused
    from esper_exporter.agent.share_claim import release
    from esper_exporter.serve.listening import ListenError
    from esper_exporter.serve.web_config import WebConfigError
    from esper_exporter.settings import default_share

    shares = options.shares or [default_share()]
    where = ", ".join(str(share) for share in shares)
    # Blocked before any thread starts, so that every thread leaves them to `sigwait` below.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    claims: list[int] = []
    try:
        agent = _started(options, shares, claims)
    except BlockingIOError:
        raise CommandError(f"another agent serves {where}") from None
    except (ListenError, WebConfigError, PageRefused, ValueError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or ''}: {error.strerror or error}") from error
    if agent is None:
        return OK
    print(f"{PROGRAM} agent: {agent.server.url}/metrics serves {where}", file=sys.stderr)
    signal.sigwait(ENDS)
    _linger(agent, options.linger)
    agent.close()
    release(claims)
    return OK


def _started(
    options: argparse.Namespace, shares: list[Path], claims: list[int]
) -> NodeAgent | None:
    """A started agent; None if a signal ended the wait for another one.

    It waits for another agent with ``--wait`` alone, but always for a wrapper: that hands the
    shares over soon once they are claimed. ``claims`` gets the locks that claim them.

    Raises as `NodeAgent.start`.
    """
    from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
    from esper_exporter.agent.share_claim import lock_shares
    from esper_exporter.agent.share_directory import AGENT_CLAIM, AGENT_LOCK

    vitals = "off" if options.no_vitals else "on"
    settings = AgentSettings(
        shares=shares,
        host=options.host,
        port=options.port,
        unix_socket=options.unix_socket,
        web_config=options.web_config,
        # With --wait the server tries a taken port again and again.
        strict=not options.wait,
        keep_seconds=options.keep,
        allowed_hosts=options.allowed_hosts,
        file_sd=options.file_sd,
        gpu_vitals=vitals,
        host_vitals=vitals,
    )
    waiting: list[int] = []
    try:
        while True:
            try:
                claims += [] if claims else lock_shares(shares, AGENT_CLAIM)
                agent = NodeAgent(settings)
                agent.start()
                return agent
            except BlockingIOError:
                if not claims and not options.wait:
                    raise
                if claims and not waiting:
                    where = ", ".join(map(str, shares))
                    print(f"{PROGRAM} agent: `run` hands over {where}", file=sys.stderr)
            # An open file shows a script that looks for the share's agents that this one waits.
            waiting = waiting or [os.open(share / AGENT_LOCK, os.O_RDONLY) for share in shares]
            if signal.sigtimedwait(ENDS, WAIT_SECONDS) is not None:
                return None
    finally:
        for handle in waiting:
            os.close(handle)


def _linger(agent: NodeAgent, limit: float) -> None:
    """Serve until scrapers have fetched how processes ended, at most ``limit`` seconds."""
    if not limit:
        return
    for number in ENDS:
        signal.signal(number, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    with suppress(KeyboardInterrupt):
        agent.linger(limit)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
