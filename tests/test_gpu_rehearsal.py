"""Tests of the code that differs on a GPU, without a GPU: on torch's ``meta`` device, which has shapes but no values.

A CUDA graph cannot record operations that make the host wait: copies from and to the host, values read from tensors, and shapes that depend
on values. :class:`no_waiting.NoWaiting` refuses them. ``meta`` itself refuses to mix devices. ``test_no_waiting.py`` does the same for
a training step.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import get_args

import pytest
import torch
from image_runs import copy_of
from no_waiting import NoWaiting
from small_training import WIND
from torch import Tensor

from wsdcast.bench.synthetic import record_of
from wsdcast.data.grid import Grid
from wsdcast.images import drawing
from wsdcast.images.contexts import fixed_contexts
from wsdcast.images.data.store import open_images
from wsdcast.images.networks import trained as trained_on_images
from wsdcast.images.recipe import ImageRecipe
from wsdcast.images.stages import score as image_scores
from wsdcast.images.stages.sample import sample as sample_images
from wsdcast.runs import devices, processes, recipes
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import TORCHDIFFEQ, PriorName
from wsdcast.sampling import acceleration
from wsdcast.sampling.acceleration import as_graph
from wsdcast.sampling.batches import in_batches
from wsdcast.sampling.samplers import generator_sampler, moments_sampler, past_errors_sampler
from wsdcast.study import images as study_of_images
from wsdcast.study.images_summary import Setting
from wsdcast.warmstart import evaluations, stochastic, times
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.warmstart.paths import STRAIGHT, Path, path_of
from wsdcast.warmstart.prior import PRIOR_MAKERS, frozen_prior
from wsdcast.warmstart.prior import Moments as MomentsFunction
from wsdcast.weather.forcings import ForcingFields
from wsdcast.weather.harmonic_transform import spherical_transform
from wsdcast.weather.network_sections import Generator, Moments
from wsdcast.weather.networks import generator_model, moments_model
from wsdcast.weather.noise_fields import noise_fields
from wsdcast.weather.priors import fixed_or_given
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.samplers import few_sampler
from wsdcast.weather.trained import Trained

META = torch.device("meta")
GRID = (5, 8)
PRIORS = get_args(PriorName)
WITH_POLES = WIND._replace(includes_poles=True)
RECORDED = [name for name in evaluations.ALL_SOLVERS if name not in TORCHDIFFEQ]


@contextmanager
def refused() -> Iterator[None]:
    with torch.inference_mode(), NoWaiting("meta"):
        yield


def parts_of(prior: str) -> tuple[MomentsFunction, torch.nn.Module]:
    """Return the moments function and the generator of a prior, on ``meta``."""
    moments, generator = Moments(widths=(8,)), Generator(widths=(8,), attention=(0,))
    network = moments_model(moments, WITH_POLES).eval().to(META)
    moments_of: MomentsFunction = network
    if prior in ("standard", "climatology", "persistence", "given"):
        recipe = load_recipe("planet").changed(data__grid=f"{GRID[1]}x{GRID[0]}", generator__prior=prior)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(devices, "device", lambda: META)
            moments_of = fixed_or_given(recipe, record_of(recipe, 30), lambda context: (context[:, :2], context[:, 2:4].exp()))
    return moments_of, generator_model(generator, WITH_POLES).eval().to(META)


class Halved(torch.nn.Module):
    """A network in bfloat16. It stands for autocast, which ``meta`` does not support."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.bfloat16()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network(*(values.bfloat16() for values in inputs))


class Small(torch.nn.Module):
    """A small stand-in for a generator. A whole U-Net takes a second for each solver under a dispatch mode."""

    def forward(self, x: Tensor, t: Tensor, warmth: Tensor) -> Tensor:
        return x[:, :2] * t[:, None, None, None] + x.mean(dim=1, keepdim=True) * warmth[:, None, None, None]


def walked(prior: str, solver: str, precision: str, generator: torch.nn.Module, path: Path = STRAIGHT) -> Tensor:
    """Return a state from a sampler that runs without a refused operation."""
    moments, _ = parts_of(prior)
    if precision == "bf16":
        generator = Halved(generator)
        if isinstance(moments, MomentsModel):
            moments.network = Halved(moments.network)
    steps = 4
    grid = times.log_snr(steps) if solver.startswith("dpm") else times.uniform(steps)
    nfe = evaluations.evaluations(solver, steps)
    sampler = generator_sampler(generator, frozen_prior(moments, PRIOR_MAKERS[prior]), nfe, 0.7, grid, evaluations.solver(solver), path)
    context, noise = (torch.empty(3, channels, *GRID, device=META) for channels in (4, 2 * evaluations.count_noise(solver, steps)))
    with refused():
        return sampler(context, noise)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("solver", RECORDED)
