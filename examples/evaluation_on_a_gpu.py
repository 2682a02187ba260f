"""Time one evaluation of a recipe's generator as it is, compiled, and compiled as for a rollout, and name the longest kernels of the last.

    python examples/evaluation_on_a_gpu.py [RECIPE [SAMPLES]]

On a GPU the evaluation is in bfloat16. Each way prints what it finds at once. One that fails prints its error and does not keep the next
from running. The rollout of `wsdcast bench rollout` depends on the last way; if that fails or is slow, this shows which change is to blame.
"""

from __future__ import annotations

import copy
import sys
import time

import torch

from wsdcast.bench.measure import paired
from wsdcast.bench.synthetic import inputs_of, networks_of, record_of
from wsdcast.runs import devices
from wsdcast.sampling.acceleration import ONE_KERNEL_FOR_NEIGHBOURS
from wsdcast.weather.recipe import load_recipe

WAYS = {"eager": None, "compiled": {}, "compiled as for a rollout": ONE_KERNEL_FOR_NEIGHBOURS}
ROUNDS = 5


@torch.inference_mode()
def main(recipe: str = "era5", samples: str = "50") -> None:
    """Print the seconds of the first evaluation, in which kernels are compiled, and the shortest of the next ones."""
    resolved, device = load_recipe(recipe), devices.device()
    record = record_of(resolved, 30)
    generator = networks_of(resolved, record).generator
    inputs = inputs_of(generator, int(samples), record.grid)
    for way, options in WAYS.items():
        network = copy.deepcopy(generator)

        def evaluate(network: torch.nn.Module = network) -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False):
                network(*inputs)
            if device.type == "cuda":
                torch.cuda.synchronize()

        try:
            if options is not None:
                devices.compiled(network, options)
            begin = time.perf_counter()
            evaluate()
            first = time.perf_counter() - begin
            print(f"{way}: {1e3 * paired(evaluate, rounds=ROUNDS)[0]:.1f} ms, the first time {first:.1f} s", flush=True)
        except Exception as error:  # of the compiler, a kernel or the memory: the other ways are still measured
            print(f"{way}: {type(error).__name__}: {error}", flush=True)
    with torch.profiler.profile() as profile:
        evaluate()
    by = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=by, row_limit=5, max_name_column_width=60))


if __name__ == "__main__":
    main(*sys.argv[1:])
