"""Micro-ACDNet on ESC-10, trained as its authors say, at its last epoch and at its best.

Their program judges each of 2,000 epochs by the fold that is reported, and keeps the best. A best
epoch chosen so says more than anybody gets of recordings that did not choose it: both are told
here, for the same folds as ours.

python benchmarks/micro_acdnet.py DATA [--folds 1 2 3 4 5] [--epochs 750] [--seed 0]

In 750 epochs it hears as many seconds of sound as `large` does.

Each fold is trained on one thread; folds can be trained side by side, by several calls. They are
kept in build/micro_acdnet, and once all are there the call that finds them writes
benchmarks/results/micro_acdnet.json.

The network, its sizes and its training are those of Mohaimenuzzaman et al. 2023, "Environmental
sound classification on the edge" (doi:10.1016/j.patcog.2022.109025) and of the authors' program
(https://github.com/mohaimenz/acdnet); the mixing is between-class learning by Tokozume et al. 2018
(arXiv:1711.10282).
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import machine
import presenting
from stapes import evaluation, experiment
from stapes.config import ModelConfig
from stapes.files import write_json
from stapes.measurement import targets_of
from stapes.progress import silent
from stapes.segments import Waveform
from stapes.splits import folds

BUILD = Path(__file__).parent.parent / "build" / "micro_acdnet"

RATE, LENGTH, CROPS = 20_000, 30_225, 10
FRAME, HOP = 2048, 1024
CHANNELS = (7, 20, 10, 14, 22, 31, 35, 41, 51, 67, 69)
"""Filters that pruning left of each of ACDNet's convolutions."""

BATCH, PEAK, DECAY = 64, 0.1, 5e-4
DROPS, WARM_EPOCHS = (0.3, 0.6, 0.9), 10
LOOKS = 10
"""Epochs between two looks at the fold: the authors look at every one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--folds", nargs="*", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--epochs", type=int, default=750)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    places = [BUILD / f"{given.epochs}-{given.seed}-{fold}.json" for fold in range(1, 6)]
    config = ModelConfig(("one", "other"), sample_rate=RATE)
    decoded, _ = experiment.read(given.data, silent, config=config)
    splits = folds(decoded.clips, seed=0)
    targets = targets_of(decoded.clips, experiment.class_names(decoded.clips))
    sounds = [np.pad(waveform, LENGTH // 2) for waveform in decoded.waveforms]
    for fold in given.folds:
        if not places[fold - 1].exists():
            learnt, held = splits[fold - 1]
            training = Training(sounds, targets, learnt, held, seed=given.seed)
            BUILD.mkdir(parents=True, exist_ok=True)
            write_json(places[fold - 1], training.run(epochs=given.epochs, name=f"fold {fold}"))
    if all(place.exists() for place in places):
        found = [json.loads(place.read_text()) for place in places]
        rights = np.concatenate([np.array(fold["right"]) for fold in found])
        order = np.concatenate([list(held) for _, held in splits])
        sources = [decoded.clips[i].source for i in order]
        numbers = told(found) | {
            "epochs": given.epochs,
            "seed": given.seed,
            "interval": evaluation.interval(rights, sources),
            "folds": found,
            "machine": machine.describe(threads=1),
        }
        presenting.write_json(presenting.RESULTS / "micro_acdnet.json", numbers)
        presenting.say(json.dumps({key: numbers[key] for key in ("last", "best", "interval")}))


def told(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of clips right: at the last epochs, and at each fold's best."""
    counts = [len(fold["right"]) for fold in found]
    return {
        "parameters": found[0]["parameters"],
        "last": sum(sum(fold["right"]) for fold in found) / sum(counts),
        "best": float(np.average([max(fold["seen"]) for fold in found], weights=counts)),
    }


# ---- the network ----------------------------------------------------------------------------


def block(n_in: int, n_out: int, kernel: tuple[int, int], **shape: Any) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, kernel, bias=False, **shape)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU())


