"""Dual rewards of a round's candidates beside the language model's own forward of the same tokens.

    python benchmarks/bench_scoring.py --threads 1              the embedded model
    python benchmarks/bench_scoring.py --mid --dtype bfloat16   70 M random weights, 16,384 VQ codes

"language model" is its layers on the very batches that scoring makes, embedded before; "head" the
last layers and the op that reads them, "pictures" decoding drawn pictures and the vision tower
that looks at them: work that the layers' forward lacks. What scoring takes beyond those is its own,
and the last column is (scoring - head - pictures) / language model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from timing import Question, add_arguments, clock_of, interleaved, write_record

from suder.method import rewards
from suder.models import Janus, load_model
from suder.models.base import Direction
from suder.pretrain.architecture import Sizes, build_janus

WORDS = "a red blue green yellow circle square triangle left right of above below two three and"
MID = Sizes(
    image=64, hidden=512, layers=16, heads=8, mlp=1536, vision_hidden=256, vision_layers=4,
    codebook=16384,
)  # fmt: skip


def texts(count: int, shortest: int = 2, longest: int = 12) -> list[str]:
    words, make = WORDS.split(), torch.Generator().manual_seed(1)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=make).tolist()
    picked = torch.randint(len(words), (count, longest), generator=make).tolist()
    return [
        " ".join(words[i] for i in row[:length])
        for row, length in zip(picked, lengths, strict=True)
    ]


def parts_of(
    model: Janus, direction: Direction, score: Callable[[], object], tokens: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """Scoring, and what it consists of, each on the inputs that it has there."""
    passes: list[dict[str, Any]] = []
    heads: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    readers: list[Any] = []
    honest, to_read = rewards.linear_sequence_logprob, rewards.to_sample_with

    def reader(model: Any) -> Any:
        readers.append(to_read(model))
        hook = lambda _, args, given: passes.append(given)  # noqa: E731
        readers[0].parts.language_model.register_forward_pre_hook(hook, with_kwargs=True)
        return readers[0]

    def op(*given: Any, **settings: Any) -> Any:
        heads.append((given, settings))
        return honest(*given, **settings)

    with mock.patch.multiple(rewards, to_sample_with=reader, linear_sequence_logprob=op):
        score()
    twin = readers[0]
    twin.parts.language_model._forward_pre_hooks.clear()
    before = twin.parts.before_head(direction)
    width = model.core.config.text_config.hidden_size
    seen = torch.randn(max(len(given[0]) for given, _ in heads), width, dtype=twin.dtype)

    @torch.no_grad()
    def language_model() -> None:
        for given in passes:
            with twin.computing():
                twin.parts.language_model(**given)

    @torch.no_grad()
    def head() -> None:
        for given, settings in heads:
            with twin.computing():
                before(seen[: len(given[0])])
            honest(*given, **settings)

    @torch.no_grad()
    def pictures() -> None:
        at = 0
        for given in passes:
            some = tokens[at : at + len(given["inputs_embeds"])]
            pixels = model.pixels(model.decode(some))
            with twin.computing():
                twin.parts.picture_features(pixels)
            at += len(some)

    found = {"scoring": score, "language model": language_model, "head": head}
    return found | {"pictures": pictures} if direction == "understanding" else found


def scorings(
    model: Janus, inputs: int, candidates: int, tokens_per_batch: int
) -> Iterator[tuple[str, dict[str, Callable[[], object]]]]:
    """Both rewards of random candidates, each with its parts."""
    count = inputs * candidates
    make = torch.Generator().manual_seed(0)
    shape = (count, model.num_image_tokens)
    drawn = torch.randint(model.image_vocab_size, shape, generator=make)
    shown = drawn[:inputs].repeat_interleave(candidates, 0)
    scorer = rewards.DualReward(model, tokens_per_batch=tokens_per_batch)
    captions, prompts = texts(count), texts(inputs)
    runs: dict[str, tuple[Direction, Callable[[], object]]] = {
        "R_U of captions": ("generation", lambda: scorer.understanding(shown, captions)),
        "R_G of pictures": (
            "understanding",
            lambda: scorer.generation(prompts, drawn, candidates),
        ),
    }
    for name, (direction, score) in runs.items():
        yield name, parts_of(model, direction, score, drawn)


def questions(quick: bool) -> Iterator[Question]:
    """Both rewards beside what they consist of; see timing.py."""
    inputs, candidates = (2, 2) if quick else (12, 8)
    for name, timed in scorings(load_model("shapes"), inputs, candidates, 16384):
        parts = tuple(part for part in timed if part != "scoring")
        case = f"{name}, {inputs} inputs x {candidates}, 2.2 M parameters, float32"
        yield Question(case, timed, "scoring", limits=parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mid", action="store_true", help="70 M random weights, not the embedded")
    parser.add_argument("--inputs", type=int, default=12)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--tokens-per-batch", type=int, default=16384)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    add_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = (
        load_model("shapes")
        if not args.mid
        else Janus(*build_janus(WORDS.split(), seed=0, sizes=MID))
    )
    model.compute = torch.bfloat16 if args.dtype == "bfloat16" else None
    count = args.inputs * args.candidates
    weights = sum(weight.numel() for weight in model.parameters())
    print(
        f"{weights / 1e6:.1f} M weights, {count} candidates of {args.inputs} inputs, {args.dtype}"
    )
    rows = []
    for name, timed in scorings(model, args.inputs, args.candidates, args.tokens_per_batch):
        seconds = interleaved(timed, args.rounds, clock_of(args))
        apart = seconds["head"] + seconds.get("pictures", 0.0)
        ratio = (seconds["scoring"] - apart) / seconds["language model"]
        print(name)
        for part, took in seconds.items():
            print(f"    {part:<16}{1e3 * took:10.2f} ms")
        print(f"    {'ratio':<16}{ratio:10.3f}")
        rows.append({"reward": name, "dtype": args.dtype, "seconds": seconds, "ratio": ratio})
    write_record(args, rows)


if __name__ == "__main__":
    main()
