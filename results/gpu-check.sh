#!/usr/bin/env bash
# On a machine with a GPU: what can only be tested there, and the whole ladder with Whisper-small's shapes.
# Usage: bash results/gpu-check.sh [INTO]       INTO: where the published runs go, default results/h200
# PYTHON is the interpreter, default .venv/bin/python. On an H200 seven minutes without the words, which were added later.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
into=${1:-results/h200}
python=${PYTHON:-.venv/bin/python}
outputs=$(mktemp -d)
trap 'rm -rf "$outputs"' EXIT
common=(model=whisper_small_random audio=harbour measure.iterations=20)
failed=()

# A failing step is reported at the end; the others still run.
check() {
  printf '\n== %s (%s s)\n' "$*" "$SECONDS"
  "$@" || failed+=("$*")
}

check "$python" -m harness.doctor
check "$python" -m pytest -q -p no:cacheprovider --show-capture=no -m gpu tests

# Any program: 100 gaps of a little over 100 us are planted in this one.
check nvcc -arch=native -o "$outputs/queue" tests/gpu/queue.cu
check ./nsys-run.sh -- "$outputs/queue"
check ./nsys-run.sh -- "$python" -c 'import time; time.sleep(1)'

# The same analysis from torch.profiler.
check "$python" -m harness +scope=cuda_graphs "${common[@]}" capture=kineto max_new_tokens=12 \
  "outputs=$outputs/kineto"

# Every kernel of one decode step by Nsight Compute; what it can't measure is a note in the report.
check timeout 280 "$python" -m harness +scope=cuda_graphs "${common[@]}" capture=ncu max_new_tokens=12 \
  measure.iterations=3 "outputs=$outputs/ncu"

# Words in fp16: the bundled checkpoint on clips that it never heard.
check "$python" -m experiments.evaluate --device cuda
check "$python" -m harness -m +scope=baseline,cuda_graphs audio=heldout capture=none measure.warmup=1 \
  measure.iterations=2 "outputs=$outputs/words"

# The ladder, published only if all of it worked.
others=${#failed[@]}
check "$python" -m harness -m +scope=baseline,flash,cuda_graphs "${common[@]}" capture=nsys "outputs=$outputs"
check "$python" -m harness +scope=cuda_graphs graphs.how=compile name=cuda_graphs_compile "${common[@]}" \
  capture=nsys "outputs=$outputs"
for figure in roofline dram; do
  check ls "$outputs"/{baseline,flash,cuda_graphs,cuda_graphs_compile}/*/plots/"$figure".png
done
if ((${#failed[@]} == others)); then
  check "$python" -m harness.publish "$outputs" --into "$into"
  check cp "$outputs"/sweeps/*/ladder.png "$into/"
  check "$python" -m harness.results table --db "$outputs/results.db" --markdown
fi

printf '\n%s steps failed (%s s)\n' "${#failed[@]}" "$SECONDS"
((${#failed[@]} == 0)) && exit
printf 'FAILED: %s\n' "${failed[@]}"
exit 1
