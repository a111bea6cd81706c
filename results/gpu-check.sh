#!/usr/bin/env bash
# On a machine with a GPU: what can only be tested there, and the whole ladder with Whisper-small's shapes.
# Usage: bash results/gpu-check.sh [PART ...]
#   tests      the tests marked gpu, and traces of any program                    (3 min on an H200)
#   calibrate  the gap analysis against gaps that are known                       (1 min)
#   ladder     all scopes, published to INTO if all of them worked                (14 min)
#   drafts     speculation with scripted acceptance, and with the bundled pair    (5 min)
#   words      all scopes in fp16 on clips that the bundled checkpoint never heard (4 min)
#   ncu        one decode step by Nsight Compute, and how far the samples agree   (5 min)
#   kernels    each kernel beside torch and its byte floor, into results/kernels  (3 min)
#   throughput the pipeline at batch 1, 8 and 64, and what the GPU idled          (4 min)
#   peers      openai-whisper (if it is installed) and transformers beside all scopes, into bench.json beside
#              INTO; called again at the same commit, what is missing there       (20 min)
# Without a PART: all. INTO is where results go, default results/h200; PYTHON the interpreter, default
# .venv/bin/python; OUTPUTS a folder that is kept, default a temporary one; OVERRIDES more settings of the ladder.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
into=${INTO:-results/h200}
python=${PYTHON:-.venv/bin/python}
outputs=${OUTPUTS:-}
[[ -n $outputs ]] || { outputs=$(mktemp -d) && trap 'rm -rf "$outputs"' EXIT; }
common=(model=whisper_small_random audio=harbour measure.iterations=15 trace.warmup=2)
failed=()

# A failing step is reported at the end; the others still run.
check() {
  printf '\n== %s (%s s)\n' "$*" "$SECONDS"
  "$@" || failed+=("$*")
}

tests() {
  check "$python" -m harness.doctor
  check "$python" -m pytest -q -p no:cacheprovider --show-capture=no -m gpu tests
  # Any program: 100 gaps of a little over 100 us are planted in this one.
  check nvcc -arch=native -o "$outputs/queue" tests/gpu/queue.cu
  check ./nsys-run.sh -- "$outputs/queue"
  check ./nsys-run.sh -- "$python" -c 'import time; time.sleep(1)'
  # The same analysis from torch.profiler.
  check "$python" -m harness +scope=cuda_graphs "${common[@]}" capture=kineto max_new_tokens=12 \
    "outputs=$outputs/kineto"
}

calibrate() {
  check "$python" -m benchmarks.record_calibration --keep tests/data/h200_calibration_2025.3
}

ladder() {
  local others=${#failed[@]}
  local overrides
  read -ra overrides <<<"${OVERRIDES:-}"
  check "$python" -m harness -m '+scope=glob(*)' "${common[@]}" capture=nsys "outputs=$outputs" "${overrides[@]}"
  if ((${#failed[@]} == others)); then
    check "$python" -m harness.publish "$outputs" --into "$into"
    check "$python" -m harness.results table --db "$outputs/results.db" --markdown
  fi
}

drafts() {
  local acceptance scope quiet=(capture=none compare_with=cuda_graphs)
  check "$python" -m harness +scope=cuda_graphs "${common[@]}" capture=none "outputs=$outputs/drafts"
  for acceptance in 0.6 0.8 0.9; do
    for scope in speculative optimized; do
      check "$python" -m harness "+scope=$scope" speculate.how=scripted "speculate.acceptance=$acceptance" \
        "name=${scope}_$acceptance" "${common[@]}" "${quiet[@]}" "outputs=$outputs/drafts"
    done
  done
  check "$python" -m harness.publish "$outputs/drafts" --into "$into-drafts"
  check "$python" -m harness -m +scope=cuda_graphs,speculative,optimized capture=none "outputs=$outputs/bundled"
  check "$python" -m harness +scope=optimized speculate.how=draft name=optimized_draft "${quiet[@]}" \
    "outputs=$outputs/bundled"
  check "$python" -m harness.publish "$outputs/bundled" --into "$into-bundled"
}

words() {
  check "$python" -m experiments.evaluate --device cuda
  check "$python" -m harness -m '+scope=glob(*)' audio=heldout capture=none measure.warmup=0 measure.iterations=1 \
    "outputs=$outputs/words"
  check "$python" -m harness.publish "$outputs/words" --into "$into-words"
}

ncu() {
  check timeout 420 "$python" -m harness +scope=cuda_graphs "${common[@]}" capture=ncu max_new_tokens=12 \
    measure.iterations=3 trace.warmup=1 "outputs=$outputs/ncu"
}

kernels() {
  mkdir -p "$(dirname "$into")/kernels"
  local one
  for one in decoder_step topk decode_attention int8_gemv; do
    check "$python" -m "benchmarks.$one" --json "$(dirname "$into")/kernels/$one.json"
  done
}

throughput() {
  local rows
  rows=$(dirname "$into")/throughput.json
  check "$python" -m benchmarks.throughput --json "$rows"
  check "$python" -m harness.profile --graphs graph --outputs "$outputs/throughput" -- \
    "$python" -m benchmarks.throughput --once
  check "$python" -m benchmarks.throughput --json "$rows" --idle "$outputs"/throughput/profile/*/trace.sqlite
}

peers() {
  check "$python" -m benchmarks.peers --resume --into "$(dirname "$into")/bench.json"
}

all=(tests calibrate ladder drafts words ncu kernels throughput peers)
(($#)) || set -- "${all[@]}"
for part in "$@"; do
  case $part in
    tests | calibrate | ladder | drafts | words | ncu | kernels | throughput | peers) "$part" ;;
    *)
      echo "error: no part is called $part" >&2
      echo "  try: ${all[*]}" >&2
      exit 2
      ;;
  esac
done

printf '\n%s steps failed (%s s)\n' "${#failed[@]}" "$SECONDS"
((${#failed[@]} == 0)) && exit
printf 'FAILED: %s\n' "${failed[@]}"
exit 1
