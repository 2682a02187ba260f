#!/bin/sh
# What only a GPU can show: how close training and rollout come to the networks alone, in which precision, and the study at 1.5 degrees.
#
#     sh examples/on_a_gpu.sh OUT
#
# Prints what docs/results/gpu.md is to hold: device, versions and commit first. The last two commands need the GFS analyses that
# pipelines/gfs-1.5.yaml names, and take the longest.
set -eu
out=${1:?usage: sh examples/on_a_gpu.sh OUT}
mkdir -p "$out"
git rev-parse HEAD
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
wsdcast bench train --recipe era5
wsdcast bench rollout --recipe era5 --members 50 --nfe 10 --lead 10d
wsdcast bench rollout --recipe planet
# The same members, fast and deterministic: what bfloat16 and compiled kernels change, as scores.
wsdcast run planet --run "$out/planet" --json > "$out/fast.json"
rm -r "$out/planet/forecast.zarr" "$out/planet/moments_forecast.zarr" "$out/planet/scores.nc" # else they are current
wsdcast rollout --run "$out/planet" --deterministic
wsdcast score --run "$out/planet" --json > "$out/deterministic.json"
wsdcast prepare --recipe gfs-1.5 --run "$out/gfs-1.5"
wsdcast study nfe --recipe gfs-1.5 --run "$out/gfs-1.5"
# Images, as far as half an hour goes: the paper's networks, fewer steps. IMAGES: CIFAR-10's archive or an npz, where there is no network.
sed "s/steps: 40000/steps: ${STEPS:-2000}/; s/steps: 100000/steps: ${STEPS:-2000}/; s/steps: 10000/steps: 3000/" \
    pipelines/inpaint/cifar10.yaml > "$out/cifar10.yaml"
wsdcast inpaint prepare --recipe "$out/cifar10.yaml" --source "${IMAGES:-cifar10}" --run "$out/cifar10"
wsdcast inpaint study --run "$out/cifar10" --seeds 0 --nfe 2,4,6,8,10,12,20,50
