"""A classifier of emoji: which thing a picture shows, in which style, or that it shows none.

Trained on every combination, the test's too, at fresh sizes and places, slightly blurred, noisy and
blocky as a VQ decoder draws. A fifth of what it sees is nothing: noise, blanks, blur, shuffled
patches, two or four pictures pieced together or laid over one another; that class is its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suder.evaluation.progress import progress_bar
from suder.pretrain.schedule import up_then_cosine
from suder.pretrain.stages import torch_threads
from suder.storage.files import read_tensors, write_tensors
from suder.world import emoji
from suder.world.emoji_files import emoji_folder

SURE = 0.5  # a thing that the classifier gives less is none
_WIDTH = 32
_TAKES = 8  # pictures of each combination that it is trained on
_BATCH, _SPOILT = 80, 20
_STEPS = 900
_RATE = 4e-3


class Seen(NamedTuple):
    """int64 `[B]` each: the thing, -1 for none, and the style, by their places in the world."""

    thing: np.ndarray
    style: np.ndarray


class Classifier(nn.Module):
    """uint8 `[B, 32, 32, 3]` to logits of the things and none `[B, T + 1]`, and styles `[B, S]`."""

    def __init__(self, things: int, styles: int) -> None:
        super().__init__()
        width = _WIDTH
        self.trunk = nn.Sequential(
            *_convolution(3, width, 5, 2),
            *_convolution(width, width),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            *_convolution(2 * width, 2 * width),
            nn.MaxPool2d(2),
            *_convolution(2 * width, 4 * width),
        )
        self.drop = nn.Dropout(0.3)
        self.thing = nn.Linear(4 * width * 16, things + 1)
        self.style = nn.Linear(4 * width, styles)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        found = self.trunk(pictures)
        return self.thing(self.drop(found.flatten(1))), self.style(found.mean((2, 3)))


def _convolution(given: int, made: int, side: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    plain = nn.Conv2d(given, made, side, stride, side // 2, bias=False)
    return plain, nn.BatchNorm2d(made), nn.ReLU()


@torch.no_grad()
def look(classifier: Classifier, pictures: np.ndarray) -> Seen:
    """What uint8 `[B, 32, 32, 3]` pictures show."""
    things, styles = [], []
    for some in torch.from_numpy(np.ascontiguousarray(pictures)).split(256):
        thing, style = classifier(to_input(some))
        likely, place = thing.softmax(-1).max(-1)
        none = (place == thing.shape[1] - 1) | (likely < SURE)
        things.append(place.masked_fill(none, -1))
        styles.append(style.argmax(-1))
    return Seen(torch.cat(things).numpy(), torch.cat(styles).numpy())


def load_classifier() -> Classifier:
    """The trained classifier: of the first call on a machine it is minutes, then a file."""
    key = hashlib.sha256(emoji.drawings().tobytes())
    how = (emoji.NAMES, emoji.STYLES, emoji.GROUNDS, _WIDTH, _TAKES, _BATCH, _SPOILT, _STEPS, _RATE)
    key.update(repr(how).encode())
    file = emoji_folder() / f"judge-{key.hexdigest()[:16]}.safetensors"
    classifier = Classifier(len(emoji.NAMES), len(emoji.STYLES)).eval()
    if file.is_file():
        classifier.load_state_dict(read_tensors(file)[0])
        return classifier
    every = [emoji.Kind(thing, style) for thing in emoji.NAMES for style in emoji.STYLES]
    with progress_bar(True) as bar:
        label = bar.add_task("the judge of emoji learns, once", total=_STEPS)
        trained = train_classifier(every, _STEPS, lambda: bar.advance(label))
    write_tensors(file, trained.state_dict(), {})
    return trained


@torch.inference_mode(False)  # the first to ask is an evaluation, which takes no gradients
def train_classifier(
    kinds: list[emoji.Kind], steps: int, advance: Callable[[], None], seed: int = 0
) -> Classifier:
    """Trained on those combinations; the same bits for the same arguments and processor."""
    takes = [emoji.draw(kind, 1_000_000 + take) for kind in kinds for take in range(_TAKES)]
    pictures = torch.from_numpy(np.stack(takes))
    thing, style = (
        torch.tensor([names.index(kind[place]) for kind in kinds]).repeat_interleave(_TAKES)
        for place, names in enumerate((emoji.NAMES, emoji.STYLES))
    )
    with torch_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        classifier = Classifier(len(emoji.NAMES), len(emoji.STYLES)).train()
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=_RATE, weight_decay=0.05)
        schedule = up_then_cosine(optimizer, steps)
        none = torch.full((_SPOILT,), len(emoji.NAMES))
        for _ in range(steps):
            rows = torch.randint(len(pictures), (_BATCH,), generator=generator)
            whole = to_input(pictures[rows])
            batch = torch.cat([as_drawn(whole, generator), spoilt(whole, _SPOILT, generator)])
            things, styles = classifier(batch)
            loss = F.cross_entropy(things, torch.cat([thing[rows], none]), label_smoothing=0.05)
            loss = loss + F.cross_entropy(styles[:_BATCH], style[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            advance()
    return classifier.eval()


def to_input(pictures: Tensor) -> Tensor:
    """uint8 `[B, S, S, 3]` to float32 `[B, 3, S, S]` in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def as_drawn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """A little brighter or darker, blurred, blocky and noisy, each picture by its own amounts."""
    shape = (len(pictures), 1, 1, 1)

    def amount(most: float) -> Tensor:
        return most * torch.rand(shape, generator=generator)

    found = pictures + amount(0.2) - 0.1
    soft = F.avg_pool2d(F.pad(found, (1, 1, 1, 1), mode="replicate"), 3, 1)
    found = torch.lerp(found, soft, amount(1.0))
    blocks = _enlarged(F.avg_pool2d(found, 4), 4)
    few = torch.rand(len(pictures), 1, 8, 8, generator=generator) < amount(0.5)
    found = torch.where(_enlarged(few.float(), 4) > 0.5, torch.lerp(found, blocks, 0.7), found)
    return found + amount(0.15) * torch.randn(found.shape, generator=generator)