class MicroAcdnet(nn.Module):
    """Two convolutions along time make 20 rows of 10 ms; the others see them as a picture."""

    def __init__(self, n_classes: int) -> None:
        """Weights as the authors draw them."""
        super().__init__()
        first, rows, *others = CHANNELS
        self.ears = nn.Sequential(
            block(1, first, (1, 9), stride=(1, 2)),
            block(first, rows, (1, 5), stride=(1, 2)),
            nn.MaxPool2d((1, RATE // 4 // 100)),
        )
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(zip((1, *others), others, strict=False)):
            layers.append(block(n_in, n_out, (3, 3), padding=1))
            if i % 2 == 0:  # behind the first, and then behind every second
                layers.append(nn.MaxPool2d(2 if i < 8 else (1, 2)))
        layers += [nn.Dropout(0.2), block(others[-1], n_classes, (1, 1))]
        self.eyes = nn.Sequential(*layers)
        self.head = nn.Linear(n_classes, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="sigmoid")
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of waveforms: [B, T] -> [B, C]."""
        rows = self.ears(x[:, None, None]).permute(0, 2, 1, 3)
        logits: Tensor = self.head(self.eyes(rows).mean((2, 3)))
        return logits


# ---- its training ---------------------------------------------------------------------------


class Training:
    """One fold."""

    def __init__(
        self,
        sounds: list[Waveform],
        targets: np.ndarray,
        learnt: Any,
        held: Any,
        *,
        seed: int,
    ) -> None:
        """Learn from some of the sounds, and be judged by those held out."""
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.sounds, self.targets, self.learnt = sounds, targets, np.array(learnt)
        self.held = targets[list(held)]
        self.n_classes = int(targets.max()) + 1
        self.network = MicroAcdnet(self.n_classes)
        self.crops = torch.from_numpy(np.concatenate([crops(sounds[i]) for i in held]))
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), lr=PEAK, momentum=0.9, weight_decay=DECAY, nesterov=True
        )

    def run(self, *, epochs: int, name: str) -> dict[str, Any]:
        """Train, and look at the fold now and then, and behind the last epoch."""
        begin, seen = time.perf_counter(), []
        for epoch in range(1, epochs + 1):
            drops = sum(epoch > share * epochs for share in DROPS)
            for group in self.optimiser.param_groups:
                group["lr"] = PEAK * 0.1 ** (1 if epoch <= WARM_EPOCHS else drops)
            for _ in range(-(-len(self.learnt) // BATCH)):
                self.step()
            if epoch % LOOKS == 0 or epoch == epochs:
                right = self.right()
                seen.append(float(right.mean()))
            if epoch % 50 == 0:
                presenting.say(
                    f"{name}, epoch {epoch}, {time.perf_counter() - begin:,.0f} s:"
                    f" {seen[-1]:.3f}, best {max(seen):.3f}"
                )
        return {
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "right": right.tolist(),
            "seen": seen,
            "seconds": time.perf_counter() - begin,
        }

    def step(self) -> None:
        """Learn from one batch."""
        waveforms, shares = zip(*(self.mixed() for _ in range(BATCH)), strict=True)
        logits = self.network(torch.from_numpy(np.stack(waveforms)))
        wanted = torch.from_numpy(np.stack(shares))
        loss = functional.kl_div(logits.log_softmax(1), wanted, reduction="batchmean")
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    @torch.no_grad()
    def right(self) -> np.ndarray:
        """Whether each clip of the fold is called right by the mean over its crops."""
        self.network.eval()
        shares = torch.cat([self.network(some).softmax(1) for some in self.crops.split(BATCH)])
        self.network.train()
        called = shares.view(-1, CROPS, self.n_classes).mean(1).argmax(1)
        return called.numpy() == self.held

    def mixed(self) -> tuple[Waveform, np.ndarray]:
        """Two pieces of different classes, mixed by how loud they are, and the share of each."""
        while True:
            i, j = self.rng.choice(self.learnt, 2)
            if self.targets[i] != self.targets[j]:
                break
        a, b = self.drawn(self.sounds[i]), self.drawn(self.sounds[j])
        share = self.rng.random()
        loudness = 10 ** ((loudness_db(a) - loudness_db(b)) / 20)
        weight = 1 / (1 + loudness * (1 - share) / share)
        mixture = (weight * a + (1 - weight) * b) / np.hypot(weight, 1 - weight)
        gain = 10 ** (self.rng.uniform(-6, 6) / 20)
        wanted = np.zeros(self.n_classes, np.float32)
        wanted[self.targets[[i, j]]] = share, 1 - share
        return (gain * mixture).astype(np.float32), wanted

    def drawn(self, sound: Waveform) -> Waveform:
        """A piece, up to a quarter faster or slower."""
        rate = 1.25 ** self.rng.uniform(-1, 1)
        places = np.arange(LENGTH) * rate
        start = self.rng.uniform(0, len(sound) - places[-1] - 2)
        whole = (start + places).astype(int)
        rest = (start + places - whole).astype(np.float32)
        return sound[whole] * (1 - rest) + sound[whole + 1] * rest


def crops(sound: Waveform) -> Waveform:
    """Pieces from end to end: [T] -> [CROPS, LENGTH]."""
    starts = np.linspace(0, len(sound) - LENGTH, CROPS).astype(int)
    return np.stack([sound[start : start + LENGTH] for start in starts])


def loudness_db(piece: Waveform) -> float:
    """A-weighted (IEC 61672-1), of the loudest frame."""
    frames = np.lib.stride_tricks.sliding_window_view(piece, FRAME)[::HOP]
    powers = np.abs(np.fft.rfft(frames * np.hanning(FRAME).astype(np.float32))) ** 2
    return float(10 * np.log10(max((powers @ A_WEIGHTS).max(), 1e-12)))


def a_weights() -> np.ndarray:
    """Of the power at each bin of a frame."""
    f = np.fft.rfftfreq(FRAME, 1 / RATE) ** 2
    top = 12194**2 * f**2
    bottom = (f + 20.6**2) * np.sqrt((f + 107.7**2) * (f + 737.9**2)) * (f + 12194**2)
    return (10 ** (2.0 / 20) * top / bottom) ** 2


A_WEIGHTS = a_weights().astype(np.float32)

if __name__ == "__main__":
    main()
