"""The training loop: what its steps compute, that it continues bit for bit, and that two processes train as one."""

from __future__ import annotations

import copy
import math
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_training import Settings, X, begun, by_gradient, each, points, regression
from torch import nn

from wsdcast.nets.unet import UNet
from wsdcast.runs import processes
from wsdcast.runs.errors import StoppedError, UserError
from wsdcast.runs.recipes import Optimisation, TrainingLog
from wsdcast.training import fitting, loop
from wsdcast.training.fitting import Fitted, History, fitted
from wsdcast.training.loop import Plan, fit, read
from wsdcast.training.state import Training


def test_training_finds_the_answer_and_averages_the_weights():
    training = begun()
    steps = list(fit(training, Plan(points, regression, 64, Settings(steps=600, batch=16, learning_rate=0.03, ema_decay=0.99), 0)))
    assert len(steps) == training.step == 600
    assert training.averaged.weight.item() == pytest.approx(3, abs=0.02)
    assert training.averaged.bias.item() == pytest.approx(-1, abs=0.02)


def test_average_follows_its_warm_up_once_per_optimiser_step():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    training, differences, expected = begun(model), [], 1.0
    for step in fit(training, Plan(points, lambda model, _: model.weight.sum(), 8, Settings(ema_decay=0.3, accumulate=2), 0)):
        decay = min(0.3, (1 + step.number) / (10 + step.number))
        expected = decay * expected + (1 - decay) * model.weight.item()
        differences.append(training.averaged.weight.item() - expected)
    assert differences == pytest.approx([0] * 5, abs=1e-6)


def test_a_process_without_a_sample_is_refused(monkeypatch):
    with pytest.raises(UserError, match=r"^0 training samples$"):
        next(fit(begun(), Plan(points, regression, 0, Settings(), 0)))
    training = begun()
    monkeypatch.setattr(processes, "count", lambda: 3)
    monkeypatch.setattr(processes, "number", lambda: 0)
    with pytest.raises(UserError, match=r"^2 training samples for 3 processes$"):
        next(fit(training, Plan(points, regression, 2, Settings(), 0)))


@pytest.mark.parametrize("loss_of_weights", [lambda weights: weights * math.nan, lambda weights: weights + math.nan])
@pytest.mark.parametrize("together", [1, 4, 5])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_its_samples(together, loss_of_weights):
    """It does so whether its gradient is finite or not, also if the step is read together with good ones before it and others after it."""
    training, order = begun(), []
    steps = fit(
        training,
        Plan(
            lambda chosen, _: order.append(chosen.tolist()),
            lambda model, _: loss_of_weights(model.weight.sum()) if training.step == 3 else model.weight.sum(),
            8,
            Settings(),
            0,
        ),
    )

    def groups() -> None:
        while group := list(islice(steps, together)):
            read(group)

    with pytest.raises(UserError) as caught:
        groups()
    assert f"the loss is nan at training step 3, with samples {order[3][0]}, {order[3][1]};" in str(caught.value)


