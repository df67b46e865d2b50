"""What a round samples and how it is rewarded, as flat tensors that go to disk and come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from PIL import Image

from suder import ranks
from suder.engine.sampling import AT_ONCE, sample
from suder.inputs.files import DataError
from suder.inputs.pictures import load_picture
from suder.method.external import ExternalReward, external_reward
from suder.method.judge import SelfJudge
from suder.method.rewards import DualReward, check_rewards
from suder.models.base import DIRECTIONS, Condition, Direction, UnifiedModel
from suder.settings.candidates import Sampling
from suder.storage.files import read_tensors, write_tensors
from suder.storage.shown import named


@dataclass(frozen=True)
class Rollouts:
    """One direction's candidates of one round: C inputs with `group` candidates each, B in all.

    Attributes:
        inputs: C paths of pictures (understanding) or prompts (generation).
        tokens: int64 `[T]`, all candidates one after the other; text ends with EOS if it ended.
        cu_seqlens: int64 `[B + 1]`, where each candidate begins.
        logprob: float32 `[T]`, under the distribution each token was drawn from.
        finished: bool `[B]`, False for text cut off at its longest.
        lost: inputs that could not be read any more, or do not fit the model, with the reason.
    """

    direction: Direction
    inputs: tuple[str, ...]
    group: int
    tokens: torch.Tensor
    cu_seqlens: torch.Tensor
    logprob: torch.Tensor
    finished: torch.Tensor
    lost: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return self.cu_seqlens.numel() - 1

    def take(self, rows: range) -> Rollouts:
        """The candidates of some inputs in a row (views)."""
        ends = self.cu_seqlens[rows.start * self.group : rows.stop * self.group + 1]
        begin, end = int(ends[0]), int(ends[-1])
        return replace(
            self,
            inputs=self.inputs[rows.start : rows.stop],
            tokens=self.tokens[begin:end],
            cu_seqlens=ends - begin,
            logprob=self.logprob[begin:end],
            finished=self.finished[rows.start * self.group : rows.stop * self.group],
        )

    def sequences(self) -> list[torch.Tensor]:
        """The candidates' tokens, B tensors of int64 (views)."""
        return list(self.tokens.split(self.cu_seqlens.diff().tolist()))

    def pictures(self) -> torch.Tensor:
        """The candidates of the generation direction as int64 `[B, I]`."""
        return self.tokens.view(len(self), -1)

    def targets(self) -> torch.Tensor | list[torch.Tensor]:
        """The candidates in the form the model's `forward` takes."""
        return self.pictures() if self.direction == "generation" else self.sequences()


class Conditions(NamedTuple):
    """What candidates are made for.

    Attributes:
        inputs: paths of the pictures that could be read, or prompts.
        values: pixels `[C, 3, S, S]` of the pictures, or their VQ tokens `[C, I]` where the model
            reads those; or the prompts themselves.
        lost: pictures that could not be read, or that have changed, and prompts that are too long,
            with the reason.
    """

    inputs: tuple[str, ...]
    values: Condition
    lost: tuple[tuple[str, str], ...] = ()


def too_long(model: UnifiedModel, prompt: str) -> str:
    """Why a prompt can be drawn or scored by no picture of this model's, or ""."""
    return next(filter(None, (model.too_long(one, prompt) for one in DIRECTIONS)), "")


def read_conditions(
    model: UnifiedModel,
    direction: Direction,
    inputs: Sequence[str],
    digests: Mapping[str, str] | None = None,
    most: int | None = None,
) -> Conditions:
    """Reads the pictures at these paths, or takes the prompts that fit the model as they are.

    Args:
        digests: what is known of the pictures' contents: another content is as good as none.
        most: read no more than this many.

    Raises:
        DataError: some of the run's processes can read a picture, and others cannot.
    """
    with ranks.each():
        read = _read_conditions(model, direction, inputs, digests, most)
    for other in ranks.gather(read.lost):
        if other != read.lost:
            (path, why), *_ = sorted(set(other) ^ set(read.lost))
            raise DataError(f"{path} can be read by some of the run's processes only: {why}")
    return read


