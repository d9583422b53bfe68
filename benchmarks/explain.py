"""`python -m benchmarks.explain`: of how many runs `explain` names the first cause right.

The demo with each injected fault under several seeds, its own loop with the probe, processes
that die under `esper-exporter run`, recordings of real runs, and twenty healthy ones. A run that
ends with a fault is right when cause, head and update are those that were put in; a healthy one
when no cause is named. `--seconds` ends the matrix early: the runs of all kinds take turns, and
what was not run is reported as such.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from esper_exporter.contract.vocabulary import HEADS

UPDATES, UPDATE = 9, 6
FLOOR = 0.95
MOST_SECONDS = 5.0
FAULTS = Path(__file__).parents[1] / "tests" / "recordings" / "faults"

Cause = tuple[str, str | None, int | None]
HEALTHY: Cause = ("healthy", None, None)


@dataclass(frozen=True)
class Case:
    """A run: its name, what to run or read, and the first cause, its head and its update.

    ``inject`` is a fault of the demo or "" for none, ``seed`` the demo's; ``probed`` a fault of
    `probed_run`; ``code`` is what a process does that the wrapper runs; ``file`` a recording. A
    head or update of None is not compared.
    """

    name: str
    expected: Cause
    inject: str | None = None
    seed: int = 1
    probed: str | None = None
    code: str | None = None
    file: Path | None = None


def demo_cases() -> list[Case]:
    """The demo's faults, each under three seeds."""
    found = []
    for seed in (1, 2, 3):
        nan, inf, entropy = HEADS[seed], HEADS[-seed], HEADS[seed + 2]
        for kind, cause in (
            (f"nan:{nan}", ("head_nan", nan, UPDATE)),
            (f"inf:{inf}", ("head_inf", inf, UPDATE)),
            (f"entropy-collapse:{entropy}", ("entropy_collapse", entropy, UPDATE)),
            ("grad-explode", ("gradient_explosion", None, UPDATE)),
            ("grad-nan", ("gradient_nonfinite", None, UPDATE)),
            ("crash", ("exception", None, None)),
            ("oom", ("out_of_memory", None, None)),
        ):
            last = f"-{UPDATES}" if kind.startswith("entropy") else ""
            fault = f"{kind}@{UPDATE}{last}"
            found.append(Case(f"demo {fault} seed {seed}", cause, inject=fault, seed=seed))
    return found


def healthy_cases() -> list[Case]:
    """The demo without a fault, and recordings of healthy runs."""
    files = ("healthy", "healthy3", "healthy6")
    recorded = [Case(f"recording {n}", HEALTHY, file=FAULTS / f"{n}.jsonl.gz") for n in files]
    return recorded + [
        Case(f"demo healthy seed {seed}", HEALTHY, inject="", seed=seed) for seed in range(1, 18)
    ]


def recorded_cases() -> list[Case]:
    """Real runs with a fault; what was put in is in the recordings' README."""
    causes: dict[str, Cause] = {
        "gradinf": ("gradient_nonfinite", None, 3),
        "infblue": ("head_inf", "blueprint", 2),
        "nanpart": ("head_nan", "style", 3),
        "rollback": ("rollbacks", None, 1),
        "nanend": ("head_nan", "slot", 3),
        "valnan": ("value_nonfinite", None, 3),
        "gradnanearly": ("gradient_nonfinite", None, 3),
        "six": ("head_inf", "alpha_speed", 2),
        "twohead": ("head_inf", "style", 2),
        "debugnan": ("head_inf", "tempo", 3),
    }
    return [
        Case(f"recording {name}", cause, file=FAULTS / f"{name}.jsonl.gz")
        for name, cause in causes.items()
    ]


def probed_cases() -> list[Case]:
    """Faults in its own loop, measured by the probe."""
    causes: dict[str, Cause] = {
        "nan:steer": ("head_nan", "steer", UPDATE),
        "inf:gas": ("head_inf", "gas", UPDATE),
        "grad-nan": ("gradient_nonfinite", None, UPDATE),
        "grad-inf": ("gradient_nonfinite", None, UPDATE),
        "explode": ("gradient_explosion", None, UPDATE),
        "raise": ("exception", None, UPDATE),
        "none": HEALTHY,
    }
    return [Case(f"probe {fault}", cause, probed=fault) for fault, cause in causes.items()]


def death_cases() -> list[Case]:
    """Processes that end under the wrapper, each in three ways of reporting before."""
    found = []
    for wait in (0.2, 0.4, 0.6):
        for name, code, cause in (
            ("SIGKILL", "os.kill(os.getpid(), 9)", "killed"),
            ("SIGSEGV", "os.kill(os.getpid(), 11)", "killed"),
            ("exit 3", "os._exit(3)", "exception"),
        ):
            code = f"time.sleep({wait}); {code}"
            found.append(Case(f"run -- {name} after {wait} s", (cause, None, None), code=code))
    return found


