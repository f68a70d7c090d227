"""Everything that is to be known of a GPU, in one call: whether it is right, and how fast it is.

    python benchmarks/gpu.py --quick
    python benchmarks/gpu.py --json benchmarks/results/gpu.json
    python benchmarks/gpu.py --sections ppo --only brief --device cpu
    python benchmarks/gpu.py --sections forecast --profile profiles
    python benchmarks/gpu.py --sections step --sweep --json benchmarks/results/sweep.json

Sections are measured one after the other, and each of their rows is written as soon as it is there:
one JSON object a line. A row that fails holds its error, and the next one begins; a section that
fails is one row. Each is held against its goal (`goals.py`), which is one of an H100 or H200.
`--quick` takes two minutes: what takes longer is shortened, and what no time is left for is said
to be skipped. `--device cpu` shows the way through, its figures are a CPU's; `--device cpu --quick`
takes sizes so small that they mean nothing.

The exit status is 1 if a check or a row failed. A missed goal is no failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import torch
from common import Row, header
from goals import GOALS, NOT_MEASURED, in_words, judged
from gpu_sections import check, forecast, machine, ppo, replay, step
from gpu_sections.measuring import FULL, QUICK, TINY, Bench, Case, Section
from rich.console import Console
from rich.table import Table

from fastsim.cli.ending import one_line_errors, read_options
from fastsim.devices import resolve_device

Name = Literal["machine", "check", "step", "policy", "ppo", "forecast", "replay"]
SHARES: dict[Name, float] = {
    "machine": 0.05,
    "check": 0.3,
    "step": 0.15,
    "policy": 0.05,
    "ppo": 0.2,
    "forecast": 0.2,
    "replay": 0.05,
}
"""Of the time of `--quick`; what a section leaves goes to the next."""
QUICK_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    sections: tuple[Name, ...] = get_args(Name)
    only: str = ""
    """Leave out rows whose names do not contain this."""
    device: str = "auto"
    quick: bool = False
    """Two minutes in all."""
    sweep: bool = False
    """Also try the warps and registers that programs of the step can have, in section `step`."""
    profile: Path | None = None
    """Also write the kernel times of every row to a file of this folder."""
    json: Path | None = None
    """Write the rows to this file, each as it is measured."""
    tests: tuple[Path, ...] = ()
    """Files of `gpu` tests; by default all that there are."""


def main(options: Options) -> int:
    """Measure, print, and say whether all went well: 0, or 1 if a check or a row failed."""
    device = str(resolve_device(options.device))
    sizes = FULL if not options.quick else QUICK if device != "cpu" else TINY
    rows = []
    with TemporaryDirectory() as folder, Writer(options.json) as writer:
        bench = Bench(device, sizes, Path(folder), options.profile)
        for row in measured(options, bench):
            writer.write(row)
            rows.append(row)
    print_table(rows)
    failed = [row for row in rows if "error" in row or row.get("passed") is False]
    return 1 if failed else 0


def measured(options: Options, bench: Bench) -> Iterator[Row]:
    """The rows of all sections, whatever becomes of any of them."""
    begun, spent = time.perf_counter(), 0.0
    for place, name in enumerate(options.sections):
        spent += SHARES[name] / sum(SHARES[each] for each in options.sections)
        deadline = begun + QUICK_SECONDS * spent if options.quick and bench.on_gpu else None
        for row in rows_of(section_of(name, options), bench, options.only, deadline):
            yield judged(header("gpu", bench.device) | {"section": name} | row, bench.on_gpu)
            if "error" in row and not answers(bench.device):
                yield from rows_elsewhere(replace(options, sections=options.sections[place + 1 :]))
                return


def answers(device: str) -> bool:
    """Whether the device still does anything: after some errors a process has lost it."""
    try:
        return float(torch.ones((), device=device)) == 1.0
    except Exception:
        return False


def rows_elsewhere(options: Options) -> Iterator[Row]:
    """The rows of the sections that are left, from a process of their own."""
    if not options.sections:
        return
    command = [sys.executable, __file__, "--device", options.device, "--only", options.only]
    command += ["--sections", *options.sections, *(["--quick"] if options.quick else [])]
    command += ["--sweep"] if options.sweep else []
    if options.profile is not None:
        command += ["--profile", str(options.profile)]
    if options.tests:
        command += ["--tests", *map(str, options.tests)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("{"):
                yield json.loads(line)


def section_of(name: Name, options: Options) -> Section:
    """What makes the cases of a section."""
    sections: dict[Name, Section] = {
        "machine": machine.cases,
        "check": partial(check.cases, files=options.tests),
        "step": partial(step.step_cases, sweep=options.sweep),
        "policy": step.policy_cases,
        "ppo": ppo.cases,
        "forecast": forecast.cases,
        "replay": replay.cases,
    }
    return sections[name]


def rows_of(section: Section, bench: Bench, only: str, deadline: float | None) -> Iterator[Row]:
    """The rows of one section; what fails is a row with its error, and the next one begins."""
    try:
        for case in section(bench):
            if only in case.name:
                yield row_of(case, bench, deadline)
    except Exception as error:
        yield {"case": "the section as a whole", "error": said(error)}


def row_of(case: Case, bench: Bench, deadline: float | None) -> Row:
    """One row: its figures, why it was skipped, or its error."""
    started = time.perf_counter()
    if deadline is not None and started > deadline and not case.always:
        return {"case": case.name, "skipped": "no time is left: ask for its section alone"}
    bench.case = case.name
    try:
        row = {"case": case.name} | case.measure(bench)
    except Exception as error:
        row = {"case": case.name, "error": said(error)}
    if bench.on_gpu:
        torch.cuda.empty_cache()
    return row | {"took_s": round(time.perf_counter() - started, 2)}


def said(error: Exception) -> str:
    """An error in one line, with where it came from."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{text[:600]} ({Path(place.filename).name}:{place.lineno})"