@pytest.mark.parametrize("prior", PRIORS)
def test_every_sampler_can_be_recorded(prior, solver, precision):
    """Every prior, solver and precision can be recorded as one CUDA graph."""
    state = walked(prior, solver, precision, Small())
    assert (state.shape, state.dtype, state.device) == ((3, 2, *GRID), torch.float32, META)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("solver", [name for name in RECORDED if name not in stochastic.SOLVERS])
@pytest.mark.parametrize("path", ["blur-noise", "blur"])
def test_every_path_can_be_recorded(path, solver, precision):
    grid = Grid.regular(f"{GRID[1]}x{GRID[0]}")
    made = path_of(path, 0.5, partial(spherical_transform, grid, META, torch.float32))

    class Heads(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, warmth: Tensor) -> Tensor:
            return torch.cat([Small()(x, t, warmth)] * made.heads, dim=1)

    assert walked("warm", solver, precision, Heads(), made).shape == (3, 2, *GRID)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("prior", PRIORS)
def test_the_generator_can_be_recorded(prior, precision):
    state = walked(prior, "euler", precision, parts_of(prior)[1])
    assert (state.shape, state.dtype, state.device) == ((3, 2, *GRID), torch.float32, META)


@pytest.mark.parametrize(
    ("objective", "noise"),
    [("distil", "numbers"), ("shortcut", "numbers"), ("mean-flow", "numbers"), ("crps", "numbers"), ("crps", "fields")],
)
@pytest.mark.parametrize("prior", ["warm", "persistence"])
def test_samplers_of_one_evaluation_can_be_recorded(prior, objective, noise):
    settings = Generator(widths=(8,), objective=objective)
    few = generator_model(settings, WITH_POLES, few_steps=True, noise=noise).eval().to(META)
    moments, generator = parts_of(prior)
    fields = noise_fields(Grid.regular(f"{GRID[1]}x{GRID[0]}"), 2, META) if noise == "fields" else None
    start = frozen_prior(moments, PRIOR_MAKERS[prior]), ForcingFields(torch.empty(0, *GRID, device=META))
    networks = Trained(generator, moments, *start, objective=objective, noise_fields=fields)
    context, noise = (torch.empty(3, channels, *GRID, device=META) for channels in (4, 2))
    sampler = few_sampler(networks, few, 1)
    with refused():
        state = sampler(context, noise)
    assert (state.shape, state.dtype, state.device) == ((3, 2, *GRID), torch.float32, META)


