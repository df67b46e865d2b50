"""Every CUDA kernel that this card has once, on small inputs: what compute-sanitizer watches."""

from __future__ import annotations

import torch

import suder_ext
from suder_ext._ops.cuda import call, tensor_cores


def linear(dtype: torch.dtype) -> None:
    """Ragged in every direction."""
    hidden = torch.randn(130, 328, device="cuda", dtype=dtype, requires_grad=True)
    weight = torch.randn(700, 328, device="cuda", dtype=dtype, requires_grad=True)
    bias = torch.randn(700, device="cuda", dtype=dtype, requires_grad=True)
    target = torch.randint(700, (130,), device="cuda")
    target[3] = -100
    stats = suder_ext.linear_logprob_stats(hidden, weight, target, bias, softcap=20.0)
    sum(value.sum() for value in stats).backward()
    logits = torch.randn(5, 1030, device="cuda", dtype=dtype, requires_grad=True)
    logprobs = suder_ext.logprob_stats(logits, target[:5])
    sum(value.sum() for value in logprobs).backward()


def sequences_and_losses() -> None:
    cu_seqlens = torch.tensor([0, 50, 50, 130], device="cuda")
    logprob = -torch.rand(130, device="cuda")
    logprob.requires_grad_()
    target = torch.randint(9, (130,), device="cuda")
    value, _ = suder_ext.sequence_reduce(logprob, target, cu_seqlens, mean=False)
    value.nansum().backward()
    suder_ext.group_advantage(torch.rand(70, device="cuda"), 35)
    old, advantage = -torch.rand(130, device="cuda"), torch.randn(3, device="cuda")
    suder_ext.policy_loss(logprob, old, advantage, cu_seqlens, old, kl_coef=0.1).backward()
    for loss_type in ("sigmoid", "aot", "aot_unpaired", "cpo"):
        inputs = 2 if loss_type == "cpo" else 4  # it has no reference
        pair = [torch.rand(150, device="cuda", requires_grad=True) for _ in range(inputs)]
        suder_ext.preference_loss(*pair, loss_type=loss_type).loss.sum().backward()


def mean_of_pairs() -> None:
    """In one chunk, and recomputing, as cu_seqlens is on the CPU or on the device. Float32, which
    alone goes in chunks."""
    hidden = torch.randn(130, 328, device="cuda", requires_grad=True)
    weight = torch.randn(700, 328, device="cuda", requires_grad=True)
    target = torch.randint(700, (130,), device="cuda")
    for device in ("cpu", "cuda"):
        cu_seqlens = torch.tensor([0, 40, 70, 90, 130], device=device)
        arguments = hidden, weight, target, cu_seqlens
        suder_ext.linear_preference_loss(*arguments, reduction="mean").loss.backward()


def tokens() -> None:
    logits, uniform = torch.randn(3, 5003, device="cuda"), torch.rand(3, device="cuda")
    hidden, weight = torch.randn(3, 64, device="cuda"), torch.randn(5003, 64, device="cuda")
    for numbers in (uniform, None):
        suder_ext.sample_token(logits, numbers)
        suder_ext.linear_sample_token(hidden, weight, numbers, logits[0])


if __name__ == "__main__":
    linear(torch.float32)
    hopper = torch.cuda.get_device_capability() == (9, 0) and getattr(call.kernels, "hopper", False)
    for tensor_cores.chosen in ("tiles", "mma", *(["wgmma"] if hopper else [])):
        for element in (torch.bfloat16, torch.float16):
            linear(element)
    sequences_and_losses()
    mean_of_pairs()
    tokens()
    torch.cuda.synchronize()
    print("ran every kernel")