def spoilt(pictures: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """`n` pictures of nothing, made of the first of `pictures`, `DAMAGES` in turn."""
    makers = list(DAMAGES.values())
    return torch.stack([makers[i % len(makers)](pictures, i, generator) for i in range(n)])


def _noise(pictures: Tensor, at: int, generator: torch.Generator) -> Tensor:
    coarse = (1, 2, 4)[int(torch.randint(3, (1,), generator=generator))]
    side = pictures.shape[-1] // coarse
    return _enlarged(2 * torch.rand(1, 3, side, side, generator=generator) - 1, coarse)[0]


def _blank(pictures: Tensor, at: int, generator: torch.Generator) -> Tensor:
    corners = torch.rand(1, 3, 1, 1, generator=generator) * 2 - 1
    slope = (torch.rand(1, 3, 2, 2, generator=generator) - 0.5) * torch.rand(1, generator=generator)
    side = pictures.shape[-1]
    return F.interpolate(corners + slope, (side, side), mode="bilinear", align_corners=True)[0]


def _blurred(pictures: Tensor, at: int, generator: torch.Generator) -> Tensor:
    side = pictures.shape[-1]
    small = F.avg_pool2d(pictures[at : at + 1], side // 3)
    return F.interpolate(small, (side, side), mode="bilinear", align_corners=False)[0]


def _halves(pictures: Tensor, at: int, generator: torch.Generator) -> Tensor:
    one, other = pictures[at], pictures[at + 1]
    middle = one.shape[-1] // 2
    axis = 1 + int(torch.randint(2, (1,), generator=generator))
    return torch.cat([one.narrow(axis, 0, middle), other.narrow(axis, middle, middle)], axis)


def _quarters(pictures: Tensor, at: int, generator: torch.Generator) -> Tensor:
    middle = pictures.shape[-1] // 2
    one, two, three, four = pictures[at : at + 4]
    upper = torch.cat([one[:, :middle, :middle], two[:, :middle, middle:]], 2)
    return torch.cat(
        [upper, torch.cat([three[:, middle:, :middle], four[:, middle:, middle:]], 2)], 1
    )


def _shuffled(pictures: Tensor, at: int, generator: torch.Generator) -> Tensor:
    parts = F.unfold(pictures[at : at + 1], 8, stride=8)
    order = torch.randperm(parts.shape[-1], generator=generator)
    return F.fold(parts[..., order], pictures.shape[-2:], 8, stride=8)[0]


def _double(pictures: Tensor, at: int, generator: torch.Generator) -> Tensor:
    return (pictures[at] + pictures[at + 1]) / 2


DAMAGES: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blank": _blank,
    "blurred": _blurred,
    "halves": _halves,
    "quarters": _quarters,
    "shuffled": _shuffled,
    "double": _double,
}


def _enlarged(small: Tensor, times: int) -> Tensor:
    return small.repeat_interleave(times, -1).repeat_interleave(times, -2)
