"""A whole training: the loop with progress, validation, logs, checkpoints, and a clean stop on SIGTERM and Ctrl-C."""

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
from torch import nn

from wsdcast.nets.weights import WEIGHTS, Model, save_networks
from wsdcast.runs import processes
from wsdcast.runs.artefact import make_stamp
from wsdcast.runs.devices import compiled, eagerly
from wsdcast.runs.errors import StoppedError, UserError
from wsdcast.runs.progress import note, track
from wsdcast.runs.recipes import Experiment, Optimisation, TrainingLog
from wsdcast.training import checkpoints
from wsdcast.training.loop import Batch, PendingStep, Plan, Step, fit, read, samples_per_step
from wsdcast.training.state import Training

STEPS_PER_READ = {"cpu": 1, "cuda": 20}
"""Steps whose losses are read together, by kind of device. A GPU runs out of work while the host waits for it, so it is read rarely."""

MOST_ROWS = 5000
"""Most rows of the table of losses. In a longer training each row is a mean over several steps."""


@dataclass
class History:
    """The course of a training.

    Attributes:
        losses: one row for each step, or for several: the number of the last step, then means of the other attributes of :class:`Step`.
        validations: one row for each validation: the step, then scores by name.
        seconds: duration, including the parts before a stop.
    """

    losses: list[list[float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, steps: list[Step]) -> None:
        """Add a row of losses for consecutive steps."""
        means = [sum(values) / len(steps) for values in zip(*(astuple(step)[1:] for step in steps), strict=True)]
        self.losses.append([steps[-1].number, *means])

    def write(self, directory: Path, name: str) -> None:
        """Write ``NAME-losses.csv`` and, if there were validations, ``NAME-validations.csv``."""
        tables: dict[str, list[list[Any]]] = {"losses": [[column.name for column in fields(Step)], *self.losses]}
        if self.validations:
            tables["validations"] = [list(self.validations[0]), *(list(row.values()) for row in self.validations)]
        for kind, rows in tables.items():
            with (directory / f"{name}-{kind}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(rows)


@dataclass(frozen=True)
class Fitted(Generic[Model]):
    """A trained network.

    Attributes:
        network: the network with averaged weights.
        history: the course of its training.
        settings: how it was trained.
        samples_per_step: samples in each optimiser step.
    """

    network: Model
    history: History
    settings: Optimisation
    samples_per_step: int

    def facts(self, label: str) -> dict[str, str]:
        """Loss and duration in words, for a summary; ``label`` begins each key."""
        rows, steps = self.history.losses, f"{self.settings.steps} steps of {self.samples_per_step}"
        last_loss = mean(row[1] for row in rows[-max(1, len(rows) // 10) :])
        waiting = mean(row[-1] for row in rows)
        return {
            f"{label} loss": f"{last_loss:.4f}, mean of the last tenth of {steps} samples",
            f"{label} time": f"{self.history.seconds:.0f} s, {100 * waiting:.1f} % of it spent on making batches",
        }


def fit_and_write(
    recipe: Experiment, path: Path, training: Training[Model], plan: Plan[Model, Batch], log: TrainingLog, overwrite: bool
) -> Fitted[Model]:
    """Train a network as :func:`fitted` does, and write it as an artefact of a run directory, with its seconds in the stamp.

    Args:
        recipe: the recipe in force.
        path: the artefact. The network has its name.
        training, plan, log: as for :func:`fitted`.
        overwrite: discard an unfinished training of another recipe.

    Raises:
        UserError, StoppedError: as :func:`fitted`, or as :func:`wsdcast.runs.processes.completed_by_first`.
    """
    stamp = make_stamp(recipe, path.parent, path.name)
    with processes.completed_by_first(path, stamp, overwrite) as unfinished:
        result = fitted(training, plan, log, unfinished, path.name)
        stamp["seconds"] = result.history.seconds
        processes.decided(lambda: save_networks({WEIGHTS: result.network}, unfinished, stamp))
    return result


def fitted(training: Training[Model], plan: Plan[Model, Batch], log: TrainingLog, directory: Path, name: str) -> Fitted[Model]:
    """Train a network from the beginning, or from its newest checkpoint if there is one.

    Args:
        training: the state before the first step.
        plan: what the network learns from, and how.
        log: when to validate, and how many checkpoints to keep.
        directory: directory for checkpoints and logs.
        name: name of the network.

    Raises:
        UserError: if a loss is not finite; the last checkpoint stays.
        StoppedError: if SIGTERM or SIGINT came, after a checkpoint was written.
        Exception: any error of a validation, after a checkpoint was written.
    """
    settings, checkpoint_directory = plan.settings, directory / "checkpoints" / name
    history = _restored(training, checkpoint_directory)
    first_step, started, seconds_before = training.step, time.perf_counter(), history.seconds
    if first_step:
        note(f"{name}: goes on at step {first_step} of {settings.steps}")
    torch.backends.cudnn.benchmark = True  # all steps have the same shapes, so cuDNN may search for the fastest kernels
    if settings.compile:
        for network in training.model.children() if isinstance(training.model, nn.ModuleDict) else [training.model]:
            compiled(network)
    of_step, steps_per_row = samples_per_step(settings, plan.samples), -(-settings.steps // MOST_ROWS)
    row_steps, loss = list[Step](), math.nan

    def write_row() -> None:
        history.add(row_steps)
        row_steps.clear()

    def is_due() -> bool:
        return training.step % log.validate_every == 0 or training.step == settings.steps

    def seconds() -> float:
        return seconds_before + time.perf_counter() - started

    def save_checkpoint() -> None:
        if row_steps:
            write_row()
        history.seconds = seconds()
        tensors = training.tensors()
        # All wait: torchrun ends the others as soon as one ends, also in the middle of a save. If the disk is full, all end alike.
        processes.decided(lambda: checkpoints.save(checkpoint_directory, training.step, tensors, vars(history), log.keep_checkpoints))

    def progress_text(step: PendingStep) -> str:
        speed = (training.step - first_step) * of_step / (time.perf_counter() - started)
        return f"loss {loss:.4f}, learning rate {step.rate:.2g}, {speed:.3g} samples/s, {_peak_memory():.1f} GB"

    steps, pending = fit(training, plan), list[PendingStep]()
    with stop_signals() as signals, _tensorboard(directory / "tensorboard" / name, log, first_step) as log_value, closing(steps):

        def validate() -> None:
            if plan.validate:
                history.validations.append(_validation(plan.validate, training, name, log_value))
            stop(signal_of_any())

        def signal_of_any() -> int:
            return processes.highest(signals[0] if signals else 0)

        def stop(signal_number: int) -> None:
            if signal_number:
                text = f"training {name} was stopped at step {training.step}; the same command goes on from there"
                raise StoppedError(text, signal_number)

        if first_step and is_due() and all(row["step"] != first_step for row in history.validations):
            validate()  # the training ended before this validation, or in it
        for step in track(steps, f"training {name}", settings.steps, first_step, progress_text):
            pending.append(step)
            validation_due = is_due()
            read_due = len(pending) >= STEPS_PER_READ[step.loss.device.type]
            # Several processes must read the same steps, but a signal may have come to one of them only. They wait until a read is due.
            stop_due = bool(signals) and processes.count() == 1
            if not (validation_due or read_due or stop_due):
                continue
            for done in read(pending):
                row_steps.append(done)
                if len(row_steps) == steps_per_row:
                    write_row()
                loss = done.loss
                log_value("loss", loss, done.number)
            pending.clear()
            signal_number = signal_of_any()
            if validation_due or signal_number:
                save_checkpoint()  # before the validation, which may fail; whoever goes on from here validates first
            stop(signal_number)
            if validation_due:
                validate()
    history.seconds = seconds()
    processes.decided(lambda: history.write(directory, name))
    return Fitted(training.averaged, history, settings, of_step)


def _restored(training: Training[Model], checkpoint_directory: Path) -> History:
    """Restore the newest checkpoint, if there is one, and return the history up to it."""
    checkpoint = processes.decided(lambda: checkpoints.newest(checkpoint_directory))
    if checkpoint is None:
        return History()
    tensors, about = checkpoint
    training.restore(tensors)
    about.pop("best", None)  # the lowest score, which older versions stored
    return History(**about)


def _validation(
    validate: Callable[[Model], dict[str, float]], training: Training[Model], name: str, log_value: Callable[[str, float, int], None]
) -> dict[str, float]:
    """Validate the averaged network, print and log its scores, and return them with the step: a row of the table."""
    with eagerly():  # frozen networks may have kernels for the batches of the training, and here they have others
        scores = validate(training.averaged)
    if processes.is_first():
        note(f"{name}, step {training.step}, validation: {', '.join(f'{score} {value:.4f}' for score, value in scores.items())}")
    for score, value in scores.items():
        log_value(score, value, training.step)
    return {"step": training.step, **scores}


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list that SIGTERM and SIGINT are appended to, instead of ending the process. A SIGINT after another signal does end it."""
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals  # only the main thread receives signals
        return

    def catch(number: int, _: Any) -> None:
        if signals and number == signal.SIGINT:
            raise KeyboardInterrupt
        signals.append(number)

    handlers = {number: signal.signal(number, catch) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _peak_memory() -> float:
    """Peak memory so far, GB: that of the GPU if there is one, else that of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9 if resource else math.nan


@contextmanager
def _tensorboard(path: Path, log: TrainingLog, first_step: int) -> Iterator[Callable[[str, float, int], None]]:
    """Yield a function ``log_value(name, value, step)``. It does nothing unless the recipe asks for TensorBoard.

    Values that a killed run logged at ``first_step`` and later are dropped.

    Raises:
        UserError: if the recipe asks for TensorBoard and it is not installed.
    """
    if not log.tensorboard or not processes.is_first():
        yield lambda name, value, step: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("training.tensorboard: not installed; pip install 'wsdcast[tensorboard]'") from None
    with SummaryWriter(str(path), purge_step=first_step) as writer:
        yield writer.add_scalar