@pytest.mark.parametrize("solver", TORCHDIFFEQ)
def test_solvers_of_torchdiffeq_cannot_be_recorded(solver):
    """They run without a graph (``sampling.sampler_of``). If this test fails with a new release, that is no longer needed."""
    moments, generator = parts_of("warm")
    grid = times.uniform(4)
    nfe = evaluations.evaluations(solver, 4)
    sampler = generator_sampler(generator, frozen_prior(moments), nfe, 1.0, grid, evaluations.solver(solver))
    with refused(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        sampler(*(torch.empty(3, channels, *GRID, device=META) for channels in (4, 2)))


@pytest.mark.parametrize("of", [moments_sampler, lambda prior_of: past_errors_sampler(prior_of, torch.empty(5, 2, *GRID, device=META))])
def test_moments_without_a_generator_can_be_recorded(of):
    context, noise = (torch.empty(3, channels, *GRID, device=META) for channels in (4, 2))
    sampler = of(frozen_prior(parts_of("warm")[0], PRIOR_MAKERS["warm"]))
    with refused():
        assert sampler(context, noise).shape == noise.shape


@pytest.mark.parametrize(("members", "largest", "sizes"), [(50, 976, [50]), (50, 68, [50]), (100, 68, [50, 50]), (7, 3, [3, 2, 2])])
def test_batches_on_a_gpu_hold_no_padding(members, largest, sizes):
    batch_sizes = []

    def sampler(context: Tensor, noise: Tensor) -> Tensor:
        batch_sizes.append(len(noise))
        return noise

    with refused():
        state = in_batches(sampler, largest)(*(torch.empty(members, channels, 2, 4, device=META) for channels in (4, 2)))
    assert (batch_sizes, state.shape) == (sizes, (members, 2, 2, 4))


@pytest.mark.parametrize("solver", ["", "euler"])
def test_all_samples_of_a_study_of_images_are_drawn_with_acceleration(solver, inpainted, tmp_path, monkeypatch):
    """Those of the moments alone, which have no solver, were drawn eager in float32."""
    recipe, run = recipes.load(inpainted / "tiny.yaml", ImageRecipe), inpainted / "run"
    images, accelerated = open_images(run / "images"), []
    monkeypatch.setattr(drawing, "accelerated", lambda sampler, networks, **_: accelerated.append(list(networks)) or sampler)
    setting = Setting("curve", "warm" if solver else "moments", solver, "uniform", 1.0, 0.25, 2 if solver else 0)
    networks = trained_on_images(recipe, run, images)
    study_of_images._evaluated(recipe, tmp_path, run, images, networks, setting, "test", {})
    assert accelerated == [[networks.generator, networks.moments] if solver else [networks.moments]]


def test_the_baseline_of_sampled_images_is_drawn_with_acceleration(inpainted, monkeypatch):
    images, accelerated = open_images(inpainted / "run/images"), []
    monkeypatch.setattr(drawing, "accelerated", lambda sampler, networks, **_: accelerated.append(list(networks)) or sampler)
    recipe = recipes.load(inpainted / "tiny.yaml", ImageRecipe)
    contexts = fixed_contexts(images, "test", recipe.task, count=2)
    assert list(image_scores._baselines(recipe, inpainted / "run", images, contexts)) == ["moments alone", "other images"]
    assert len(accelerated) == 1


def test_pictures_of_images_need_no_kernels_of_their_own(inpainted, tmp_path, monkeypatch):
    """Pictures, tails and the calibrated warmth evaluate the networks in other batches than the samples. Kernels were made for each."""
    batches = set()

    def counted(graph, inputs):
        batches.update(len(values) for values in inputs if isinstance(values, Tensor) and values.shape[2:] == (16, 16))
        return graph.forward

    def compiling(sampler, networks, **_):
        for network in networks:
            network.compile(dynamic=False, backend=counted)
        return sampler

    monkeypatch.setattr(drawing, "accelerated", compiling)
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator")
    sample_images(inpainted / "tiny.yaml", run, warmth="calibrated")
    assert batches == {drawing.batch_size(16 * 16, torch.device("cpu"))}


def test_samplers_compile_so_that_one_kernel_looks_up_neighbours(monkeypatch):
    """A second sampler of the same network takes the kernels of the first. A user's function has none."""
    compiled = []
    monkeypatch.setattr(devices, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)  # so that it is restored
    monkeypatch.setattr(torch, "compile", lambda call, **options: compiled.append(options) or call)
    for network in [torch.nn.Identity()] * 2 + [abs]:
        acceleration.accelerated(lambda context, noise: noise, [network], recorded=False)
    assert compiled == [{"dynamic": False, "options": {"realize_reads_threshold": 32, "realize_opcount_threshold": 1000}}]


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_is_for_gpus_that_have_it(supported, monkeypatch):
    """A T4, of 2018, would imitate it in every operation."""
    monkeypatch.setattr(devices, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)  # so that it is restored
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported or including_emulation)
    product = acceleration.accelerated(lambda context, noise: context @ noise, [], recorded=False)
    assert product(torch.ones(2, 2), torch.ones(2, 2)).dtype == (torch.bfloat16 if supported else torch.float32)


def test_a_rollout_without_compiled_networks_does_not_wait_for_the_import_of_the_compiler(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    assert isinstance(devices.eagerly(), nullcontext)


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_each_process_has_a_gpu_of_its_own(gpus, monkeypatch):
    """With fewer GPUs than processes torch ended in a traceback about an ordinal, in some of the processes."""
    calls = []
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "torch._dynamo", torch)  # it takes a second to import
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, timeout, device_id: calls.append((backend, device_id)))
    monkeypatch.setattr(processes.atexit, "register", lambda _: None)
    if gpus == 1:
        with pytest.raises(UserError, match="2 processes on this machine, but 1 GPU: torchrun --nproc-per-node 1"):
            processes.join()
        assert calls == []
        return
    processes.join()
    second = torch.device("cuda", 1)
    assert calls == ([second, ("nccl", second)] if gpus else [("gloo", None)])


