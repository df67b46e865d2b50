#!/usr/bin/env bash
# Everything there is to do on a machine with a GPU, without a network, in at most five minutes if the
# module is carried there built (build/gpu/*.so, by `gpu_check.sh --build ARCH` on any machine with
# nvcc and the same Python), two more if it is not:
#   benchmarks/gpu_check.sh OUT [--only tests,sanitizers,compare,pairs,calls,ncu]
#   benchmarks/gpu_check.sh OUT --only round
#   benchmarks/gpu_check.sh --build 90a
# Ends with a short table; everything else is in files in OUT. A step that fails or runs out of time
# is told of and does not stop the rest; the exit status counts them.
#
# Peers are carried as wheels and installed without an index: liger-kernel and cut-cross-entropy are
# small and pure Python; quack needs nvidia-cutlass-dsl, 92 MB, and stays out unless that is there.
#
# "round", which has to be asked for, times the phases of a round of the trainer on Janus-Pro-1B's
# shape (two minutes at most), then on the 7B's with LoRA in the time that is left. Beside torch,
# transformers and what those bring the trainer needs pydantic, rich and Pillow; LoRA needs peft.
# Wheels for Python 3.12, 13 MB, from any machine with a network:
#   pip download -d build/gpu/wheels --only-binary=:all: --python-version 3.12 \
#     --platform manylinux2014_x86_64 'pydantic>=2.10,<3' rich
#   pip download -d build/gpu/wheels --only-binary=:all: --python-version 3.12 --no-deps \
#     --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 pillow peft accelerate psutil
# They are pydantic, pydantic_core (of the very version that pydantic asks for), annotated_types,
# typing_extensions, typing_inspection; rich, markdown_it_py, mdurl, pygments; pillow; peft,
# accelerate, psutil. What is in build/gpu/wheels and missing is installed into OUT/packages.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
build=$root/build/gpu

build_module() { # ARCHITECTURE
  cmake -S "$root" -B "$build/tree" -DSUDER_CUDA=ON -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CUDA_ARCHITECTURES="$1-real" -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" &&
    cmake --build "$build/tree" -j "$(nproc)" &&
    cp "$build"/tree/_C*.so "$build"/tree/csrc/cuda/_C_cuda*.so "$build"
}

if [[ ${1:-} == --build ]]; then
  build_module "${2:?usage: gpu_check.sh --build ARCHITECTURE, such as 90a}"
  exit
