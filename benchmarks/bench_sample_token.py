"""Speed of drawing a token on the CPU: from hidden states and from logits, beside plain PyTorch.

    python benchmarks/bench_sample_token.py --shapes 64x2048x16384 64x512x129000 --threads 1

"product" is the bare `hidden @ weight.T`, the limit of everything that reads the weight once;
"read" a read of float32 logits. The peers hold the logits: float32 product, softmax, and
torch.multinomial or a cumulative sum searched at the same uniform numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from timing import Question, add_arguments, clock_of, interleaved, write_record
from torch import Tensor

import suder_ext


def searched(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    logprob = logits.log_softmax(-1)
    token = torch.searchsorted(logprob.exp().cumsum(-1), uniform.float()[:, None])
    token.clamp_(max=logits.shape[-1] - 1)
    return token, logprob.gather(-1, token)


def multinomial(logits: Tensor) -> tuple[Tensor, Tensor]:
    logprob = logits.log_softmax(-1)
    token = torch.multinomial(logprob.exp(), 1)
    return token, logprob.gather(-1, token)


def candidates(
    hidden: Tensor, weight: Tensor, uniform: Tensor, logits: Tensor
) -> dict[str, Callable[[], object]]:
    def product() -> Tensor:
        return F.linear(hidden, weight).float()

    return {
        "product": lambda: hidden @ weight.T,
        "linear_sample_token": lambda: suder_ext.linear_sample_token(hidden, weight, uniform),
        "linear_sample_token, top_k 50": lambda: suder_ext.linear_sample_token(
            hidden, weight, uniform, top_k=50
        ),
        "product, cumulative sum": lambda: searched(product(), uniform),
        "product, multinomial": lambda: multinomial(product()),
        "read": lambda: logits.view(torch.int32).max(),
        "sample_token": lambda: suder_ext.sample_token(logits, uniform),
        "cumulative sum": lambda: searched(logits, uniform),
        "multinomial": lambda: multinomial(logits),
    }


def questions(quick: bool) -> Iterator[Question]:
    """From hidden states, then from logits; see timing.py."""
    rows, features, vocab = (16, 256, 8192) if quick else (64, 2048, 16384)
    for dtype in (torch.bfloat16, torch.float32):
        hidden = torch.randn(rows, features).to(dtype)
        weight = (torch.randn(vocab, features) / features**0.5).to(dtype)
        uniform, logits = torch.rand(rows, dtype=torch.float64), 3 * torch.randn(rows, vocab)
        timed = candidates(hidden, weight, uniform, logits)
        named = f"{rows}x{features}x{vocab}, {str(dtype).removeprefix('torch.')}"
        for case, names, ours in (
            ("from hidden states", list(timed)[:5], "linear_sample_token"),
            ("from logits", list(timed)[5:], "sample_token"),
        ):
            if dtype == torch.bfloat16 or case == "from hidden states":  # logits are float32
                some = {name: timed[name] for name in names if "top_k" not in name}
                yield Question(f"{named}, {case}", some, ours, limits=("product", "read"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=["64x2048x16384", "64x512x129000"])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    add_arguments(parser, rounds=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for shape in args.shapes:
        count, features, vocab = map(int, shape.split("x"))
        for name in args.dtypes:
            dtype = getattr(torch, name)
            hidden = torch.randn(count, features).to(dtype)
            weight = (torch.randn(vocab, features) / features**0.5).to(dtype)
            uniform = torch.rand(count, dtype=torch.float64)
            logits = 3 * torch.randn(count, vocab)
            print(f"{shape} {name}: rows x features x vocabulary")
            timed = candidates(hidden, weight, uniform, logits)
            for label, seconds in interleaved(timed, args.rounds, clock_of(args)).items():
                print(f"  {label:32}{seconds * 1e3:9.2f} ms")
                rows.append({"shape": shape, "dtype": name, "what": label, "seconds": seconds})
    write_record(args, rows)


if __name__ == "__main__":
    main()
