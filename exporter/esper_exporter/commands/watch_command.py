"""``esper-exporter watch``: open a recorded or a live run in the browser."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from esper_exporter.commands import replay_command
from esper_exporter.commands.console import OK, CommandError, write_out
from esper_exporter.commands.values import port, speed
from esper_exporter.demo.bundled import RECORDINGS

ANSWER_SECONDS = 10.0

Opener = Callable[[str], object]
"""Opens an address in the browser."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    watch = commands.add_parser(
        "watch",
        help="open a recorded or a remote run in the browser",
        description="Show a run in the browser. A telemetry FILE (or the name of a built-in"
        f" recording: {', '.join(RECORDINGS)}) plays back, with pause, speed and seek; a URL"
        " is an exporter's address.",
    )
    watch.add_argument("what", metavar="FILE|URL", help="telemetry, or an exporter's address")
    watch.add_argument(
        "--speed",
        type=speed,
        metavar="X",
        help="X times recorded time; 0 is as fast as possible (default: 1)",
    )
    watch.add_argument(
        "--port", type=port, default=0, metavar="P", help="port to serve on (default: any free)"
    )
    watch.add_argument(
        "--no-browser", action="store_true", help="print the address without opening a browser"
    )

    def run(options: argparse.Namespace) -> int:
        import webbrowser

        opened = None if options.no_browser else webbrowser.open
        if options.what.startswith(("http://", "https://")):
            return _watch_url(options.what, opened)
        return _watch_file(options, opened)

    watch.set_defaults(run=run)


def page_address(url: str) -> str:
    """The address of an exporter's page, from its address or that of its metrics."""
    parts = urlsplit(url)
    path = parts.path.removesuffix("/").removesuffix("/metrics")
    return urlunsplit((parts.scheme, parts.netloc, f"{path}/", "", ""))


def _watch_url(url: str, opened: Opener | None) -> int:
    """Open an exporter's page after checking that it is one."""
    import ssl
    import urllib.error
    import urllib.request

    try:
        address = page_address(url)
        with urllib.request.urlopen(f"{address}api/v1/state", timeout=ANSWER_SECONDS) as answer:
            json.load(answer)["version"]
    except urllib.error.HTTPError as error:
        if error.code != 401:  # the browser asks for the password
            raise CommandError(
                f"{url}: answers {error.code}, so it is not an exporter's page"
            ) from error
    except urllib.error.URLError as error:
        # A self-signed certificate: the browser asks the user.
        if not isinstance(error.reason, ssl.SSLError):
            raise CommandError(f"{url}: {error.reason}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{url}: no exporter answers there") from error
    write_out(f"open {address}\n".encode())
    if opened is not None:
        opened(address)
    return OK


def _watch_file(options: argparse.Namespace, opened: Opener | None) -> int:
    """Replay the file as ``replay`` does, and open it in the browser."""
    parser = argparse.ArgumentParser()
    replay_command.add(parser.add_subparsers())
    given = ["replay", f"--port={options.port}"]
    if options.speed is not None:
        given.append(f"--speed={options.speed}")
    bundled = options.what in RECORDINGS
    given += [f"--recording={options.what}"] if bundled else ["--", options.what]
    replayed = parser.parse_args(given)
    replayed.opened = opened
    code: int = replayed.run(replayed)
    return code