def all_cases() -> list[Case]:
    """The kinds in turn."""
    kinds = (death_cases(), probed_cases(), recorded_cases(), healthy_cases(), demo_cases())
    return [case for case in chain(*zip_longest(*kinds)) if case is not None]


def _source(case: Case, scratch: Path) -> Path:
    """Run a case; what `explain` is to read."""
    if case.file is not None:
        return case.file
    environment = {
        **os.environ,
        "ESPER_EXPORTER_PORT": "0",
        "ESPER_EXPORTER_LINGER": "0",
        "ESPER_EXPORTER_TERM_LINGER": "0",
        "ESPER_EXPORTER_STATE_DIR": "off",
    }
    program = [sys.executable, "-m", "esper_exporter"]
    if case.probed is not None:
        environment["ESPER_EXPORTER_JOURNAL"] = str(scratch / "journal")
        _run([sys.executable, "-m", "benchmarks.probed_run", case.probed], environment)
        return scratch / "journal"
    if case.code is not None:
        journal = scratch / "journal"
        environment |= {
            "ESPER_EXPORTER_JOURNAL": str(journal),
            "ESPER_EXPORTER_SHARE": str(scratch / "share"),
        }
        begin = (
            "import json, os, sys, time; from esper_exporter import Exporter;"
            "exporter = Exporter(); exporter.emit(json.loads(sys.argv[1]));"
        )
        command = [*program, "run", "--", sys.executable, "-c", begin + case.code]
        command.append(_first_event())
        _run(command, environment)
        return journal
    file = scratch / "telemetry.jsonl"
    command = [*program, "demo", "--port", "0", "--seed", str(case.seed), "--envs", "2"]
    command += ["--epochs", "12", "--updates", str(UPDATES), "--telemetry-file", str(file)]
    if case.inject:
        command += ["--inject", case.inject]
    # The demo keeps a journal too: telemetry alone does not hold how a process ended.
    environment["ESPER_EXPORTER_JOURNAL"] = str(scratch / "journal")
    _run(command, environment)
    return scratch / "journal" if (scratch / "journal").is_dir() else file


def _first_event() -> str:
    with gzip.open(FAULTS / "healthy.jsonl.gz", "rt") as lines:
        return next(line for line in lines if "TRAINING_STARTED" in line)


def _run(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run(
        command,
        env=environment,
        check=False,
        timeout=1200,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def found_in(source: Path) -> tuple[Cause, float]:
    """The cause that `explain` names, and the seconds that it took."""
    from esper_exporter.journal.reading import read_runs
    from esper_exporter.journal.report import explain

    begun = time.perf_counter()
    runs, _ = read_runs([source])
    report = explain(runs[-1])
    return (report["cause"], report["head"], report["update"]), time.perf_counter() - begun


def is_right(found: Cause, expected: Cause) -> bool:
    """Whether the cause is right, and the head and the update where they are known."""
    pairs = zip(found, expected, strict=True)
    return found[0] == expected[0] and all(w is None or f == w for f, w in pairs)


def main() -> int:
    """Run the matrix and print a line a run; 1 where a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after N")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    options = parser.parse_args()
    cases = [case for case in all_cases() if options.only in case.name]
    begun = time.monotonic()
    right, wrong, slow = 0, [], 0
    for case in cases:
        if time.monotonic() - begun > options.seconds:
            break
        with tempfile.TemporaryDirectory() as scratch:
            try:
                found, seconds = found_in(_source(case, Path(scratch)))
            except (ValueError, OSError, IndexError, subprocess.TimeoutExpired) as problem:
                found, seconds = (f"none: {problem}", None, None), 0.0
        good = is_right(found, case.expected)
        right += good
        slow += seconds > MOST_SECONDS
        wrong += [] if good else [case]
        reported = "right" if good else f"WRONG, wanted {case.expected}"
        print(f"{case.name}: {found} in {seconds:.2f} s, {reported}", flush=True)
    done = right + len(wrong)
    alarms = sum(case.expected == HEALTHY for case in wrong)
    print(
        f"{right} of {done} right, {alarms} healthy runs with a cause, {slow} slower than"
        f" {MOST_SECONDS:g} s, {len(cases) - done} of {len(cases)} not run"
    )
    return int(not done or right < FLOOR * done or alarms > 0 or slow > 0)


if __name__ == "__main__":
    sys.exit(main())
