#!/usr/bin/env bash
# On a machine with a GPU: the whole ladder with Whisper-small's shapes, and what can only be tested there.
# Usage: bash results/gpu-check.sh [INTO]       INTO: where the published runs go, default results/h200
# PYTHON is the interpreter, default .venv/bin/python. Takes about six minutes on an H200.
set -euo pipefail
cd "$(dirname "$0")/.."
into=${1:-results/h200}
python=${PYTHON:-.venv/bin/python}
outputs=$(mktemp -d)
common=(model=whisper_small_random audio=harbour capture=nsys "outputs=$outputs" measure.iterations=20)

step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

step "what this machine has"
"$python" -m harness.doctor || true

step "the ladder"
"$python" -m harness -m +scope=baseline,flash,cuda_graphs "${common[@]}"
"$python" -m harness +scope=cuda_graphs graphs.how=compile name=cuda_graphs_compile "${common[@]}"
"$python" -m harness.results table --db "$outputs/results.db" --markdown
"$python" -m harness.publish "$outputs" --into "$into"

step "tests that need a GPU"
"$python" -m pytest -q -p no:cacheprovider -m gpu tests

step "any program: a CUDA program with 100 planted gaps of 100 us"
nvcc -arch=native -o "$outputs/queue" tests/gpu/queue.cu
./nsys-run.sh -- "$outputs/queue"

step "the same schema from torch.profiler"
"$python" -m harness +scope=cuda_graphs "${common[@]}" capture=kineto max_new_tokens=12 measure.iterations=2 \
  "outputs=$outputs/kineto"
step "done"