fi
out=$(mkdir -p "${1:?usage: gpu_check.sh OUT [--only PARTS]}" && cd "$1" && pwd) || exit 2
parts=tests,sanitizers,compare,pairs,calls,ncu
known=,$parts,round,
[[ ${2:-} == --only ]] && parts=${3:?--only takes a list of: $parts}
for part in ${parts//,/ }; do
  [[ $known == *,$part,* ]] ||
    { echo "--only: no part is called $part" >&2; exit 2; }
done
if ! command -v nvidia-smi >/dev/null; then
  echo "no GPU here: nvidia-smi is not on the PATH" >&2
  exit 2
fi
cd "$root"
export PYTHONPATH=$PWD:$PWD/python
failed=0
limit_all=300
: >"$out/summary.txt"
nvidia-smi >"$out/card.txt" 2>&1

wanted() { [[ ,$parts, == *,$1,* ]]; }
say() { echo "$*" | tee -a "$out/summary.txt"; }

# step NAME SECONDS COMMAND...: its output goes to OUT/NAME.txt; never past $limit_all
step() {
  local name=$1 limit=$2 begin=$SECONDS status
  shift 2
  ((SECONDS + limit > limit_all)) && limit=$((limit_all - SECONDS))
  ((limit > 5)) || { say "LEFT OUT  $name: no time left"; return 0; }
  timeout "$limit" "$@" >"$out/$name.txt" 2>&1
  status=$?
  if ((status == 0)); then
    say "ok        $name ($((SECONDS - begin)) s)"
    return 0
  fi
  say "FAILED    $name: status $status (124: out of time) after $((SECONDS - begin)) s"
  tail -n 15 "$out/$name.txt"
  return 1
}
count() { "$@" || failed=$((failed + 1)); }

if ! compgen -G "$build/_C_cuda*.so" >/dev/null; then
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
  [[ $capability == 90 ]] && capability=90a
  limit_all=420
  count step build 150 bash "$root/benchmarks/gpu_check.sh" --build "$capability"
fi
cp "$build"/_C*.so suder_ext/
# Without it everything below would run, and time, the reference.
if ! step module 30 "$python" -c 'import suder_ext
info = suder_ext.build_info()
assert info["cuda_kernel"] == "compiled", info["cuda_reason"]'; then
  say "no kernels to look at: the rest is left out"
  exit 1
fi

if wanted tests; then
  for way in auto tiles mma; do
    SUDER_CUDA_HEAD=$way count step "tests-$way" 60 "$python" -m pytest -q -x tests/gpu
  done
fi
if wanted sanitizers; then
  # initcheck is not among them: it did not end in 75 s.
  if command -v compute-sanitizer >/dev/null; then
    running=()
    for tool in memcheck racecheck synccheck; do
      step "sanitizer-$tool" 75 compute-sanitizer --tool "$tool" --error-exitcode 9 \
        --kernel-regex kns=suder "$python" -m benchmarks.gpu.small_ops &
      running+=($!)
    done
    for process in "${running[@]}"; do count wait "$process"; done
  else
    say "LEFT OUT  compute-sanitizer: not installed"
  fi
fi
wanted calls && count step calls 40 "$python" -m benchmarks.gpu.calls
wanted compare && count step compare 120 "$python" -m benchmarks.gpu.compare --out "$out"
wanted pairs && count step pairs-log 40 "$python" -m benchmarks.gpu.pairs --out "$out"
if wanted ncu; then
  if command -v ncu >/dev/null; then
    count step ncu 60 ncu --set basic --kernel-name-base demangled --kernel-name regex:suder \
      --launch-count 40 "$python" -m benchmarks.gpu.small_ops
  else
    say "LEFT OUT  ncu: not installed"
  fi
fi

missing() { # MODULES: those that cannot be imported
  "$python" - "$@" <<'END'
import importlib.util
import sys

print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))
END
}
if wanted round; then
  packages=$out/packages
  if [[ -n $(missing pydantic rich PIL peft) ]] && compgen -G "$build/wheels/*.whl" >/dev/null; then
    "$python" -m pip install --quiet --no-index --no-deps --target "$packages" \
      "$build"/wheels/*.whl >"$out/packages.txt" 2>&1 || tail -n 3 "$out/packages.txt"
    export PYTHONPATH=$PYTHONPATH:$packages
  fi
  lacking=$(missing pydantic pydantic_core annotated_types typing_inspection rich PIL)
  if [[ -n $lacking ]]; then
    say "LEFT OUT  round: no ${lacking// /, no } here; the wheels to carry in build/gpu/wheels, and" \
      "how to get them, are at the head of benchmarks/gpu_check.sh"
  else
    count step round-1b 120 "$python" benchmarks/bench_round.py --shape 1b --device cuda \
      --checkpoint-activations --json "$out/round_1b.json"
    if [[ -n $(missing peft) ]]; then
      say "LEFT OUT  round-7b: no peft here; see the head of benchmarks/gpu_check.sh"
    else
      count step round-7b 170 "$python" benchmarks/bench_round.py --shape 7b --device cuda \
        --lora 32 --checkpoint-activations --json "$out/round_7b.json"
    fi
  fi
fi
cat "$out"/{table,pairs,calls,round-1b,round-7b}.txt 2>/dev/null
echo "$failed steps failed; $SECONDS s; results in $out"
exit "$failed"
