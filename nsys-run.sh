#!/usr/bin/env bash
# Profile with Nsight Systems: a scope of this project, or any program.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: ./nsys-run.sh +scope=SCOPE [OVERRIDE ...]    run a scope with capture=nsys
       ./nsys-run.sh [--graphs node|graph] [--gpu-metrics auto|off|HZ] [--outputs FOLDER]
                     -- PROGRAM [ARGS ...]
                                                    record any program and account for its GPU time

examples:
  ./nsys-run.sh +scope=cuda_graphs
  ./nsys-run.sh +scope=baseline model=tiny_random
  ./nsys-run.sh -- python anything.py --some-option
  ./nsys-run.sh --gpu-metrics auto -- ./my_cuda_program      and what the GPU's memory did meanwhile
  ./nsys-run.sh --graphs graph -- ./my_cuda_program          each CUDA graph as one piece: for loops inside of one

Works from any folder, and paths that you give are relative to where you are. A scope's run goes to
outputs/ there (outputs=FOLDER for another); a program's recording to outputs/profile/ in the project (--outputs
FOLDER for another).
`python -m harness --help` lists the scopes, `python -m harness.doctor` tests nsys.
TEXT
}

repo=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
python=$repo/.venv/bin/python
[[ -x $python ]] || python=python3

to=scope
for word; do
  [[ $word != -- ]] || to=program
done
case $to,${1-} in
  *,'' | *,-h | *,--help)
    usage
    ;;
  program,* | *,--graphs* | *,--gpu-metrics*)
    # From the project's folder rather than through PYTHONPATH, which the program would inherit.
    here=$PWD
    cd -- "$repo"
    exec "$python" -m harness.profile --cwd "$here" "$@"
    ;;
  scope,[!-]*)
    if [[ $1 != *=* ]]; then
      printf 'error: %s is no SETTING=VALUE of a scope\n  try: ./nsys-run.sh -- %s, to record a program\n' "$1" "$*" >&2
      exit 2
    fi
    ;;&
  *)
    for word; do
      if [[ $word == capture=* && $word != capture=nsys ]]; then
        printf 'error: %s: nsys-run.sh records by nsys\n  try: python -m harness in its place\n' "$word" >&2
        exit 2
      fi
    done
    export PYTHONPATH=$repo${PYTHONPATH:+:$PYTHONPATH}
    exec "$python" -m harness "$@" capture=nsys # last, since flags like -m come first
    ;;
esac
