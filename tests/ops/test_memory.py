"""Extra memory is a fixed workspace plus O(tokens): peak RSS of a call in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from suder_ext import build_info

# Measures what a call adds to the peak, after a small call has paid for threads and libraries.
SCRIPT = """
import sys, torch, suder_ext
from suder_ext.functional import pairs
tokens, vocab, backward = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "backward"
torch.set_num_threads(2)
pairs.FEW_TOKENS = 0  # pairs go in chunks wherever their logits do not fit

def run(hidden, weight, target):
    with torch.set_grad_enabled(backward):
        if sys.argv[4] == "pairs":
            ends = torch.arange(0, len(target) + 1, min(512, len(target) // 2))
            arguments = hidden, weight, target, ends
            result = suder_ext.linear_preference_loss(*arguments, reduction="mean").loss
        elif sys.argv[4] == "divergence":
            result = suder_ext.linear_kl(hidden, weight, hidden.detach(), weight.detach() * 0.9)
        else:
            result = suder_ext.linear_logprob(hidden, weight, target)
    if backward:
        result.sum().backward()

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

def inputs(tokens, vocab):
    hidden = torch.randn(tokens, 32).bfloat16().requires_grad_(backward)
    weight = torch.randn(vocab, 32).bfloat16().requires_grad_(backward)
    return hidden, weight, torch.randint(vocab, (tokens,))

run(*inputs(300, 1000))
arguments = inputs(tokens, vocab)
for argument in arguments[:2]:  # gradients are results, not extra memory
    argument.grad = torch.zeros_like(argument) if backward else None
# Not ru_maxrss: a process inherits that of the one that started it.
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before = memory("VmRSS")
run(*arguments)
print((memory("VmHWM") - before) / 1024)
"""

pytestmark = [
    pytest.mark.skipif(
        build_info()["kernel"] != "compiled", reason="the reference holds every logit"
    ),
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"),
]


def extra_mib(tokens: int, vocab: int, mode: str, what: str = "tokens") -> float:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tokens), str(vocab), mode, what],
        env={**os.environ, "SUDER_KERNEL": "compiled"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.parametrize(("tokens", "vocab"), [(2048, 20000), (2048, 80000), (8192, 20000)])
def test_forward_holds_no_logits(tokens: int, vocab: int) -> None:
    """156 MiB or more as float32 logits; the promise is 32 MiB whatever the shape."""
    assert tokens * vocab * 4 > 150 * 2**20
    assert extra_mib(tokens, vocab, "forward") < 32


def test_backward_holds_no_logits() -> None:
    """156 MiB of logits; the gradients take 1.4 MiB and are made anew before they are added."""
    assert extra_mib(2048, 20000, "backward") < 48


def test_divergence_holds_no_logits() -> None:
    """Twice 156 MiB of them; beside 1.2 MiB of another weight, two workspaces and what is kept."""
    assert extra_mib(2048, 20000, "forward", "divergence") < 48
    assert extra_mib(2048, 20000, "backward", "divergence") < 24 + 48


@pytest.mark.parametrize(("tokens", "vocab"), [(8192, 20000), (16384, 20000), (4096, 60000)])
def test_mean_of_pairs_holds_no_more_logits_than_its_workspace(tokens: int, vocab: int) -> None:
    """625 MiB or more of logits; 256 MiB of them are kept, gradients are float32 until the end."""
    assert tokens * vocab * 4 > 600 * 2**20
    gradients = (tokens + vocab) * 32 * (4 + 2) / 2**20
    assert 200 < extra_mib(tokens, vocab, "backward", "pairs") < 256 + gradients + 48
    assert extra_mib(tokens, vocab, "forward", "pairs") < 32
