"""``python -m esper_exporter``: the same as the command ``esper-exporter``."""

from __future__ import annotations

import sys

from esper_exporter.cli import main

sys.exit(main())
