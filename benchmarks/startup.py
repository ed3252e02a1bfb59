"""How long a command takes to answer: whole processes, interleaved, median of the wall time.

python benchmarks/startup.py [RECORDING]

Writes benchmarks/results/startup.json.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from stapes.files import write_json

RESULTS = Path(__file__).parent / "results"
N_RUNS = 11
STAPES = [sys.executable, "-c", "from stapes.cli import main; main()"]


def main() -> None:
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "stapes --help": [*STAPES, "--help"],
        "import stapes": [sys.executable, "-c", "import stapes"],
    }
    if len(sys.argv) > 1:
        commands["stapes predict cats-dogs RECORDING"] = [
            *STAPES,
            "predict",
            "cats-dogs",
            sys.argv[1],
        ]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(N_RUNS):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        sys.stdout.write(
            f"{name}: {median:.3f} s ({min(seconds[name]):.3f} to {max(seconds[name]):.3f})\n"
        )
    write_json(RESULTS / "startup.json", {"median_seconds": medians, "seconds": seconds})


if __name__ == "__main__":
    main()