class FakeGraph:
    """A stand-in for a CUDA graph on the CPU. It runs its function again on the recorded memory."""

    recording: list[FakeGraph] = []  # noqa: RUF012

    def replay(self) -> None:
        self.output.copy_(self.function())


@pytest.fixture
def fake_cuda(monkeypatch):
    """Replace streams and graphs by ones that do nothing, so that the code around a graph runs on the CPU."""
    idle = type("Stream", (), {"wait_stream": lambda self, other: None})
    for name, value in {"CUDAGraph": FakeGraph, "Stream": idle, "current_stream": idle}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext(FakeGraph.recording.append(graph)))


def test_a_graph_is_recorded_once_for_each_shape(fake_cuda):
    calls = []

    def sampler(context: Tensor, noise: Tensor) -> Tensor:
        calls.append(len(noise))
        result = context + 2 * noise
        if FakeGraph.recording:
            graph = FakeGraph.recording.pop()
            graph.output, graph.function = result, partial(lambda *inputs: inputs[0] + 2 * inputs[1], context, noise)
        return result

    recorded = as_graph(sampler)
    for size in (3, 2, 3, 2):
        context, noise = torch.randn(size, 4), torch.randn(size, 4)
        first = recorded(context, noise)
        torch.testing.assert_close(first, context + 2 * noise)
        recorded(noise, context)
        torch.testing.assert_close(first, context + 2 * noise)  # a result is a copy: the next call does not change it
    assert calls == [3] * 4 + [2] * 4  # three calls to warm up and one that is recorded


def test_cublas_is_deterministic_from_the_first_product_on():
    """torch reads the variable once in a process, so a deterministic rollout after a fast one could not set it."""
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    code = "import os, sys, wsdcast; print(os.environ['CUBLAS_WORKSPACE_CONFIG'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [":4096:8", "False"], done.stderr


def test_deterministic_runs_set_the_flags_of_torch_and_restore_them(monkeypatch):
    monkeypatch.setattr(devices, "device", lambda: torch.device("cuda"))
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    inside, precision = [], torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")

    def sampler(context: Tensor, noise: Tensor) -> Tensor:
        inside.append((cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision, torch.are_deterministic_algorithms_enabled()))
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        return noise

    exact = acceleration.accelerated(sampler, [], deterministic=True)
    exact(torch.ones(1), torch.ones(1))
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision(precision)
    assert inside == [(False, True, "ieee", True)]
    assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(ZeroDivisionError):
        acceleration.accelerated(lambda context, noise: 1 / 0, [], deterministic=True)(torch.ones(1), torch.ones(1))
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def float32_flags():
    """Return torch's flags of precision, and reset them in the end."""
    backends = torch.backends
    single = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.conv]
    flags = [backends, backends.cudnn, *single]
    before = [of.fp32_precision for of in flags]
    backends.cuda.matmul.fp32_precision = "none"  # as in a new process
    yield flags
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    for of, precision in zip(flags, before, strict=True):
        of.fp32_precision = precision


@pytest.mark.parametrize("number", [None, *range(5)])
@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_the_precision_that_a_user_has_set_is_restored(float32_flags, number, precision):
    """torch refuses to read older flags, such as ``allow_tf32``, where newer ones are set. A flag that only inherits goes on to inherit."""
    if number is not None:
        float32_flags[number].fp32_precision = precision
    else:  # the older ones
        torch.set_float32_matmul_precision("highest" if precision == "ieee" else "high")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    before = [of.fp32_precision for of in float32_flags]
    x = torch.ones(1, 1, 3, 3)
    with acceleration.deterministic_algorithms():
        assert [of.fp32_precision for of in float32_flags] == ["none"] * 2 + ["ieee"] * 5
        torch.nn.functional.conv2d(x, x) @ torch.ones(1, 1)
    assert [of.fp32_precision for of in float32_flags] == before
    float32_flags[0].fp32_precision = "none"
    if number in (0, 1):
        float32_flags[1].fp32_precision = "none"
        assert torch.backends.cuda.matmul.fp32_precision == "none"


def test_a_flag_that_only_warns_is_restored_too():
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        with acceleration.deterministic_algorithms():
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
