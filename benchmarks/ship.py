"""Train the model that comes with the package on all recordings of a folder.

python benchmarks/ship.py DATA NAME

Writes src/stapes/models/NAME.safetensors. How good it is, is measured by cross-validation
(benchmarks/accuracy.py), since no recording is held out here.
"""

import sys
from pathlib import Path

from stapes import checkpoint, experiment
from stapes.config import ModelConfig, TrainingConfig, preset_sizes
from stapes.terminal import progress_bar

MODELS = Path(__file__).parent.parent / "src" / "stapes" / "models"


def main() -> None:
    data, name = sys.argv[1:]
    settings = TrainingConfig()
    with progress_bar() as progress:
        decoded = experiment.read(data, progress)
        everything = range(len(decoded.clips))
        config = ModelConfig(experiment.class_names(decoded.clips), **preset_sizes("classic"))
        state = experiment.learn(
            decoded,
            everything,
            config=config,
            settings=settings,
            on_step=experiment.step_reporter(progress, "training"),
        )
    about = experiment.about(decoded, everything, state, "classic", settings)
    MODELS.mkdir(exist_ok=True)
    path = MODELS / f"{name}.safetensors"
    checkpoint.save(path, checkpoint.Model(config, state.best, about))
    sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes, best epoch {state.best_epoch}\n")


if __name__ == "__main__":
    main()
