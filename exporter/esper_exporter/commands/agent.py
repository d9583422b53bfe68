"""The command ``esper-exporter agent``."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from esper_exporter.commands.console import OK, PROGRAM, CommandError
from esper_exporter.commands.values import port, seconds


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
        default=900.0,
        metavar="SECONDS",
        help="how long to keep the page of an ended process (%(default)g)",
    )
    agent.add_argument(
        "--no-vitals", action="store_true", help="do not sample this machine and its GPUs"
    )
    agent.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
    from esper_exporter.agent.page_file import PageRefused
    from esper_exporter.serve.listening import ListenError
    from esper_exporter.serve.web_config import WebConfigError
    from esper_exporter.settings import default_share

    vitals = "off" if options.no_vitals else "on"
    shares = options.shares or [default_share()]
    # Blocked before any thread starts, so that every thread leaves them to `sigwait` below.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        agent = NodeAgent(
            AgentSettings(
                shares=shares,
                host=options.host,
                port=options.port,
                unix_socket=options.unix_socket,
                web_config=options.web_config,
                keep_seconds=options.keep,
                allowed_hosts=options.allowed_hosts,
                file_sd=options.file_sd,
                gpu_vitals=vitals,
                host_vitals=vitals,
            )
        )
        agent.start()
    except BlockingIOError:
        raise CommandError(f"another agent serves {', '.join(map(str, shares))}") from None
    except (ListenError, WebConfigError, PageRefused, ValueError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or ''}: {error.strerror or error}") from error
    where = ", ".join(str(share) for share in shares)
    print(f"{PROGRAM} agent: {agent.server.url}/metrics serves {where}", file=sys.stderr)
    signal.sigwait(ends)
    agent.close()
    return OK