@pytest.mark.parametrize("step", [2, 4])
def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_used(step):
    """The loss is finite, also in the last step. A checkpoint with such weights could never go on."""
    training = begun()

    def loss_of(model, _):
        root = (model.weight - model.weight.detach()).abs().sqrt().sum()  # 0, with a gradient that is NaN
        return model.weight.sum() + root if training.step == step else model.weight.sum()

    with pytest.raises(UserError, match=f"the norm of the gradient is nan at training step {step}, with samples "):
        read(list(islice(fit(training, Plan(points, loss_of, 8, Settings(), 0)), step + 1)))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("cosine", [1 / 3, 2 / 3, *(0.5 * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 0.75))]),
        ("half-cosine", [1 / 3, 2 / 3, 1, 1, 1, 0.5]),
    ],
)
def test_rate_rises_then_follows_the_schedule(schedule, expected):
    steps = list(fit(begun(), Plan(points, regression, 64, Settings(steps=6, warmup_steps=2, schedule=schedule), 0)))
    np.testing.assert_allclose([step.rate for step in steps], 0.1 * np.array(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("samples", "batch", "accumulate", "sizes"),
    [
        (64, 2, 4, [2, 2, 2, 2]),
        (9, 2, 8, [2, 2, 2, 2, 1]),
        (7, 2, 4, [2, 2, 2, 1]),
        (5, 4, 2, [4, 1]),
        (3, 8, 1, [3]),
        (1, 8, 2, [1]),
    ],
)
def test_a_step_follows_the_mean_over_its_samples(samples, batch, accumulate, sizes):
    """It does so for any division into batches, also if there are fewer samples than batch times accumulate."""
    batches: list[torch.Tensor] = []

    def batch_of(chosen: torch.Tensor, part: slice) -> torch.Tensor:
        batches.append(chosen[part])
        return points(chosen, part)

    training = by_gradient(begun())
    before = copy.deepcopy(training.model)
    settings = Settings(steps=1, batch=batch, accumulate=accumulate, schedule="constant", gradient_clip=1e9)
    (step,) = each(fit(training, Plan(batch_of, regression, samples, settings, 0)))
    assert [part.numel() for part in batches] == sizes
    loss = regression(before, X[torch.cat(batches)])
    loss.backward()
    gradients = [parameter.grad for parameter in before.parameters()]
    assert step.loss == pytest.approx(loss.item(), rel=1e-6)
    assert step.gradient == pytest.approx(torch.cat([gradient.flatten() for gradient in gradients]).norm().item(), rel=1e-5)
    for old, new, gradient in zip(before.parameters(), training.model.parameters(), gradients, strict=True):
        torch.testing.assert_close(new, old - 0.1 * gradient)


def test_a_gradient_is_clipped_to_the_largest_norm():
    training = by_gradient(begun(nn.Linear(1, 1, bias=False)))
    before = training.model.weight.item()
    (step,) = each(fit(training, Plan(points, lambda model, _: 50 * model.weight.sum(), 8, Settings(steps=1, gradient_clip=2), 0)))
    assert step.gradient == pytest.approx(50)  # before clipping
    assert training.model.weight.item() == pytest.approx(before - 0.1 * 2, abs=1e-5)


def test_waiting_is_the_share_of_the_time_in_which_batches_are_made(monkeypatch):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(loop, "time", clock)

    def batch_of(chosen: torch.Tensor, part: slice) -> torch.Tensor:
        clock.now += 3
        return points(chosen, part)

    def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        clock.now += 1
        return regression(model, x)

    steps = list(islice(fit(begun(), Plan(batch_of, loss_of, 8, Settings(accumulate=2), 0)), 3))
    assert [step.waiting for step in read(steps)] == [0.75] * 3


@pytest.mark.parametrize(("rows", "loss", "waiting"), [(20, "9.2500", "12.5"), (5, "2.0000", "10.0")])
def test_a_summary_tells_the_last_losses_and_the_time(rows, loss, waiting):
    history = History([[number, number / 2, 0.1, 1.0, 0.25 * (number % 2)] for number in range(rows)], seconds=12.4)
    assert Fitted(nn.Linear(1, 1), history, Optimisation(steps=rows), 6).facts("moments") == {
        "moments loss": f"{loss}, mean of the last tenth of {rows} steps of 6 samples",
        "moments time": f"12 s, {waiting} % of it spent on making batches",
    }


@pytest.mark.parametrize("samples", [8, 9])
def test_every_epoch_visits_every_sample_once_in_another_order(samples):
    """It has no incomplete last step, so the last sample of an odd number has to wait for another epoch."""
    order = []
    for _ in fit(begun(), Plan(lambda chosen, _: order.append(chosen), lambda model, _: model.weight.sum(), samples, Settings(steps=8), 0)):
        pass
    first, second = torch.cat(order[:4]).tolist(), torch.cat(order[4:]).tolist()
    assert len(first) == len(set(first)) == len(second) == len(set(second)) == 8
    assert set(first) | set(second) <= set(range(samples))
    assert first != second


@pytest.mark.parametrize(("samples", "expected"), [(100, 24), (24, 24), (23, 21), (4, 3)])
def test_a_step_has_as_many_samples_of_each_process(monkeypatch, samples, expected):
    monkeypatch.setattr(processes, "count", lambda: 3)
    assert loop.samples_per_step(Settings(batch=4, accumulate=2), samples) == expected


def test_processes_draw_different_dropout_and_the_first_draws_as_if_it_were_alone(monkeypatch):
    def drawn(rank: int) -> list[float]:
        monkeypatch.setattr(processes, "number", lambda: rank)
        begun()
        return torch.rand(3).tolist()

    torch.manual_seed(0)
    nn.Linear(1, 1)  # as begun() makes
    alone = torch.rand(3).tolist()
    assert drawn(0) == alone
    assert len({tuple(drawn(rank)) for rank in range(3)}) == 3


def noisy(chosen: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    return X[chosen[part]], torch.randn(chosen.numel(), 1, generator=noisy.random)[part]


def noisy_loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return a loss that depends on noise, and on dropout in the model, as the generator's loss does."""
    return ((model(batch[0]) - batch[1]) ** 2).mean()


def test_a_training_that_is_given_back_its_tensors_goes_on_bit_for_bit():
    def fresh() -> Training:
        torch.manual_seed(0)
        training = Training.of(nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1)), torch.Generator().manual_seed(1))
        noisy.random = training.random
        return training

    settings = Settings(steps=20, batch=6)
    whole = fresh()
    losses = [step.loss for step in each(fit(whole, Plan(noisy, noisy_loss, 64, settings, 3)))]
    half = fresh()
    for step in fit(half, Plan(noisy, noisy_loss, 64, settings, 3)):
        if step.number == 12:
            tensors_at_12 = half.tensors()
        if step.number == 14:  # what was taken at step 12 does not change any more
            break
    resumed = fresh()
    torch.rand(7)  # other code draws random numbers in between
    resumed.restore(tensors_at_12)
    assert [step.loss for step in each(fit(resumed, Plan(noisy, noisy_loss, 64, settings, 3)))] == losses[13:]
    for name, value in whole.tensors().items():
        assert torch.equal(value, resumed.tensors()[name]), name


