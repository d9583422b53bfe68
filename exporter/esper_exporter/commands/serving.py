"""How a command starts to serve: on the port asked for, or beside whoever has the usual one."""

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
    """A started exporter; ``make`` makes one for a port, strict about it (None: the default).

    Where nobody asked for a port and the default one is taken, it serves on a free one and says
    who has the other; not with ``elsewhere`` False, where a scraper expects the default one.

    Raises CommandError when it cannot be made or cannot serve.
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
