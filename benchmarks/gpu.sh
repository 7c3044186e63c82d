#!/usr/bin/env bash
# All that is measured about speed on a machine with a CUDA device, in one go.
#
#     benchmarks/gpu.sh               records and the figure go to results/published, to be committed
#     OUT=DIR benchmarks/gpu.sh       or elsewhere
#     benchmarks/gpu.sh --tiny        the same steps on the CPU at smoke sizes, into results/local
#
# Dependencies are there already; of mamba-ssm, flash-attn, transformers and mambapy what is there
# is used, and what is not has a row that says so. A step that fails or takes longer than its
# seconds is reported, and the next one runs; the exit code is 1 if there was any.
#
#     step           seconds   what
#     environment         20   versions, and the name of the device
#     parity              55   the GPU tests: kernels against the reference, fp32 and bf16
#     scan                35   the scan alone, Triton against mamba-ssm, forward and in training
#     contenders         105   back ends and peers at the default size
#     compiled            75   torch.compile and CUDA graphs, in training
#     decoded             60   the same in decoding
#     large               35   about 100 million parameters: training beside matrix products
#     ratio 1:0           30   prefill and decode by context, as are the next three
#     ratio 1:3           30
#     ratio 1:7           30
#     ratio 0:1           30
#     limits              55   how large a batch fits, attention alone and 1:7
#     profile             20   the share of each part in a training step
#     figure              15   throughput by context and batch, from the two steps before
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python}
TINY=${TINY:-}
if [[ ${1:-} == --tiny ]]; then TINY=1; fi
if [[ -n $TINY ]]; then OUT=${OUT:-results/local}; fi
OUT=${OUT:-results/published}
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-3000} # as in the Makefile

# Sizes: options of `python -m sweeps`.
ops=(--ops triton --ops mamba-ssm)
best=(--ops triton)
compile=(--compile off --compile on --compile graphs)
scan=(--device cuda --width 768 --batch 8 --tokens 2048)
usual=(--device cuda --rounds 3 --budget 5)
large=(--device cuda --width 768 --hidden 2560 --vocab 16384 --batch 16 --tokens 1024 --rounds 3)
sized=(--device cuda --width 512 --hidden 1536 --vocab 4096)
contexts=(--context 1024 --context 4096 --context 16384 --context 65536 --context 131072)
room=(--context 4096 --tokens 1024 --memory 20GB --budget 10)
profiled=(--device cuda)
if [[ -n $TINY ]]; then
    ops=(--ops cpu --ops torch)
    best=(--ops cpu)
    compile=(--compile off)
    scan=(--device cpu --smoke)
    usual=("${scan[@]}")
    large=("${scan[@]}")
    sized=("${scan[@]}")
    contexts=(--context 16 --context 24)
    room=(--context 24 --max-batch 2)
    profiled=("${scan[@]}")
fi

total=0
failed=()

# step SECONDS NAME COMMAND...: run the command for so long at most; note how it ended. The limits
# are a GPU's; on a CPU, which others may share, they only end what hangs.
step() {
    local seconds=$1 name=$2 status=0 start=$SECONDS
    shift 2
    if [[ -n $TINY ]]; then seconds=$((10 * seconds)); fi
    printf '\n== %s, %s s at most: %s\n' "$name" "$seconds" "$*"
    timeout --kill-after=5 "$seconds" "$@" || status=$?
    total=$((total + 1))
    case $status in
    0) printf '== %s: done in %s s\n' "$name" "$((SECONDS - start))" ;;
    124 | 137) failed+=("$name (took longer than $seconds s)") ;;
    *) failed+=("$name (exit code $status)") ;;
    esac
}

# bench SECONDS NAME OPTION...: a step of the benchmark, without the slow measurement of memory.
bench() {
    local seconds=$1 name=$2
    shift 2
    step "$seconds" "$name" "$PYTHON" -m sweeps bench --no-memory --results "$OUT" "$@"
}

environment() {
    "$PYTHON" - <<'PYTHON_END'
from importlib import metadata

import torch

print("GPU:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none")
print("CUDA of torch:", torch.version.cuda)
names = "torch triton mamba-ssm causal-conv1d flash-attn transformers mambapy pytest"
for name in names.split():
    try:
        print(f"{name} {metadata.version(name)}")
    except metadata.PackageNotFoundError:
        print(f"{name} absent")
PYTHON_END
}

measure() {
    local mark files ratio
    export -f environment
    export PYTHON
    step 20 environment bash -c environment
    step 55 parity "$PYTHON" -m pytest -q -m gpu -rs -p no:cacheprovider \
        tests/test_ops_triton.py tests/test_ops_cuda.py tests/test_steps.py
    bench 35 scan "${scan[@]}" "${ops[@]}" --no-peers --phases scan --phases scan-train
    bench 105 contenders "${usual[@]}" --compile off \
        --phases train --phases prefill --phases decode
    bench 75 compiled "${usual[@]}" "${best[@]}" "${compile[@]}" --no-peers --phases train
    bench 60 decoded "${usual[@]}" "${best[@]}" "${compile[@]}" --no-peers --phases decode
    bench 35 large "${large[@]}" "${ops[@]}" --compile off --no-peers --phases train

    mark=$(mktemp)
    for ratio in 1:0 1:3 1:7 0:1; do
        bench 30 "ratio $ratio" "${sized[@]}" "${best[@]}" --compile off --no-peers --rounds 3 \
            --ratio "$ratio" "${contexts[@]}" --phases prefill --phases decode
    done
    step 55 limits "$PYTHON" -m sweeps limits --results "$OUT" "${sized[@]}" "${best[@]}" \
        --ratio 1:0 --ratio 1:7 "${room[@]}"
    mapfile -t files < <(find "$OUT/bench" -name '*.parquet' -newer "$mark" | sort)
    rm -f "$mark"

    step 20 profile "$PYTHON" -m sweeps profile "${profiled[@]}" "${best[@]}" \
        --results "$OUT" --label gpu.sh
    step 15 figure "$PYTHON" -m sweeps bench-figure "${files[@]}" --to "$OUT/bench/throughput"

    printf '\n== %s of %s steps failed, after %s s\n' "${#failed[@]}" "$total" "$SECONDS"
    if ((${#failed[@]})); then
        printf '== failed: %s\n' "${failed[@]}"
        return 1
    fi
}

if [[ -z $TINY ]] && ! "$PYTHON" -c 'import torch; assert torch.cuda.is_available()'; then
    echo "gpu.sh: torch sees no CUDA device here; benchmarks/gpu.sh --tiny tests the script" >&2
    exit 2
fi
mkdir -p "$OUT/bench"
measure 2>&1 | tee "$OUT/bench/gpu-$(date -u +%Y%m%dT%H%M%S).log"