def _read_conditions(
    model: UnifiedModel,
    direction: Direction,
    inputs: Sequence[str],
    digests: Mapping[str, str] | None,
    most: int | None,
) -> Conditions:
    found: list[str] = []
    lost: list[tuple[str, str]] = []
    if direction == "generation":
        for prompt in inputs:
            if len(found) == most:
                break
            if why := too_long(model, prompt):
                lost.append((named(prompt), f"too long: {why}"))
            else:
                found.append(prompt)
        return Conditions(tuple(found), found, tuple(lost))
    pixels: list[torch.Tensor] = []
    for path in inputs:
        if len(found) == most:
            break
        try:
            picture = load_picture(path, model.background, (digests or {}).get(path))
            pixels.append(model.pixels([picture]))
        except DataError as error:
            lost.append((path, str(error)))
            continue
        found.append(path)
    size = model.image_size
    values = torch.cat(pixels) if pixels else torch.zeros(0, 3, size, size)
    if model.reads_tokens:  # encoded once, not in every pass that reads them
        values = model.encode(values)
    return Conditions(tuple(found), values, tuple(lost))


def sample_rollouts(
    model: UnifiedModel,
    direction: Direction,
    inputs: Sequence[str],
    group: int,
    settings: Sampling,
    seed: int,
    condition: Condition | None = None,
    lost: Sequence[tuple[str, str]] = (),
    at_once: int = AT_ONCE,
) -> Rollouts:
    """Samples `group` candidates for each input that can be used by now.

    Each of the run's processes does so for its share of the inputs, by the random numbers of their
    place among all: how many processes there are makes no difference to what is drawn.

    Args:
        condition: what `read_conditions` made of the inputs, if that was done before.
        lost: the inputs that it could not use.
        at_once: candidates that are drawn together.

    Raises:
        DataError: there is no input left.
    """
    if condition is None:
        inputs, condition, lost = read_conditions(model, direction, inputs)
    if lost and not inputs:
        seen = direction == "understanding"
        what = "pictures can be read any more" if seen else "prompts fits the model"
        raise DataError(f"none of the round's {what}: {lost[0][1]}")
    here = ranks.share(len(inputs))
    with ranks.each():
        samples = sample(
            model,
            direction,
            condition[here.start : here.stop],
            group,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            guidance=settings.guidance if direction == "generation" else 1.0,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
            batch_size=at_once,
            first=here.start,
        )
        nothing = torch.zeros(0, dtype=torch.int64, device=model.device)
        drawn = (
            torch.tensor([len(row) for row in samples.tokens], dtype=torch.int64),
            torch.cat([nothing, *samples.tokens]).cpu(),
            torch.cat([nothing.float(), *samples.logprob]).float().cpu(),
            torch.as_tensor(samples.finished).cpu(),
        )
    lengths, tokens, logprob, finished = map(torch.cat, zip(*ranks.gather(drawn), strict=True))
    return Rollouts(
        direction=direction,
        inputs=tuple(inputs),
        group=group,
        tokens=tokens,
        cu_seqlens=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        logprob=logprob,
        finished=finished,
        lost=tuple(lost),
    )


def reward_of(
    rollouts: Rollouts, scorer: DualReward, model: UnifiedModel, condition: Condition
) -> torch.Tensor:
    """The dual self-reward of every candidate, float32 `[B]` on the CPU; NaN where there is none.

    Understanding: mean log p(picture's VQ tokens | caption). Generation: mean log p(prompt's
    tokens | picture). Both by the model running in the other direction. Each of the run's processes
    scores its share of the inputs.
    """
    here = ranks.share(len(rollouts.inputs))
    own, given = rollouts.take(here), condition[here.start : here.stop]
    with ranks.each():
        if not len(here):
            reward = torch.zeros(0)
        elif isinstance(given, torch.Tensor):
            tokens = given if model.reads_tokens else model.encode(given)
            reward = scorer.understanding(tokens, own.sequences(), own.group)
        else:
            reward = scorer.generation(given, own.pictures(), own.group)
        reward = reward.float().cpu()
    return torch.cat(ranks.gather(reward))


