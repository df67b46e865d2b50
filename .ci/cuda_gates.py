"""Build gates of the CUDA kernels, for machines with nvcc and no GPU.

    python .ci/cuda_gates.py [--arch 80 --arch 90a]     CI's two; `make gates` for all six

Compiles every kernel with warnings as errors and reads what ptxas says: no spills, no stack, and no
more registers and shared memory than the budget below allows. The machine code must hold the
instructions that a kernel is built around (cuobjdump and nvdisasm: requirements-dev.txt).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# kernel -> (registers, bytes of static shared memory). 64 registers: 1024 threads a multiprocessor
# has room for; the fused kernels have all 65536 registers to themselves, 256 threads the one, 384
# the other (which then hands them out anew: setmaxnreg).
BUDGETS = {
    "fused_forward_kernel": (255, 0),
    "hopper_forward_kernel": (168, 0),
    "fused_grad_kernel": (255, 0),
    "hopper_grad_kernel": (168, 0),
    "kept_grad_kernel": (64, 1280),
    "logits_stats_kernel": (64, 128),
    "logits_grad_kernel": (64, 32),
    "column_sum_kernel": (40, 1024),
    "kl_stats_kernel": (64, 128),
    "kl_grad_kernel": (64, 0),
    "merge_row_states_kernel": (80, 4096),
    "sequence_reduce_kernel": (64, 64),
    "sequence_reduce_backward_kernel": (40, 0),
    "group_advantage_kernel": (64, 0),
    "policy_loss_kernel": (96, 1280),
    "sample_token_kernel": (64, 256),
    "total_kernel": (64, 64),
    "ranks_kernel": (64, 0),
    "forward_kernel": (96, 64),
    "rewards_backward_kernel": (64, 0),
    "loss_backward_kernel": (64, 0),
}
# Kernels that hand out anew what they start with (setmaxnreg): with fewer they would hang.
LEAST_REGISTERS = {("hopper_forward_kernel", "90a"): 168, ("hopper_grad_kernel", "90a"): 168}
# Files whose instructions are one architecture's alone; for others they compile to a trap.
ONLY = {"hopper_forward_cuda.cu": "90a", "hopper_grad_cuda.cu": "90a"}
# The two mainloops
MMA_SYNC = ("HMMA.16816.F32", "LDGSTS.E.BYPASS", "LDSM.16.M88.4")
WGMMA = (
    "HGMMA.64x256x16.F32.BF16",
    "HGMMA.64x256x16.F32 ",
    "UTMALDG.2D ",
    "UTMALDG.2D.MULTICAST",
    "UCGABAR_WAIT",
    "SYNCS.ARRIVE.TRANS64.RED",  # at another block's barrier
    "SYNCS.PHASECHK.TRANS64.TRYWAIT",
    "USETMAXREG.TRY_ALLOC",
    "USETMAXREG.DEALLOC",
)
# file -> instructions its machine code must contain
INSTRUCTIONS = {
    "fused_forward_cuda.cu": (*MMA_SYNC, "STG.E.128"),
    "hopper_forward_cuda.cu": (
        *(name.replace("64x256", "64x128") for name in WGMMA),
        "STG.E.128",
    ),
    "fused_grad_cuda.cu": (*MMA_SYNC, "STG.E.128"),
    "hopper_grad_cuda.cu": (*WGMMA, "STG.E.128"),
    "kept_grad_cuda.cu": ("LDG.E.128", "STG.E.128"),
    "logits_stats_cuda.cu": (r"LDG.E.128", "MUFU.EX2"),
    "sample_token_cuda.cu": ("LDG.E.128", "MUFU.EX2"),
    "logits_grad_cuda.cu": (r"LDG.E.128", r"STG.E.128"),
    "kl_stats_cuda.cu": ("LDG.E.128", "MUFU.EX2"),
    "kl_grad_cuda.cu": ("LDG.E.128", "STG.E.128"),
}
# file -> instructions that its machine code may contain so many times. Fences of the whole GPU: in
# each of two kernels one for each of two cluster barriers, and none where stages go round.
MOST_INSTRUCTIONS = {
    "hopper_forward_cuda.cu": {"MEMBAR.ALL.GPU": 4},
    "hopper_grad_cuda.cu": {"MEMBAR.ALL.GPU": 4},
}


def compile_kernels(source: Path, arch: str, folder: Path) -> tuple[str, Path]:
    """The report of ptxas, and the machine code."""
    cubin = folder / f"{source.stem}.{arch}.cubin"
    command = ["nvcc", "-std=c++20", "-O3", f"-arch=sm_{arch}", "-cubin", "-Werror", "all-warnings"]
    command += ["-Xptxas", "-v,-warn-spills,-warn-lmem-usage,-Werror"]
    command += ["-I", str(ROOT / "csrc"), "-I", str(ROOT / "csrc/include"), str(source)]
    done = subprocess.run([*command, "-o", str(cubin)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{source.relative_to(ROOT)}, sm_{arch}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr, cubin


def check_report(report: str, arch: str) -> list[str]:
    """What is above its budget; prints every kernel."""
    # Products that wait for one another; ptxas tells it as information only.
    problems = [line.strip() for line in report.splitlines() if "are serialized" in line]
    entries = re.split(r"Compiling entry function '", report)[1:]
    for entry in entries:
        mangled = entry.split("'", 1)[0]
        # The longest name wins: forward_kernel is the end of fused_forward_kernel.
        kernel = max((name for name in BUDGETS if name in mangled), key=len, default=None)
        registers = int(re.search(r"Used (\d+) registers", entry)[1])
        shared = int((re.search(r"(\d+) bytes smem", entry) or (0, 0))[1])
        stack = int((re.search(r"(\d+) bytes stack frame", entry) or (0, 0))[1])
        print(f"sm_{arch:<4} {registers:>4} registers {shared:>6} shared  {kernel or mangled}")
        if kernel is None:
            problems.append(f"{mangled} has no budget in .ci/cuda_gates.py")
            continue
        most_registers, most_shared = BUDGETS[kernel]
        if registers < LEAST_REGISTERS.get((kernel, arch), 0):
            problems.append(f"{kernel}, sm_{arch}: {registers} registers are too few to hand out")
        if registers > most_registers or shared > most_shared or stack:
            problems.append(
                f"{kernel}, sm_{arch}: {registers} registers, {shared} shared, {stack} stack; "
                f"allowed {most_registers}, {most_shared}, 0"
            )
    return problems


def disassemblers() -> list[str]:
    """Where the packages of cuobjdump and nvdisasm put them."""
    return [str(path) for site in map(Path, sys.path) for path in site.glob("nvidia/cu*/bin")]


def check_instructions(source: Path, cubin: Path, arch: str) -> list[str]:
    wanted = INSTRUCTIONS.get(source.name, ())
    if not wanted or ONLY.get(source.name, arch) != arch:
        return []
    path = os.pathsep.join([*disassemblers(), os.environ["PATH"]])
    tool = shutil.which("cuobjdump", path=path)
    if tool is None:
        return ["machine code not checked: no cuobjdump; install requirements-dev.txt"]
    command = [tool, "-sass", str(cubin)]
    env = {**os.environ, "PATH": path}
    code = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    problems = [f"{source.name}, sm_{arch}: no {name}" for name in wanted if name not in code]
    for name, most in MOST_INSTRUCTIONS.get(source.name, {}).items():
        if (count := code.count(name)) > most:
            problems.append(f"{source.name}, sm_{arch}: {count} times {name}, not {most} at most")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--arch", action="append", help="default: 80 and 90a")
    architectures = parser.parse_args().arch or ["80", "90a"]
    problems = []
    sources = sorted([*(ROOT / "csrc/cuda").glob("*.cu"), *(ROOT / "csrc/ops").glob("*/*.cu")])
    jobs = list(product(sources, architectures))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = pool.map(lambda job: compile_kernels(*job, Path(folder)), jobs)
        for (source, arch), (report, cubin) in zip(jobs, compiled, strict=True):
            problems += check_report(report, arch)
            problems += check_instructions(source, cubin, arch)
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
