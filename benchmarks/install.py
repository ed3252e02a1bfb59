"""What installing takes on the disk, and importing in time: stapes alone beside the peers.

python benchmarks/install.py [--folder FOLDER] [--rounds 7] [--only NAME ...]

Each is installed into a clean environment of its own below FOLDER, which is kept, and used again
if it is whole; ours is always made anew. The size is that of site-packages without pip and
setuptools. Imports are whole processes, in turns, less a process that does nothing. stapes imports
most of itself when it is first used, so it is also timed with its model loaded; the peers load
nothing. Nor do they read audio files. Which PyTorch comes, with CUDA or without, is pip's choice:
PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu has it without.

Writes benchmarks/results/install.json and docs/images/install.png.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import machine
import presenting
import timing
from presenting import Panel

ROOT = Path(__file__).parent.parent
REQUIREMENTS = Path(__file__).parent / "peers.txt"
NOT_OURS = ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack")
IMPORTS = {
    "stapes": "stapes",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "PyTorch": "torch",
    "TensorFlow": "tensorflow",
}
DISTRIBUTIONS = {
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "PyTorch": "torch",
    "TensorFlow": "tensorflow-cpu",
}
LOADED = "stapes, its model loaded"
FINISHED = "finished"
"""A file that is written into an environment when all is installed."""


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(tempfile.gettempdir()) / "stapes-environments"
    arguments.add_argument("--folder", type=Path, default=default)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--only", nargs="*", default=list(IMPORTS), choices=list(IMPORTS))
    given = arguments.parse_args()
    facts = machine.describe(threads=machine.thread_count())
    pythons = {name: environment(given.folder.resolve(), name) for name in given.only}
    sizes = {name: installed_bytes(python) for name, python in pythons.items()}
    found = {"machine": facts, "bytes": sizes}
    found["versions"] = {name: version(python, name) for name, python in pythons.items()}
    found["import_seconds"] = imports(pythons, rounds=given.rounds)
    show(found)
    small_print = presenting.caption(
        facts, more=f"import: median of {given.rounds} processes, line: quartiles"
    )
    presenting.write("install", found, presenting.bar_chart(panels(found), small_print=small_print))


def environment(folder: Path, name: str) -> Path:
    """The Python of an environment with nothing but one package and what that needs."""
    home = folder / re.sub(r"\W", "_", name.lower())
    python = home / "bin" / "python"
    wanted = str(ROOT) if name == "stapes" else requirement(DISTRIBUTIONS[name])
    mark = home / FINISHED
    if name != "stapes" and mark.exists() and mark.read_text() == wanted:
        return python
    presenting.say(f"{name}: installing {Path(wanted).name} into a clean environment")
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", wanted], check=True)
    mark.write_text(wanted)
    return python


def requirement(distribution: str) -> str:
    """The line of the peers' requirements for one of them."""
    lines = REQUIREMENTS.read_text().splitlines()
    return next(line for line in lines if line.split("==")[0] == distribution)


def installed_bytes(python: Path) -> int:
    """Bytes of all files in site-packages, but for what every environment has."""
    (folder,) = python.parent.parent.glob("lib/python*/site-packages")
    kept = [
        path
        for path in folder.iterdir()
        if re.split(r"[-.]", path.name.lower())[0] not in NOT_OURS
        and path.name != "distutils-precedence.pth"
    ]
    files = [file for path in kept for file in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())


def version(python: Path, name: str) -> str:
    """What is installed there."""
    distribution = DISTRIBUTIONS.get(name, name)
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def imports(pythons: Mapping[str, Path], *, rounds: int) -> dict[str, Any]:
    """Seconds of an import in a fresh process, less those of a process without one."""
    programs = {name: (python, f"import {IMPORTS[name]}") for name, python in pythons.items()}
    if "stapes" in pythons:
        programs[LOADED] = (pythons["stapes"], "import stapes; stapes.load('cats-dogs')")
    programs["nothing"] = (next(iter(pythons.values())), "pass")
    seconds: timing.Seconds = {name: [] for name in programs}
    for round_ in range(rounds + 1):  # the first reads the files from the disk
        for name, (python, code) in programs.items():
            started = time.perf_counter()
            subprocess.run([python, "-c", code], check=True, capture_output=True, cwd="/")
            if round_:
                seconds[name].append(time.perf_counter() - started)
    nothing = np.array(seconds.pop("nothing"))
    return {name: timing.summary((values - nothing).tolist()) for name, values in seconds.items()}


def show(found: Mapping[str, Any]) -> None:
    """A table of both."""
    times = found["import_seconds"]
    rows = []
    for name in times:
        size = found["bytes"].get(name)
        megabytes = f"{size / 1e6:,.0f}" if size else ""
        spread = [presenting.milliseconds(times[name][key]) for key in ("median", "min", "max")]
        rows.append((name, found["versions"].get(name, ""), megabytes, *spread))
    head = ("", "version", "MB", "import, median ms", "from", "to")
    presenting.show("Installed size and import", head, rows)


def panels(found: Mapping[str, Any]) -> list[Panel]:
    """The largest and the slowest at the top."""
    sizes = sorted(found["bytes"].items(), key=lambda item: -item[1])
    ours = found["bytes"].get("stapes", 0)
    size_rows = {name: (n / 1e6, f"{n / 1e6:,.0f} MB{beside(n, ours)}") for name, n in sizes}
    times = sorted(found["import_seconds"].items(), key=lambda item: -item[1]["median"])
    time_rows = {
        name: (1e3 * t["median"], f"{presenting.milliseconds(t['median'])} ms") for name, t in times
    }
    spread = {name: (1e3 * t["lower_quartile"], 1e3 * t["upper_quartile"]) for name, t in times}
    return [
        Panel("Installed, with all that it needs", "megabytes", size_rows, {}),
        Panel("Import in a fresh process", "milliseconds", time_rows, spread),
    ]


def beside(n_bytes: int, ours: int) -> str:
    """How many times ours, if it is not ours."""
    return f"  ·  {n_bytes / ours:.1f} × stapes" if ours and n_bytes != ours else ""


if __name__ == "__main__":
    sys.exit(main())
