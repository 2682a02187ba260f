#!/bin/sh
# Measurements that need a GPU. docs/results/gpu.md has the results.
#
#     sh examples/on_a_gpu.sh OUT [PART ...]
#
# The parts, in order of their worth, with the minutes that an H200 should need, estimated; without PART all of them run in this order:
#     rollout     8   one evaluation at 1.5 degrees, eager and compiled in two ways, with its longest kernels; then the time of a rollout
#                     relative to its networks alone, with four, ten and one evaluations per sample
#     train       3   the same for training steps
#     members     4   members of a small model made fast, with --deterministic (twice: the bits must agree) and on the CPU
#     move        2   a training that begins on the CPU, continues on the GPU, and goes back
#     precision   1   what eight bits could gain over sixteen in the generator; RUN names a run directory for the scores
#     others      5   rollout for an ensemble trained on the CRPS and for the planet, and train for the planet
#     weather    15   the study on GFS wind at 1.5 degrees, and scores of the same members, fast and deterministic
#     images     60   the study on CIFAR-10 with the paper's networks; IMAGES names the archive or an npz
# For a quarter of an hour give `rollout train`, and then `members` if five minutes are left, or else `move precision`. Where the time of the
# machine counts, try the packages before, on any machine: `python3 -c "import wsdcast.bench.rollout, wsdcast.bench.train, wsdcast.cli"`. Keep
# what is printed: `sh examples/on_a_gpu.sh OUT rollout train 2>&1 | tee LOG`. OUT holds many files, of kernels and of runs.
#
# Each measurement runs by itself and prints what it finds at once. One that fails, or takes more than LIMIT seconds (300), does not keep the
# next from running. It needs no internet. `weather` needs the analyses of pipelines/gfs-1.5.yaml in wind/*.nc or in the files that WIND
# names; or GFS names a run directory that `wsdcast prepare --recipe gfs-1.5` wrote. SEEDS makes the study of weather longer, STEPS that of
# images. Both studies need a LIMIT of an hour; the same command goes on where a shorter one ended them.
#
# OUT/kernels keeps the compiled kernels, which take minutes per network. A second machine with the same GPU, Python and releases of torch
# and Triton that has this folder in its OUT does not compile them again.
set -u
out=${1:?usage: sh examples/on_a_gpu.sh OUT [PART ...]}
shift
parts="rollout train members move precision others weather images"
[ $# -gt 0 ] || set -- $parts
for part; do
    case " $parts " in
    *" $part "*) ;;
    *) echo "no part $part; the parts are: $parts" >&2 && exit 2 ;;
    esac
done
mkdir -p "$out"
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$(cd "$out" && pwd)/kernels}"
here=$(dirname "$0")

say() { printf '\n=== %s %s\n' "$(date +%T)" "$*"; }

# measure WHAT COMMAND...
measure() {
    say "$1"
    shift
    timeout -k 10 "${LIMIT:-300}" "$@" || say "it ended with $?"
}

# forecast RUN WHERE OPTIONS...: roll out, on the GPU or with none (WHERE is empty), and score
forecast() {
    run=$1 visible=$2
    shift 2
    measure "rollout of $run $*" env CUDA_VISIBLE_DEVICES="$visible" \
        wsdcast rollout --run "$run" --members 50 --nfe 10 --starts 4 --lead 3d --keep 6,72 --json "$@"
    measure "scores of it" wsdcast score --run "$run" --json
}

python3 -c "import wsdcast.bench.rollout, wsdcast.bench.train, wsdcast.cli" || exit 1 # else each measurement would fail by itself
say "commit ${COMMIT:-$(git rev-parse --short HEAD 2> /dev/null || echo unknown)}"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
for part; do
    case $part in
    rollout)
        measure "one evaluation" python3 "$here/evaluation_on_a_gpu.py" era5 50
        # The next command compiles the moments network too. The last two find all kernels in the cache.
        for evaluations in 4 10 1; do
            measure "evaluations: $evaluations" wsdcast bench rollout --recipe era5 --members 50 --nfe $evaluations --lead 10d --json
        done
        ;;
    train)
        measure "training steps, era5" wsdcast bench train --recipe era5 --json
        ;;
    members)
        measure "a small model" wsdcast prepare --recipe "$here/on_a_gpu.yaml" -o data.days=200 --run "$out/small"
        measure "its training" wsdcast train --run "$out/small" -o moments.steps=300 -o generator.steps=300
        for way in fast exact again cpu; do
            rm -rf "$out/$way"
            cp -r "$out/small" "$out/$way"
        done
        forecast "$out/fast" "${CUDA_VISIBLE_DEVICES-0}"
        forecast "$out/exact" "${CUDA_VISIBLE_DEVICES-0}" --deterministic
        forecast "$out/again" "${CUDA_VISIBLE_DEVICES-0}" --deterministic
        forecast "$out/cpu" ""
        measure "do both deterministic forecasts have the same bits? A difference is named" \
            diff -rq "$out/exact/forecast.zarr/10m_u_component_of_wind" "$out/again/forecast.zarr/10m_u_component_of_wind"
        ;;
    move)
        measure "from the CPU to the GPU and back" wsdcast prepare --recipe "$here/on_a_gpu.yaml" --run "$out/moved"
        # Each stops after some seconds, which must be enough to import everything on a cold machine.
        for visible in "" 0 ""; do
            CUDA_VISIBLE_DEVICES=$visible timeout --signal TERM -k 10 "${SECONDS_EACH:-30}" \
                wsdcast train --recipe "$here/on_a_gpu.yaml" --run "$out/moved" 2>&1 | grep -E "goes on|stopped" ||
                say "the training had not begun; SECONDS_EACH must be longer"
        done
        ;;
    precision)
        measure "eight bits" python3 "$here/eight_bits.py" ${RUN:+"$RUN"}
        ;;
    others)
        measure "one evaluation, crps" \
            wsdcast bench rollout --recipe era5 -o generator.objective=crps --members 50 --nfe 1 --lead 10d --json
        measure "planet" wsdcast bench rollout --recipe planet --nfe 10 --json
        measure "training steps, planet" wsdcast bench train --recipe planet --json
        ;;
    weather)
        [ -d "${GFS:-}" ] && mkdir -p "$out/gfs" && cp -r "$GFS/." "$out/gfs" ||
            measure "GFS wind" wsdcast prepare --recipe gfs-1.5 --source "${WIND:-wind/*.nc}" --run "$out/gfs"
        measure "its study" wsdcast study nfe --run "$out/gfs" --seeds "${SEEDS:-0}" --json
        # The copy stays in the same folder, because the networks of a study have links to the record.
        rm -rf "$out/gfs/study/exact"
        cp -r "$out/gfs/study/warm-0" "$out/gfs/study/exact"
        rm -rf "$out/gfs/study/exact/"*forecast.zarr # of an earlier try: fast ones would pass for deterministic ones
        forecast "$out/gfs/study/warm-0" "${CUDA_VISIBLE_DEVICES-0}"
        forecast "$out/gfs/study/exact" "${CUDA_VISIBLE_DEVICES-0}" --deterministic
        ;;
    images)
        measure "CIFAR-10" wsdcast inpaint prepare --recipe cifar10 --source "${IMAGES:-cifar10}" --run "$out/cifar10" \
            -o moments.steps="${STEPS:-2000}" -o generator.steps="${STEPS:-2000}" -o classifier.steps=3000
        measure "its study" wsdcast inpaint study --run "$out/cifar10" --seeds 0 --nfe 2,4,10,20,50
        ;;
    esac
done
say "done"
