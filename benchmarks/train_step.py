"""A training step beside its peers: batch of 32, the classic network.

python benchmarks/train_step.py [--threads N] [--rounds N] [--batch N] [--without NAME ...]

The peers find a batch ready in memory; drawing and varying its segments, which ours does in the
step, is not counted for them. Their optimiser (AdamW) and loss are ours; only ours has averaged
weights, a unit for "none of the classes", and a check that the loss is finite. All peers begin with
the same weights, and the loss of their first step must be what ours finds with these.

Writes benchmarks/results/train_step.json and docs/images/train_step.png.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import machine
import ours
import peers
import presenting
import timing
import work
from stapes.batches import PLANNED
from stapes.config import ModelConfig
from timing import Call

LEARNING_RATE, WEIGHT_DECAY = 0.01, 0.05
MOST_LOSS_APART = 1e-4
"""By how much the loss of a peer's first step may differ from ours."""

WHOLE, ALONE = "stapes, making its batch", "stapes, batch ready"


def main() -> None:
    parser = machine.arguments(__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out")
    given = parser.parse_args()
    start = Start.of(ModelConfig(ours.CLASSES), batch_size=given.batch)
    facts = machine.describe(threads=given.threads)
    with machine.only(given.threads):
        torch.set_num_threads(given.threads)
        makers = {name: make for name, make in MAKERS.items() if name not in given.without}
        ways = {n: begun(n, make(start, given.threads), start) for n, make in makers.items()}
        chosen, calls = choose({name: those for name, those in ways.items() if those})
        whole, alone = ours.training_steps(start.config, ours.settings(batch_size=given.batch))
        calls |= {WHOLE: whole, ALONE: alone}
        seconds = timing.interleaved(calls, rounds=given.rounds, periods={WHOLE: PLANNED})
        peaks = machine.peaks(threads=given.threads)
    results = timing.summaries(seconds, ours=WHOLE)
    title = f"A training step, batch of {given.batch}"
    presenting.show_times(title, results)
    alone_seconds = results[ALONE]["seconds"]["median"]
    limit = work.limits(start.config, batch_size=given.batch, peaks=peaks, seconds=alone_seconds)
    say_limits(limit, alone_seconds)
    more = f"median of {given.rounds} rounds, line: quartiles · peers get their batch ready"
    figure = presenting.bar_chart(
        [presenting.time_panel(title, results)], small_print=presenting.caption(facts, more=more)
    )
    found = {"machine": facts, "batch_size": given.batch, "chosen": chosen}
    presenting.write("train_step", found | {"results": results, "limits": limit}, figure)


@dataclass(frozen=True, slots=True)
class Start:
    """Where all peers begin.

    Attributes:
        config: the network's numbers.
        network: its weights.
        x: what they learn from, normalised noise [B, T].
        y: targets [B, 1].
        loss: what ours finds of these.
    """

    config: ModelConfig
    network: peers.TorchNetwork
    x: np.ndarray
    y: np.ndarray
    loss: float

    @classmethod
    def of(cls, config: ModelConfig, *, batch_size: int) -> Self:
        """Random weights, and running statistics that belong to them; a random batch."""
        network = peers.random_torch(config)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch_size, config.segment_length), np.float32)
        y = (np.arange(batch_size) % 2).astype(np.float32)[:, None]
        return cls(config, network, x, y, ours.training_loss(config, peers.arrays(network), x, y))


def begun(name: str, ways: dict[str, Call], start: Start) -> dict[str, Call]:
    """The ways that work here, after a first step of each; its loss must be that of ours."""

    def begin(way: str) -> None:
        loss = ways[way]()
        if abs(loss - start.loss) > MOST_LOSS_APART:
            raise SystemExit(f"{name}, {way}: its first loss is {loss:.6f}, ours {start.loss:.6f}")

    return {w: ways[w] for w in ways if peers.works(partial(begin, w), name=f"{name}, {w}")}


