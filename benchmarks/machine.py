"""The machine: what it is, how many of its processors are used, and how fast they could be."""

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from stapes import native
from stapes.threads import thread_count

PACKAGES = (
    "stapes",
    "numpy",
    "soundfile",
    "soxr",
    "torch",
    "keras",
    "tensorflow-cpu",
    "tensorflow",
    "onnx",
    "onnxruntime",
    "openvino",
)

MATRIX_SIZES = (96, 128, 192, 256)
"""Three float32 matrices of these sizes lie in a processor's own cache."""

COPY_BYTES = 1 << 26
"""Copied by each thread: more than the caches hold."""

PEAK_SECONDS = 0.3

BUSY = 0.5
"""A load of other programs that disturbs; libraries that wait for all their threads most of all."""


def arguments(description: str | None, *, rounds: int = 15) -> argparse.ArgumentParser:
    """The options that all speed benchmarks take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=thread_count())
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser


def describe(*, threads: int) -> dict[str, Any]:
    """What a reader must know to judge the numbers; a busy machine is told on the terminal.

    Two processors may be two threads of one core, and then compute no more than one: rented
    machines do not always say so, so it is measured.
    """
    load = os.getloadavg()[0]
    if load > BUSY:
        sys.stderr.write(f"this machine is busy (load {load:.1f}): do not publish these numbers\n")
    return {
        "processor": processor_model(),
        "processors": os.cpu_count(),
        "threads": threads,
        "processors_compute_times_one": round(
            _multiply_adds(thread_count()) / _multiply_adds(1), 2
        ),
        "kernels": native.kernels(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_before": round(load, 2),
        "versions": {"python": platform.python_version()} | versions(PACKAGES),
    }


def processor_model() -> str:
    """The name that the processor gives itself."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def only(threads: int) -> Iterator[None]:
    """This many processors and no more, for NumPy's own threads, too; then as before.

    Libraries that count the processors when they start are told the number, too, by their users.
    """
    with kept_to(threads), threadpool_limits(threads):
        yield


@contextmanager
def kept_to(processors: int) -> Iterator[None]:
    """This many processors, for this thread and those that it starts; then as before."""
    if not hasattr(os, "sched_setaffinity"):
        if processors != thread_count():
            raise SystemExit("--threads needs Linux: elsewhere a process has all processors")
        yield
        return
    before = os.sched_getaffinity(0)
    if not 1 <= processors <= len(before):
        raise SystemExit(f"--threads is {processors}: give 1 to {len(before)}")
    os.sched_setaffinity(0, sorted(before)[:processors])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def peaks(*, threads: int) -> dict[str, float]:
    """The most multiply-adds a second, and the most bytes read and written a second.

    By products of float32 matrices that fit the caches, and by copies that do not. Memory that is
    written is often read first, which is not counted.
    """
    copies = 2 * COPY_BYTES * _calls_a_second(_copy, threads)
    return {"multiply_adds_a_second": _multiply_adds(threads), "bytes_a_second": copies}


def _multiply_adds(threads: int) -> float:
    with threadpool_limits(1):  # each thread of ours multiplies matrices of its own
        return max(size**3 * _calls_a_second(_product(size), threads) for size in MATRIX_SIZES)


def _product(size: int) -> Callable[[], Callable[[], Any]]:
    def make() -> Callable[[], Any]:
        a, b = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
        out = np.empty_like(a)
        return lambda: np.matmul(a, b, out=out)

    return make


def _copy() -> Callable[[], Any]:
    source = np.ones(COPY_BYTES // 4, np.float32)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def _calls_a_second(make: Callable[[], Callable[[], Any]], threads: int) -> float:
    """Calls a second of all threads together, each with its own data."""

    def work(call: Callable[[], Any]) -> float:
        call()
        n, started = 0, time.perf_counter()
        while time.perf_counter() - started < PEAK_SECONDS:
            call()
            n += 1
        return n / (time.perf_counter() - started)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, [make() for _ in range(threads)]))
