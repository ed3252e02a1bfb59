"""A training step beside its peers: batch of 32, the classic network.

python benchmarks/train_step.py [--threads N] [--rounds N] [--batch N] [--without NAME ...]

The peers find a batch ready in memory; drawing and varying its segments, which ours does in the
step, is not counted for them. Their optimiser (AdamW) and loss are ours; only ours has averaged
weights, a unit for "none of the classes", and a check that the loss is finite.

Writes benchmarks/results/train_step.json and docs/images/train_step.png.
"""

from collections.abc import Callable
from typing import Any

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
from stapes.config import ModelConfig
from timing import Call

LEARNING_RATE, WEIGHT_DECAY = 0.01, 0.05
WHOLE, ALONE = "stapes, making its batch", "stapes, batch ready"


def main() -> None:
    parser = machine.arguments(__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out")
    given = parser.parse_args()
    config = ModelConfig(ours.CLASSES)
    settings = ours.settings(batch_size=given.batch)
    facts = machine.describe(threads=given.threads)
    with machine.only(given.threads):
        torch.set_num_threads(given.threads)
        candidates = {
            name: ways
            for name, make in MAKERS.items()
            if name not in given.without and (ways := make(config, given.batch, given.threads))
        }
        chosen, calls = choose(candidates)
        whole, alone = ours.training_steps(config, settings)
        calls |= {WHOLE: whole, ALONE: alone}
        seconds = timing.interleaved(calls, rounds=given.rounds)
        peaks = machine.peaks(threads=given.threads)
    results = timing.summaries(seconds, ours=WHOLE)
    title = f"A training step, batch of {given.batch}"
    presenting.show_times(title, results)
    alone_seconds = results[ALONE]["seconds"]["median"]
    limit = work.limits(config, batch_size=given.batch, peaks=peaks, seconds=alone_seconds)
    say_limits(limit, alone_seconds)
    more = f"median of {given.rounds} rounds, line: quartiles · peers get their batch ready"
    figure = presenting.bar_chart(
        [presenting.time_panel(title, results)], small_print=presenting.caption(facts, more=more)
    )
    found = {"machine": facts, "batch_size": given.batch, "chosen": chosen}
    presenting.write("train_step", found | {"results": results, "limits": limit}, figure)


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


def keras_steps(config: ModelConfig, batch: int, threads: int) -> dict[str, Call]:
    """Keras' own step, and one written by hand, both with and without XLA."""
    tf = peers.tensorflow(threads)
    import keras

    x, y = (tf.constant(array) for array in random_batch(config, batch))
    ways: dict[str, Call] = {}
    for compiler, jit in {"": False, " and XLA": True}.items():
        model = keras_model(config, jit=jit)
        ways[f"train_on_batch{compiler}"] = lambda model=model: model.train_on_batch(x, y)
        by_hand = tf.function(tf_step(tf, keras_model(config, jit=jit)), jit_compile=jit)
        ways[f"tf.function{compiler}"] = lambda by_hand=by_hand: float(by_hand(x, y))
    keras.config.disable_interactive_logging()
    return ways


def keras_model(config: ModelConfig, *, jit: bool) -> Any:
    import keras

    model = peers.keras_network(config)
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


def eager_steps(config: ModelConfig, batch: int, threads: int) -> dict[str, Call]:
    return {"eager": torch_step(peers.TorchNetwork(config), config, batch)}


def channels_last_steps(config: ModelConfig, batch: int, threads: int) -> dict[str, Call]:
    """With the filters as they are, and padded: a larger network, whose cost is that of ours."""
    return {
        f"{n} filters": torch_step(
            peers.TorchNetwork(config, n_filters=n, channels_last=True), config, batch
        )
        for n in (config.n_filters, peers.LANES)
    }


def compiled_steps(config: ModelConfig, batch: int, threads: int) -> dict[str, Call]:
    """Loss and gradients compiled, in both layouts; nothing if that does not work here."""
    presenting.say("torch.compile: compiling, which takes minutes")
    ways = {}
    for name, options in peers.COMPILED_FORMS.items():
        network = peers.TorchNetwork(config, **options)
        step = torch_step(network, config, batch, loss_of=torch.compile(loss_by(network)))
        if peers.works(step, name=f"torch.compile, {name}"):
            ways[name] = step
    return ways


Loss = Callable[[Tensor, Tensor], Tensor]


def loss_by(network: peers.TorchNetwork) -> Loss:
    return lambda x, y: F.binary_cross_entropy_with_logits(network(x), y)


def torch_step(
    network: peers.TorchNetwork, config: ModelConfig, batch: int, *, loss_of: Loss | None = None
) -> Call:
    """Forward, backward, and the optimiser in one call for all weights."""
    x, y = map(torch.from_numpy, random_batch(config, batch))
    loss_of = loss_of or loss_by(network)
    optimizer = torch.optim.AdamW(
        network.train().parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def random_batch(config: ModelConfig, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Normalised noise [B, T], and targets [B, 1]."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, config.segment_length), np.float32)
    return x, (np.arange(batch) % 2).astype(np.float32)[:, None]


MAKERS = {
    "Keras": keras_steps,
    "PyTorch": eager_steps,
    "PyTorch, channels-last": channels_last_steps,
    "torch.compile": compiled_steps,
}

if __name__ == "__main__":
    main()
