#!/usr/bin/env bash
# Everything there is to do on a machine with a GPU, in nine minutes and without a network:
#   benchmarks/gpu_check.sh OUT
# builds for the card, runs the CUDA tests, compute-sanitizer on the small ones, the benchmarks against
# what else is installed, and writes JSON, text and a PNG to OUT. Ends with a short table. A step that
# fails or runs out of time is told of and does not stop the rest; the exit status counts them.
set -uo pipefail
if ! command -v nvidia-smi >/dev/null; then
  echo "no GPU here: nvidia-smi is not on the PATH" >&2
  exit 2
fi
out=$(mkdir -p "${1:?usage: gpu_check.sh OUT}" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
build=${BUILD:-$out/../gpu_build}
log=$out/log.txt
failed=0
: >"$log"

# step NAME SECONDS COMMAND...: never past second 530 of the whole
step() {
  local name=$1 limit=$2 status
  shift 2
  ((SECONDS + limit > 530)) && limit=$((530 - SECONDS))
  if ((limit <= 5)); then
    echo "LEFT OUT  $name: no time left" | tee -a "$out/summary.txt"
    return
  fi
  local begin=$SECONDS
  echo "== $name" >>"$log"
  timeout "$limit" "$@" >>"$log" 2>&1
  status=$?
  if ((status == 0)); then
    echo "ok        $name ($((SECONDS - begin)) s)" | tee -a "$out/summary.txt"
  else
    failed=$((failed + 1))
    echo "FAILED    $name: status $status (124: out of time) after $((SECONDS - begin)) s" |
      tee -a "$out/summary.txt"
    tail -n 15 "$log"
  fi
}

build_module() {
  local capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
  [[ $capability == 90 ]] && capability=90a
  cmake -S . -B "$build" -DSUDER_CUDA=ON -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CUDA_ARCHITECTURES="$capability-real" -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" &&
    cmake --build "$build" -j "$(nproc)" &&
    cp "$build"/_C*.so "$build"/csrc/cuda/_C_cuda*.so suder_ext/
}

: >"$out/summary.txt"
nvidia-smi >"$out/card.txt" 2>&1
export PYTHONPATH=$PWD:$PWD/python
step "build" 150 bash -c "$(declare -f build_module); python=$python build=$build; build_module"
for way in auto tiles mma; do
  SUDER_CUDA_HEAD=$way step "tests, $way" 90 "$python" -m pytest -q -x tests/gpu
done
for tool in memcheck racecheck initcheck synccheck; do
  if command -v compute-sanitizer >/dev/null; then
    step "compute-sanitizer $tool" 45 compute-sanitizer --tool "$tool" \
      --error-exitcode 9 --kernel-regex kns=suder "$python" -m benchmarks.gpu.small_ops
  else
    echo "LEFT OUT  compute-sanitizer $tool: not installed" | tee -a "$out/summary.txt"
  fi
done
step "benchmarks" 180 "$python" -m benchmarks.gpu.compare --out "$out"
cat "$out/table.txt" 2>/dev/null
echo "$failed steps failed; $SECONDS s; results in $out"
exit "$failed"
