"""Count the bytes that the kernels of a recipe's networks move through the memory of a GPU, without a GPU.

    python examples/kernels_without_a_gpu.py [RECIPE]

torch's compiler makes the kernels for an H200 from tensors without values, and counts what each of them reads and writes. This needs a
build of torch for CUDA. Functions that ask the driver about the GPU are replaced; it works with the releases 2.11 and 2.13.
The convolutions, which torch leaves to cuDNN, are counted apart.
"""

from __future__ import annotations

import os
import sys
import tempfile
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import compile_fx, config, graph
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes import joint_graph, post_grad
from torch._subclasses import fake_tensor
from torch.fx.experimental.proxy_tensor import make_fx

from wsdcast.bench.synthetic import record_of
from wsdcast.nets.weights import to_device
from wsdcast.sampling.acceleration import ONE_KERNEL_FOR_NEIGHBOURS
from wsdcast.weather.forcings import forcings_of
from wsdcast.weather.networks import generator_model, moments_model, sizes_of
from wsdcast.weather.recipe import load_recipe

MEMBERS = 50
H200 = SimpleNamespace(
    name="NVIDIA H200",
    major=9,
    minor=0,
    total_memory=141 * 10**9,
    multi_processor_count=132,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    gcnArchName="",
    shared_memory_per_block_optin=232448,
)


class Counted(BaseException):
    """Carries the bytes of convolutions and of all other kernels out of the compiler, which would go on to compile them.

    It is no ``Exception``, because torch would report an error and wrap it in another one.
    """


def count(lowered: graph.GraphLowering) -> None:
    """Raise :class:`Counted` when the kernels are chosen."""
    lowered.codegen()
    total, by_node, _ = lowered.count_bytes()
    of_convolutions = sum(4 * size for node, size in by_node if type(node).__name__ == "ExternKernelSchedulerNode")  # counted in words
    raise Counted(of_convolutions, total - of_convolutions)


def kernels_of(network: nn.Module, inputs: list[tuple[int, ...]], options: dict[str, int], looked_up: bool) -> tuple[float, float]:
    """Return the bytes that one evaluation moves, in convolutions and in all other kernels.

    Args:
        network: the network, laid out in memory as in a rollout.
        inputs: shapes of its inputs.
        options: options of torch's compiler.
        looked_up: whether the neighbours on the sphere are looked up, as :func:`wsdcast.nets.sphere.pad` does for a compiler, or copied.
    """
    with fake_tensor.FakeTensorMode(), torch.no_grad():
        stored = dict(network.named_parameters()) | dict(network.named_buffers())
        tensors = {name: torch.empty_strided(tensor.shape, tensor.stride(), device="cuda") for name, tensor in stored.items()}

        def evaluate(*values: Tensor) -> tuple[Tensor, ...]:
            weights, fields = dict(zip(tensors, values, strict=False)), values[len(tensors) :]
            with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
                output = torch.func.functional_call(network, weights, fields)
            return output if isinstance(output, tuple) else (output,)

        arguments = [*tensors.values(), *(torch.empty(shape, device="cuda") for shape in inputs)]
        with patch.object(torch.compiler, "is_compiling", lambda: looked_up):
            traced = make_fx(evaluate, decomposition_table=select_decomp_table())(*arguments)
        joint_graph.joint_graph_passes(traced)
        try:
            # torch leaves its caches behind when its compiler is stopped.
            with (
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as caches,
                patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=caches),
                config.patch(force_disable_caches=True, **options),
            ):
                compile_fx.compile_fx_inner(traced, arguments, is_inference=True)
        except Counted as counted:
            return counted.args
    raise AssertionError("the compiler counted nothing")


def pretend() -> None:
    """Replace the functions that ask a driver about the GPU."""
    import triton  # part of torch's builds for CUDA
    from triton.backends.compiler import GPUTarget

    torch._C._ensureCUDADeviceGuardSet()  # indexing a tensor without values would otherwise ask the driver
    answers = {"is_available": True, "get_device_properties": H200, "get_device_capability": (9, 0), "current_device": 0, "device_count": 1}
    answers |= {"_exchange_device": 0, "_maybe_exchange_device": 0, "get_rng_state": torch.zeros(16), "set_rng_state": None}
    for name, answer in answers.items():
        for module in (torch.cuda, CudaInterface, CudaInterface.Worker):
            setattr(module, name, staticmethod(lambda *_, answer=answer: answer))
    CudaInterface.get_compute_capability = staticmethod(lambda *_: 90)
    triton.runtime.driver.set_active(SimpleNamespace(get_current_target=lambda: GPUTarget("cuda", 90, 32)))
    fake_tensor.init_gpu_context = lambda *_: None
    joint_graph.lazy_init = post_grad.lazy_init = lambda *_: None  # patterns of attention, which no shipped recipe for the globe has
    graph.GraphLowering.compile_to_module = count


def main(name: str) -> None:
    """Print the bytes that both networks of a recipe move for one evaluation."""
    recipe = load_recipe(name)
    record = record_of(recipe, 30)
    sizes = sizes_of(record, forcings_of(record, recipe.forcings, torch.device("cpu")))
    generator, moments = to_device(generator_model(recipe.generator, sizes)), to_device(moments_model(recipe.moments, sizes))
    shapes = {"generator": generator.input_shapes(*record.grid.shape), "moments network": moments.network.input_shapes(*record.grid.shape)}
    pretend()
    for label, network in {"generator": generator, "moments network": moments}.items():
        inputs = [(MEMBERS if len(shape) > 1 else 1, *shape[1:]) for shape in shapes[label]]
        ways = {"neighbours copied": ({}, False), "looked up": ({}, True), "looked up, with the options": (ONE_KERNEL_FOR_NEIGHBOURS, True)}
        for how, (options, looked_up) in ways.items():
            convolutions, others = kernels_of(network.eval().requires_grad_(False), inputs, options, looked_up)
            text = f"convolutions {1e-9 * convolutions:.0f} GB, other kernels {1e-9 * others:.0f} GB"
            print(f"{label}, {MEMBERS} samples, {how}: {text}", flush=True)


if __name__ == "__main__":
    if not torch.version.cuda:
        sys.exit("this needs a build of torch for CUDA; a GPU is not needed")
    main(*(sys.argv[1:] or ["era5"]))
