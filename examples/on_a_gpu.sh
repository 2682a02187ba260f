#!/bin/sh
# Measurements that need a GPU, in parts of less than ten minutes each. docs/results/gpu.md has the results.
#
#     sh examples/on_a_gpu.sh PART OUT
#
# PART is one of
#     rollout     time of a rollout at 1.5 degrees relative to its networks alone, with ten, four and one evaluations per sample
#     train       the same for training; a training that begins on the CPU and continues on the GPU, and back
#     precision   what eight bits could gain over sixteen in the generator; RUN names a run directory for the scores
#     weather     the study on GFS wind at 1.5 degrees, and scores of the same members, fast and deterministic
#     images      the study on CIFAR-10 with the paper's networks; IMAGES names the archive or an npz
#
# It needs no internet. `weather` needs the analyses of pipelines/gfs-1.5.yaml in wind/*.nc or in the files that WIND names; or GFS names a run
# directory that `wsdcast prepare --recipe gfs-1.5` wrote. SEEDS makes the study of weather longer, STEPS that of images.
set -eu
part=${1:?usage: sh examples/on_a_gpu.sh PART OUT}
out=${2:?usage: sh examples/on_a_gpu.sh PART OUT}
mkdir -p "$out"
here=$(dirname "$0")

say() { printf '\n=== %s %s\n' "$(date +%T)" "$*"; }

say "$part, commit $(git rev-parse --short HEAD 2> /dev/null || echo unknown)"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
case $part in
rollout)
    for nfe in 10 4; do
        say "rollout, era5, $nfe evaluations"
        wsdcast bench rollout --recipe era5 --members 50 --nfe $nfe --lead 10d --json
    done
    say "rollout, era5, one evaluation: distilled, and the rival that is trained on the CRPS"
    for objective in distil crps; do
        wsdcast bench rollout --recipe era5 -o generator.objective=$objective --members 50 --nfe 1 --lead 10d --json
    done
    say "rollout, planet"
    wsdcast bench rollout --recipe planet --nfe 10 --json
    ;;
train)
    say "training, era5"
    wsdcast bench train --recipe era5 --json
    say "training, planet"
    wsdcast bench train --recipe planet --json
    say "from the CPU to the GPU and back: each stops after some seconds, which must be enough to import everything on a cold machine"
    wsdcast prepare --recipe "$here/on_a_gpu.yaml" --run "$out/tiny" > "$out/prepare.txt"
    for visible in "" 0 ""; do
        CUDA_VISIBLE_DEVICES=$visible timeout --signal TERM "${SECONDS_EACH:-30}" \
            wsdcast train --recipe "$here/on_a_gpu.yaml" --run "$out/tiny" 2>&1 | grep -E "goes on|continues|stopped" || true
    done
    ;;
precision)
    python3 "$here/eight_bits.py" ${RUN:-}
    ;;
weather)
    [ -d "${GFS:-}" ] && cp -r "$GFS" "$out/gfs" || wsdcast prepare --recipe gfs-1.5 --source "${WIND:-wind/*.nc}" --run "$out/gfs"
    wsdcast study nfe --run "$out/gfs" --seeds "${SEEDS:-0}" --json
    say "members, fast and deterministic: bfloat16 and compiled kernels as scores"
    warm=$out/gfs/study/warm-0
    wsdcast rollout --run "$warm" --members 50 --nfe 10 --starts 4 --lead 3d --json
    wsdcast score --run "$warm" --json | tee "$out/fast.json"
    rm -r "$warm/forecast.zarr" "$warm/moments_forecast.zarr" "$warm/scores.nc" # otherwise the next commands would reuse them
    wsdcast rollout --run "$warm" --members 50 --nfe 10 --starts 4 --lead 3d --deterministic --json
    wsdcast score --run "$warm" --json | tee "$out/deterministic.json"
    ;;
images)
    sed "s/steps: 40000/steps: ${STEPS:-2000}/; s/steps: 100000/steps: ${STEPS:-2000}/; s/steps: 10000/steps: 3000/" \
        "$here/../pipelines/inpaint/cifar10.yaml" > "$out/cifar10.yaml"
    wsdcast inpaint prepare --recipe "$out/cifar10.yaml" --source "${IMAGES:-cifar10}" --run "$out/cifar10"
    wsdcast inpaint study --run "$out/cifar10" --seeds 0 --nfe 2,4,10,20,50
    ;;
*)
    echo "no part $part" >&2
    exit 2
    ;;
esac
say "done"