def test_a_checkpoint_of_another_kind_of_device_is_taken_up():
    """There the states of random generators have another length, and a new process has none.

    Then new states depend on the step, and are the same each time.
    """
    kept = begun()
    list(fit(kept, Plan(points, regression, 64, Settings(steps=5), 0)))
    tensors = kept.tensors() | {"random.loss": torch.zeros(16, dtype=torch.uint8)}
    del tensors["random.dropout"]

    def drawn(step: int) -> list[float]:
        training = begun()
        training.restore(tensors | {"step": torch.tensor(step)})
        assert training.step == step
        assert torch.equal(training.model.weight, kept.model.weight)
        assert torch.equal(training.averaged.weight, kept.averaged.weight)
        return [*torch.rand(3, generator=training.random).tolist(), *torch.rand(3).tolist()]

    assert drawn(5) == drawn(5)
    training = begun()
    beginning = [*torch.rand(3, generator=training.random).tolist(), *torch.rand(3).tolist()]
    for part in (slice(3), slice(3, 6)):  # what the loss draws, and dropout
        assert len({tuple(draws[part]) for draws in (drawn(5), drawn(4), beginning)}) == 3


def test_bf16_is_near_fp32():
    losses = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        training = Training.of(nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 1)), torch.Generator())
        settings = Settings(steps=40, batch=16, learning_rate=0.01, precision=precision)
        losses[precision] = [step.loss for step in each(fit(training, Plan(points, regression, 64, settings, 0)))]
        assert all(parameter.dtype == torch.float32 for parameter in training.model.parameters())
    assert losses["bf16"] != losses["fp32"]
    np.testing.assert_allclose(losses["bf16"], losses["fp32"], rtol=0.1)


def test_recomputed_activations_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = UNet(3, 2, (8, 8), dropout=0.5, activation_checkpointing=recompute)
        nn.init.normal_(network.last.weight)
        torch.manual_seed(1)
        (network(torch.ones(2, 3, 8, 16)) ** 2).sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(("step", "during"), [(7, "step"), (10, "step"), (10, "validation"), (20, "step"), (20, "validation")])
