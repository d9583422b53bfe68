"""Start serving for a command: on the requested port, or on a free one if the default is taken."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from esper_exporter.commands.console import CommandError
from esper_exporter.settings import PREFIX

if TYPE_CHECKING:
    from esper_exporter.exporter import Exporter


def start(
    make: Callable[[int | None], Exporter],
    port: int | None,
    say: Callable[[str], object],
    *,
    elsewhere: bool = True,
) -> Exporter:
    """Start an exporter that ``make`` builds for a port, strictly (None: the default port).

    If the user requested no port and the default one is taken, it serves on a free port and prints
    which process holds the default; ``elsewhere`` False turns that off, for a scraper that expects
    the default port.

    Raises CommandError when the exporter cannot be built or cannot serve.
    """
    try:
        exporter = make(port)
        try:
            exporter.start()
        except OSError as error:
            asked = port is not None or os.environ.get(f"{PREFIX}PORT")
            if asked or not elsewhere or error.errno != errno.EADDRINUSE:
                raise
            exporter.close()
            exporter = make(0)
            exporter.start()
            holder = (error.strerror or str(error)).split("; ")[0]
            say(f"{holder}; this one is on port {exporter.port}")
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from error
    except ValueError as error:
        raise CommandError(str(error)) from error
    return exporter