class Writer:
    """Rows go to a file as they come, or else to the standard output."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._file = path, None

    def __enter__(self) -> Writer:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, row: Row) -> None:
        """One line, on disk before the next row is measured."""
        line = json.dumps(row)
        if self._file is None:
            print(line, flush=True)
            return
        print(f"{row['case']}: {in_short(row)}", flush=True)
        self._file.write(f"{line}\n")
        self._file.flush()


SHOWN = {
    "env_steps_per_s": "steps/s",
    "train_frames_per_s": "frames/s",
    "frames_per_s": "frames/s",
    "forecasts_per_s": "forecasts/s",
    "bars_per_s": "bars/s",
    "copy_gb_per_s": "GB/s",
    "tflop_per_s": "TFLOP/s",
    "launch_us": "us a launch",
    "seconds": "s",
    "share_of_bandwidth": "of the bandwidth",
    "matrix_rate_share": "of the matrix rate",
    "tape_share": "of it for the tape",
    "peak_memory_gb": "GB",
    "tests_passed": "tests passed",
    "largest_difference": "off at most",
    "largest_relative_difference": "off at most, relative",
}
"""Figures that a person is shown of a row, and what they are called."""


def in_short(row: Row) -> str:
    """What a row says, for people."""
    for name, before in (("error", "FAILED: "), ("skipped", "skipped: ")):
        if name in row:
            return before + str(row[name])
    if "summary" in row:
        return str(row["summary"])
    found = [f"{in_words(row[name])} {unit}" for name, unit in SHOWN.items() if name in row]
    return ", ".join([*([] if row.get("passed", True) else ["FAILED"]), *found]) or "done"


def print_table(rows: list[Row]) -> None:
    """Every row beside its goal, then the goals that no row was for."""
    table = Table("case", "measured", "goal", "verdict")
    for row in rows:
        table.add_row(row["case"], in_short(row), row["goal"] or "", row["verdict"])
    cases = {row["case"] for row in rows if row["goal"]}
    for goal in GOALS:
        if goal.case not in cases:
            table.add_row(goal.case, "", goal.words, NOT_MEASURED)
    Console(width=140).print(table)


if __name__ == "__main__":
    with one_line_errors("gpu", Options):
        status = main(read_options(Options))
    sys.exit(status)