def choose(candidates: dict[str, dict[str, Call]]) -> tuple[dict[str, str], dict[str, Call]]:
    """The quickest way of each peer, under the peer's name and that of the way."""
    chosen, calls = {}, {}
    for name, ways in candidates.items():
        chosen[name] = timing.fastest(ways)
        calls[f"{name}, {chosen[name]}" if len(ways) > 1 else name] = ways[chosen[name]]
        presenting.say(f"{name}: {chosen[name]} of {', '.join(ways)}")
    return chosen, calls


def say_limits(limit: dict[str, Any], seconds: float) -> None:
    presenting.say(
        f"A step is {limit['multiply_adds'] / 1e6:.0f} M multiply-adds "
        f"({limit['forward_multiply_adds_a_segment'] / 1e6:.2f} M a segment forward) and "
        f"{limit['bytes'] / 1e6:.0f} MB read and written.\n"
        f"This machine does {limit['peaks']['multiply_adds_a_second'] / 1e9:.1f} G multiply-adds "
        f"a second (matrix products) and {limit['peaks']['bytes_a_second'] / 1e9:.1f} GB a second "
        f"(copies), so a step takes {limit['least_seconds_computing'] * 1e3:.2f} ms at least to "
        f"compute, and {limit['least_seconds_moving'] * 1e3:.2f} ms to move.\n"
        f"With a ready batch ours takes {seconds * 1e3:.2f} ms: "
        f"{limit['times_the_limit_of_computing']:.1f} times the first, "
        f"{limit['times_the_limit_of_moving']:.1f} times the second."
    )


# ---- the peers ------------------------------------------------------------------------------


def keras_steps(start: Start, threads: int) -> dict[str, Call]:
    """Keras' own step, and one written by hand, both with and without XLA."""
    tf = peers.tensorflow(threads)
    import keras

    x, y = tf.constant(start.x), tf.constant(start.y)
    ways: dict[str, Call] = {}
    for compiler, jit in {"": False, " and XLA": True}.items():
        model = keras_model(start, jit=jit)
        ways[f"train_on_batch{compiler}"] = lambda model=model: model.train_on_batch(x, y)
        by_hand = tf.function(tf_step(tf, keras_model(start, jit=jit)), jit_compile=jit)
        ways[f"tf.function{compiler}"] = lambda by_hand=by_hand: float(by_hand(x, y))
    keras.config.disable_interactive_logging()
    return ways


def keras_model(start: Start, *, jit: bool) -> Any:
    import keras

    model = peers.keras_network(start.config, peers.arrays(start.network))
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit)
    optimizer.build(model.trainable_variables)
    return model


def tf_step(tf: Any, model: Any) -> Callable[[Any, Any], Any]:
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.loss(y, model(x, training=True))
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return step


def eager_steps(start: Start, threads: int) -> dict[str, Call]:
    return {"eager": torch_step(start, {})}


def channels_last_steps(start: Start, threads: int) -> dict[str, Call]:
    """With the filters as they are, and padded: a larger network, whose cost is that of ours."""
    return {
        f"{n} filters": torch_step(start, {"n_filters": n, "channels_last": True})
        for n in (start.config.n_filters, peers.LANES)
    }


def compiled_steps(start: Start, threads: int) -> dict[str, Call]:
    """Loss and gradients compiled, in both layouts."""
    presenting.say("torch.compile: compiling, which takes minutes")
    return {
        name: torch_step(start, options, prepare=torch.compile)
        for name, options in peers.COMPILED_FORMS.items()
    }


Loss = Callable[[Tensor, Tensor], Tensor]


def torch_step(
    start: Start, form: dict[str, Any], *, prepare: Callable[[Loss], Loss] | None = None
) -> Call:
    """Forward, backward, and the optimiser in one call for all weights."""
    network = peers.like(start.network, start.config, **form).train()
    x, y = torch.from_numpy(start.x), torch.from_numpy(start.y)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(network(x), y)

    find_loss = prepare(loss_of) if prepare else loss_of
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = find_loss(x, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


MAKERS = {
    "Keras": keras_steps,
    "PyTorch": eager_steps,
    "PyTorch, channels-last": channels_last_steps,
    "torch.compile": compiled_steps,
}

if __name__ == "__main__":
    main()
