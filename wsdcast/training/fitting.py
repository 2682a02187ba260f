"""The training loop with what surrounds it: progress, validation, a log, checkpoints, and signals that stop it."""

from __future__ import annotations

import csv
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from statistics import mean
from typing import Any, Generic

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

import torch
from torch import Tensor, nn

from wsdcast.runs import processes
from wsdcast.runs.devices import compiled
from wsdcast.runs.errors import StoppedError, UserError
from wsdcast.runs.progress import note, track
from wsdcast.runs.recipes import Optimisation, TrainingLog
from wsdcast.training import checkpoints
from wsdcast.training.loop import Batch, BatchOf, Step, Unread, fit, read
from wsdcast.training.state import Network as Model
from wsdcast.training.state import Training

READ_TOGETHER = {"cpu": 1, "cuda": 20}
"""Steps that are read at once, by the kind of device: to read them the host waits for a GPU, which meanwhile runs out of work."""

ROWS = 5000
"""Rows of the log of losses: a longer training writes means over several steps."""


@dataclass
class History:
    """What a training has seen.

    Attributes:
        losses: one row for each step, or for several: the last step, and means of what :class:`Step` has.
        validations: one row for each validation: the step, then scores by name.
        best: the lowest first score of a validation.
        seconds: how long it took, all parts together.
    """

    losses: list[list[float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
    best: float = math.inf
    seconds: float = 0.0

    def write(self, directory: Path, name: str) -> None:
        """Write ``NAME-losses.csv`` and, if there was any, ``NAME-validations.csv``."""
        tables: dict[str, list[list[Any]]] = {"losses": [[part.name for part in fields(Step)], *self.losses]}
        if self.validations:
            tables["validations"] = [list(self.validations[0]), *(list(row.values()) for row in self.validations)]
        for kind, rows in tables.items():
            with (directory / f"{name}-{kind}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(rows)


@dataclass(frozen=True)
class Fitted(Generic[Model]):
    """A trained network: the one with averaged weights, how it went, and by which settings."""

    network: Model
    history: History
    settings: Optimisation

    def facts(self, label: str) -> dict[str, str]:
        """How it went in words, for a summary; ``label`` begins each key."""
        rows, settings = self.history.losses, self.settings
        tail = mean(row[1] for row in rows[-max(1, len(rows) // 10) :])
        waiting = mean(row[-1] for row in rows)
        return {
            f"{label} loss": f"{tail:.4f}, mean of the last tenth of {settings.steps} steps of {settings.batch * settings.accumulate}",
            f"{label} time": f"{self.history.seconds:.0f} s, {100 * waiting:.1f} % of it to put batches together",
        }


def fitted(
    training: Training[Model],
    batch_of: BatchOf[Batch],
    loss_of: Callable[[Model, Batch], Tensor],
    samples: int,
    settings: Optimisation,
    log: TrainingLog,
    place: Path,
    name: str,
    *,
    seed: int,
    validate: Callable[[Model], dict[str, float]] | None = None,
) -> Fitted[Model]:
    """Train a network, or go on with it where its newest checkpoint is.

    Args:
        training: at its beginning.
        batch_of, loss_of: as for :func:`wsdcast.training.loop.fit`.
        samples: how many there are.
        settings: how it is trained.
        log: how often it is validated and kept.
        place: directory for checkpoints and logs.
        name: of the network.
        seed: of the order of samples.
        validate: scores of the averaged network, lower first score is better; None: there is nothing to validate on.

    Raises:
        UserError: if the loss is not finite; the last checkpoint stays.
        StoppedError: if SIGTERM or SIGINT came; a checkpoint of that step is left.
    """
    kept = place / "checkpoints" / name
    history = History()
    if found := processes.decided(lambda: checkpoints.newest(kept)):
        tensors, about = found
        training.restore(tensors)
        history = History(**about)
        note(f"{name}: goes on at step {training.step} of {settings.steps}")
    first, begin, before = training.step, time.perf_counter(), history.seconds
    every = -(-settings.steps // ROWS)
    unread, summed, loss = list[Unread](), list[Step](), math.nan
    torch.backends.cudnn.benchmark = True  # all steps have the same shapes, for which cuDNN may look for the fastest kernels
    if settings.compile:
        for part in training.model.children() if isinstance(training.model, nn.ModuleDict) else [training.model]:
            compiled(part)

    def write_row() -> None:
        means = [sum(values) / len(summed) for values in zip(*(astuple(one)[1:] for one in summed), strict=True)]
        history.losses.append([summed[-1].number, *means])
        summed.clear()

    def keep(best: bool) -> None:
        if summed:
            write_row()
        history.seconds = before + time.perf_counter() - begin
        tensors = training.tensors()
        if processes.is_first():
            checkpoints.save(kept, training.step, tensors, vars(history), log.keep_checkpoints, best)

    def detail(step: Unread) -> str:
        speed = (training.step - first) * settings.batch * settings.accumulate * processes.count() / (time.perf_counter() - begin)
        return f"loss {loss:.4f}, rate {step.rate:.2g}, {speed:.3g} samples/s, {_memory():.1f} GB"

    steps = fit(training, batch_of, loss_of, samples, settings, seed)
    with stop_signals() as caught, _tensorboard(place / "tensorboard" / name, log, first) as log_value, closing(steps):
        for step in track(steps, f"training {name}", settings.steps, first, detail):
            unread.append(step)
            due = training.step % log.validate_every == 0 or training.step == settings.steps
            if not due and len(unread) < READ_TOGETHER[step.loss.device.type] and not (caught and processes.count() == 1):
                continue
            for one in read(unread):
                summed.append(one)
                if len(summed) == every:
                    write_row()
                loss = one.loss
                log_value("loss", loss, one.number)
            unread.clear()
            if signalled := processes.highest(caught[0] if caught else 0):
                keep(False)
                processes.wait()  # until it is kept: torchrun ends the others as soon as one has ended
                raise StoppedError(f"training {name} was stopped at step {training.step}; the same command goes on from there", signalled)
            if not due:
                continue
            best = False
            if validate:
                scores = validate(training.averaged)
                history.validations.append({"step": training.step, **scores})
                first_score = next(iter(scores.values()))
                best = first_score < history.best
                history.best = min(history.best, first_score)
                if processes.is_first():
                    words = ", ".join(f"{what} {value:.4f}" for what, value in scores.items())
                    note(f"{name}, step {training.step}, validation: {words}")
                for what, value in scores.items():
                    log_value(what, value, training.step)
            keep(best)
    if processes.is_first():
        history.write(place, name)
    return Fitted(training.averaged, history, settings)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that the first SIGTERM or SIGINT goes to, instead of ending the process; a second SIGINT does end it."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread gets signals
        return

    def catch(number: int, _: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _memory() -> float:
    """Most memory used so far, GB: the device's, or of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9 if resource else math.nan


@contextmanager
def _tensorboard(path: Path, log: TrainingLog, first: int) -> Iterator[Callable[[str, float, int], None]]:
    """A way to log a named value at a step, if TensorBoard is wanted; what a run that was killed logged beyond ``first`` is dropped.

    Raises:
        UserError: if it is wanted and not installed.
    """
    if not log.tensorboard or not processes.is_first():
        yield lambda name, value, step: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("training.tensorboard: not installed; pip install 'wsdcast[tensorboard]'") from None
    with SummaryWriter(str(path), purge_step=first) as writer:
        yield writer.add_scalar
