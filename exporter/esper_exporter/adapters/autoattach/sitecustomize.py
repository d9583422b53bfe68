"""Imported by Python at its start in programs that ``esper-exporter run`` runs: attaches to esper
when its telemetry hub is imported, and does nothing in a program that never imports it.

Python finds this file by PYTHONPATH, in a separate directory. It never raises.
"""

from __future__ import annotations

import importlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))


def _is_helper() -> bool:
    """Whether this is a process that multiprocessing started: it imports what its parent did."""
    return any("multiprocessing" in argument for argument in sys.orig_argv[1:4])


def _attach(module: object) -> None:
    import logging

    try:
        from esper_exporter.adapters.esper.attach import attach

        attach(hub=module.get_hub())  # type: ignore[attr-defined]
    except Exception:
        logging.getLogger("esper_exporter").exception("cannot attach; the training continues")


def _watch() -> None:
    sys.path.append(PACKAGE)  # last: only a Python that lacks the package finds it here
    from esper_exporter.adapters.import_hook import when_imported

    when_imported("esper.nissa.output", _attach)


def _give_way() -> None:
    """Import the sitecustomize that this one hides, if there is one."""
    sys.path[:] = [place for place in sys.path if os.path.abspath(place or os.curdir) != HERE]
    mine = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as missing:
        if missing.name != "sitecustomize":
            raise
        if mine is not None:
            sys.modules["sitecustomize"] = mine


if not _is_helper():
    try:
        _watch()
    except Exception as problem:
        print(f"esper-exporter: cannot attach: {problem}", file=sys.stderr)
_give_way()