def test_a_training_that_is_stopped_has_every_validation_in_the_end(tmp_path, step, during):
    """Steps 10 and 20 end with a validation, and 20 is the last. A signal during a validation is not lost either."""
    settings, log, signals = Optimisation(steps=20, batch=8, learning_rate=0.05), TrainingLog(validate_every=5), list[int]()

    def trained(directory: Path, stopped: bool) -> Fitted:
        training = begun()

        def stop_at(done: int, where: str) -> None:
            if stopped and done == step and where == during and not signals:
                signals.append(signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)

        def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
            stop_at(training.step + 1, "step")
            return regression(model, x)

        def validate(model: nn.Module) -> dict[str, float]:
            if signals and training.step == step:  # the process may be killed before the validation is done
                assert (directory / f"checkpoints/line/step-{step:09d}.safetensors").exists()
            stop_at(training.step, "validation")
            return {"loss": regression(model, X).item()}

        return fitted(training, Plan(points, loss_of, 64, settings, 0, validate), log, directory, "line")

    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    whole = trained(undisturbed, False)
    assert [row["step"] for row in whole.history.validations] == [5, 10, 15, 20]
    with pytest.raises(StoppedError, match=f"training line was stopped at step {step}; the same command goes on from there"):
        trained(stopped, True)
    assert max(path.name for path in (stopped / "checkpoints/line").glob("step-*")) == f"step-{step:09d}.safetensors"
    resumed = trained(stopped, True)
    assert resumed.history.validations == whole.history.validations
    assert (stopped / "line-validations.csv").read_text() == (undisturbed / "line-validations.csv").read_text()
    assert [row[:4] for row in resumed.history.losses] == [row[:4] for row in whole.history.losses]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_a_validation_that_fails_loses_no_step(tmp_path):
    """It may need more memory than the GPU has. Each restart trained the steps since the last checkpoint again, and failed again."""
    settings, log, has_memory, steps = Optimisation(steps=20, batch=8), TrainingLog(validate_every=10), list[bool](), list[int]()

    def trained(directory: Path) -> Fitted:
        training = begun()

        def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
            steps.append(training.step)
            return regression(model, x)

        def validate(model: nn.Module) -> dict[str, float]:
            if not has_memory and training.step == 10:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return {"loss": regression(model, X).item()}

        return fitted(training, Plan(points, loss_of, 64, settings, 0, validate), log, directory, "line")

    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            trained(tmp_path / "failed")
    assert steps == [*range(10)]
    has_memory.append(True)
    resumed = trained(tmp_path / "failed")
    assert steps == [*range(20)]
    whole = trained(tmp_path / "whole")
    assert resumed.history.validations == whole.history.validations
    assert [row["step"] for row in whole.history.validations] == [10, 20]
    assert torch.equal(resumed.network.weight, whole.network.weight)


def test_a_validation_makes_no_kernels(tmp_path, monkeypatch):
    """A frozen network has kernels for batches of the training, of another size and precision. New ones take longer than a validation."""
    eager, seen = [False], []

    @contextmanager
    def eagerly():
        eager[0] = True
        yield
        eager[0] = False

    monkeypatch.setattr(fitting, "eagerly", eagerly)

    def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen.append((len(x), eager[0]))
        return (model(x) - x).square().mean()

    plan = Plan(points, loss_of, 64, Optimisation(steps=4, batch=8), 0, lambda model: {"loss": loss_of(model, X).item()})
    fitted(begun(), plan, TrainingLog(validate_every=2), tmp_path, "line")
    assert seen == 2 * [(8, False), (8, False), (len(X), True)]


TWO_PROCESSES = """
import atexit
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
import small_training as t
from wsdcast.runs import processes
from wsdcast.training.loop import Plan, fit
atexit.register(lambda: Path(f"{out}/threads").write_text(str([path.read_text() for path in Path("/proc/self/task").glob("*/comm")])))
processes.join()
training = t.by_gradient(t.begun())
losses = [step.loss for step in t.each(fit(training, Plan(t.points, t.regression, 11, t.Settings(steps=12, batch=4, accumulate=2), 0)))]
Path(f"{out}/{{processes.number()}}.txt").write_text(" ".join(map(str, [*losses, training.model.weight.item()])))
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_twice_the_batch(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES.format(tests=str(Path(__file__).parent), out=tmp_path))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    first, second = ([float(number) for number in (tmp_path / f"{rank}.txt").read_text().split()] for rank in (0, 1))
    assert first == second
    # A thread of the process group that still runs at exit sometimes aborts the process.
    assert "gloo" not in (tmp_path / "threads").read_text()
    # Each of the two processes has five samples per step, in batches of four and one.
    training = by_gradient(begun())
    losses = [step.loss for step in each(fit(training, Plan(points, regression, 11, Settings(steps=12, batch=10), 0)))]
    np.testing.assert_allclose(first, [*losses, training.model.weight.item()], rtol=1e-5)
