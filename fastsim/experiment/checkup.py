"""What this machine has for fastsim, and what is not there with what that costs."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from getpass import getuser
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import constants

import fastsim
from fastsim.errors import one_line
from fastsim.forecast.availability import availability
from fastsim.forecast.known import MODELS
from fastsim.forecast.record import ForecasterRecord

DISTRIBUTION = "fastsim-rl"
COMPILERS = ("c++", "g++", "clang++")


class Extra(NamedTuple):
    """Packages that are installed on request, and what cannot be done without them."""

    packages: tuple[str, ...]
    costs: str


EXTRAS = {
    "sb3": Extra(("stable-baselines3",), "no environments for Stable-Baselines3"),
    "pettingzoo": Extra(("pettingzoo",), "no PettingZoo environments of shared markets"),
    "rsl_rl": Extra(("rsl-rl-lib",), "no environments for rsl_rl"),
    "torchrl": Extra(("torchrl", "tensordict"), "no environments for TorchRL"),
    "nautilus": Extra(("nautilus_trader",), "no agents in NautilusTrader"),
    "wrappers": Extra(("array-api-compat",), "no vector wrappers of Gymnasium's around tensors"),
    "plot": Extra(("matplotlib",), "no pictures of an environment"),
    "calendars": Extra(("exchange_calendars",), "no exchange's own calendar for agents"),
    "yfinance": Extra(("yfinance",), "no `fastsim data fetch yfinance`"),
    "ccxt": Extra(("ccxt",), "no `fastsim data fetch ccxt`"),
    "fracast": Extra(("fracast",), "no forecaster fracast"),
    "onnx": Extra(("onnx", "onnxruntime", "onnxscript"), "no `fastsim export --format onnx`"),
    "tune": Extra(("optuna",), "no `fastsim forecast tune`"),
    "baselines": Extra(
        ("arch", "statsforecast", "scikit-learn"),
        "no classical forecasters, and no `python agents/baselines.py`",
    ),
    "tirex": Extra(("tirex-ts",), "no TiRex by its official package"),
    "tirex2": Extra(("tirex-2",), "no forecaster tirex2"),
}
"""By the name that pip is given in brackets."""


class Look(NamedTuple):
    """What was found of one thing."""

    name: str
    found: str  # what there is, or how to get it
    costs: str = ""  # what cannot be done as it is; nothing where nothing is missing


def checkup() -> dict[str, tuple[Look, ...]]:
    """Everything by section; what cannot be looked at is said instead of raised."""
    looks: dict[str, dict[str, Callable[[], Look]]] = {
        "machine": MACHINE,
        "extras": {name: partial(_extra, name) for name in EXTRAS},
        "forecasters": {record.name: partial(_forecaster, record) for record in MODELS},
        "caches": {name: partial(_cache, name, where) for name, where in CACHES.items()},
    }
    return {
        section: tuple(_tried(name, look) for name, look in each.items())
        for section, each in looks.items()
    }


def _tried(name: str, look: Callable[[], Look]) -> Look:
    """A look that never fails: it is for machines where something is wrong."""
    try:
        return look()
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        return Look(name, f"cannot be told ({reason})", "it may not work")


def _fastsim() -> Look:
    return Look("fastsim", f"{fastsim.__version__}, {Path(fastsim.__file__).parent}")


def _python() -> Look:
    return Look("Python", f"{platform.python_version()} on {platform.platform()}")


def _torch() -> Look:
    return Look("torch", str(torch.__version__))


def _gpu() -> Look:
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs"
        return Look("GPU", f"none; torch is {built}", "all runs on the CPU")
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return Look("GPU", f"{', '.join(names)}; CUDA {torch.version.cuda}")


def _triton() -> Look:
    found = _version("triton")
    if found is None:
        return Look("Triton", "not here; CUDA builds of torch have it", "no fused steps on a GPU")
    return Look("Triton", found)


def _numba() -> Look:
    found = _version("numba")
    if found is None:
        return Look("numba", "not here: pip install numba", "no fused steps on a CPU")
    return Look("numba", found)


def _compiler() -> Look:
    wanted = os.environ.get("CXX")
    names = (wanted,) if wanted else COMPILERS
    found = next((path for path in map(shutil.which, names) if path is not None), None)
    if found is None:
        named = f"CXX={wanted}, which is not there" if wanted else "none on the path"
        return Look("compiler", named, "no `fastsim export --format aoti`")
    return Look("compiler", found)


def _threads() -> Look:
    return Look("threads", f"torch {torch.get_num_threads()}, of {os.cpu_count()} cores")


MACHINE: dict[str, Callable[[], Look]] = {
    "fastsim": _fastsim,
    "Python": _python,
    "torch": _torch,
    "GPU": _gpu,
    "Triton": _triton,
    "numba": _numba,
    "compiler": _compiler,
    "threads": _threads,
}


def _extra(name: str) -> Look:
    extra = EXTRAS[name]
    versions = {package: _version(package) for package in extra.packages}
    here = ", ".join(f"{package} {found}" for package, found in versions.items() if found)
    if all(versions.values()):
        return Look(name, here)
    advice = f"pip install '{DISTRIBUTION}[{name}]'"
    return Look(name, f"{here}; {advice}" if here else advice, extra.costs)


def _forecaster(record: ForecasterRecord) -> Look:
    here = availability(record)
    if here.package.startswith("pip install"):
        return Look(record.name, here.package, "cannot forecast")
    revision = f", revision {here.revision[:12]}" if here.revision else ""
    digest = f", SHA-256 {here.digest}" if here.digest else ""
    missing = here.weights.startswith("not here")
    return Look(
        record.name,
        here.weights if missing else f"{here.weights}{revision}{digest}",
        "cannot forecast" if missing else "",
    )


def _hub() -> Path:
    return Path(constants.HF_HUB_CACHE)


def _numba_cache() -> Path:
    kernel = import_module("fastsim.env.kernels.numba_kernel")  # numba may be what is missing
    return Path(kernel.step_block.stats.cache_path)


def _triton_cache() -> Path:
    home = os.environ.get("TRITON_HOME") or Path.home()
    return Path(os.environ.get("TRITON_CACHE_DIR") or Path(home) / ".triton" / "cache")


def _inductor_cache() -> Path:
    usual = Path(tempfile.gettempdir()) / f"torchinductor_{getuser()}"
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or usual)


CACHES: dict[str, Callable[[], Path]] = {
    "weights": _hub,
    "forecasts": lambda: Path("runs") / "forecasts",
    "numba": _numba_cache,
    "Triton": _triton_cache,
    "Inductor": _inductor_cache,
}
"""Where things lie that are made once; all of them may be deleted, and are made again."""


def _cache(name: str, where: Callable[[], Path]) -> Look:
    path = where()
    if not path.is_dir():
        return Look(name, f"{path}, nothing yet")
    sizes = list(_sizes(path))
    return Look(name, f"{path}, {len(sizes):,} files of {sum(sizes) / 1e6:,.1f} MB")


def _sizes(folder: Path) -> Iterator[int]:
    """Of the files in a folder, each once, whatever comes and goes meanwhile."""
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                yield path.stat().st_size
        except OSError:
            continue


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