def judged_of(rollouts: Rollouts, judge: SelfJudge, condition: Condition) -> torch.Tensor:
    """What the judge's model says of every candidate and its input, float32 `[B]` on the CPU.

    Understanding: whether the picture shows what the caption says; generation: whether what was
    drawn shows what the prompt asks for. Each of the run's processes asks for its share.
    """
    here = ranks.share(len(rollouts.inputs))
    own, given = rollouts.take(here), condition[here.start : here.stop]
    with ranks.each():
        judged = torch.zeros(0)
        if len(here) and isinstance(given, torch.Tensor):
            judged = judge(given, judge.model.detokenize(own.sequences()), own.group)
        elif len(here):
            judged = judge(own.pictures(), list(given), own.group)
        judged = judged.float().cpu()
    return torch.cat(ranks.gather(judged))


def external_of(
    rollouts: Rollouts,
    function: ExternalReward,
    name: str,
    model: UnifiedModel,
    digests: Mapping[str, str] | None = None,
) -> torch.Tensor:
    """What a function of the user's says of every candidate, float32 `[B]` on the CPU.

    Pictures are those of the files, whole, or those drawn. Each of the run's processes asks for its
    share.
    """
    here = ranks.share(len(rollouts.inputs))
    own = rollouts.take(here)
    with ranks.each():
        reward = torch.zeros(0)
        if len(here):
            each = range(own.group)
            if own.direction == "understanding":
                known = digests or {}
                read = [load_picture(one, model.background, known.get(one)) for one in own.inputs]
                pictures = [Image.fromarray(one) for one in read for _ in each]
                texts = model.detokenize(own.sequences())
            else:
                pictures = [
                    Image.fromarray(one) for one in model.decode(own.pictures()).cpu().numpy()
                ]
                texts = [one for one in own.inputs for _ in each]
            reward = external_reward(
                function, name, own.direction, own.inputs, pictures, texts, own.group
            )
    return torch.cat(ranks.gather(reward))


def check_reward_of(rollouts: Rollouts, model: UnifiedModel, reward: torch.Tensor) -> None:
    """Raises NotFinite where candidates had a reward to get by `model`, and none has a finite one.

    One that is not finite is a candidate left out.
    """
    if not reward.isfinite().any():
        captions = rollouts.direction == "understanding"
        texts = model.detokenize(rollouts.sequences()) if captions else rollouts.inputs
        check_rewards(model, rollouts.direction, texts, reward)


def save_rollouts(path: Path, rounds: Sequence[Rollouts]) -> None:
    """All directions' candidates of a round in one file, so that a phase is there or not."""
    tensors: dict[str, torch.Tensor] = {}
    meta: dict[str, Any] = {}
    for one in rounds:
        for name in ("tokens", "cu_seqlens", "logprob", "finished"):
            tensors[f"{one.direction}/{name}"] = getattr(one, name)
        meta[one.direction] = {"inputs": one.inputs, "group": one.group, "lost": one.lost}
    write_tensors(path, tensors, meta)


def load_rollouts(path: Path) -> list[Rollouts]:
    tensors, meta = read_tensors(path)
    rounds = []
    for direction, about in meta.items():
        fields = {
            name: tensors[f"{direction}/{name}"]
            for name in ("tokens", "cu_seqlens", "logprob", "finished")
        }
        lost = tuple((path, why) for path, why in about["lost"])
        rounds.append(
            Rollouts(
                cast(Direction, direction),
                tuple(about["inputs"]),
                about["group"],
                **fields,
                lost=lost,
            )
        )
    return rounds
