"""What each phase of a round has to read and to multiply, from the model's config alone.

Weights count once for every time they must be read, keys and values once a step, a prefix once for
all that continue it. What an implementation moves beyond that (activations, logits, casts) is its
distance to the roofline. Only activations of convolutions count: they are most of the VQ model.
"""

from __future__ import annotations

from typing import Any

import torch

from .vq_counts import decoded, encoded
from .work import Work

ADAM = 28  # bytes a trained weight: weight, gradient and two moments read, all but one written
AVERAGE = 12  # weight and average read, average written
GRADIENT = 8  # written by the backward, read for its norm
COPY = 6  # of the float32 weight, its 16-bit copy


class Language:
    """The Llama and its heads; `item` bytes a weight and a number of the cache."""

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        text, vision, vq = config.text_config, config.vision_config, config.vq_config
        self.dtype, self.item = dtype, dtype.itemsize
        width, inner = text.hidden_size, text.intermediate_size
        self.layers, self.features = text.num_hidden_layers, text.head_dim
        queries, keys = text.num_attention_heads, text.num_key_value_heads
        projections = 2 * width * (queries + keys) * self.features
        self.matrices = self.layers * (projections + 3 * width * inner)
        self.last = self.layers * width * inner  # a layer's last product is not computed again
        self.queries = queries * self.features
        self.kept = 2 * self.layers * keys * self.features  # numbers of a token in the cache
        project = vq.projection_dim
        self.before_mixing = vq.image_token_embed_dim * project  # what guidance runs twice
        self.head = {
            "understanding": width * text.vocab_size,
            "generation": vq.image_token_embed_dim * project + project * vq.num_embeddings,
        }
        self.embedding = {
            "understanding": 0,
            "generation": vq.embed_dim * project + (vq.num_hidden_layers - 1) * project**2,
        }
        self.tower = _tower(vision)
        self.tower_again = _tower_again(vision)
        self.picture_tokens = vision.num_image_tokens

    def read(self, tokens: float, pairs: float, passes: float = 1) -> Work:
        """Of a forward over many tokens, whose queries see `pairs` keys in all."""
        operations = 2 * self.matrices * tokens + attention(self.layers, self.queries, pairs)
        return Work(self.item * self.matrices * passes, operations, self.dtype)

    def scored(self, direction: str, tokens: float, unread: float) -> Work:
        """Of the head that predicts so many targets, and of embedding all but the `unread`."""
        read = tokens - unread
        head, embedding = self.head[direction], self.embedding[direction] if read else 0
        operations = 2 * (head * tokens + embedding * read)
        return Work(self.item * (head + embedding), operations, self.dtype)

    def embedded(self, codes: float) -> Work:
        weights = self.embedding["generation"]
        return Work(self.item * weights, 2 * weights * codes, self.dtype)

    def again(self, tokens: float, pairs: float) -> Work:
        """What a backward computes again where layers have kept their inputs alone."""
        whole = self.read(tokens, pairs)
        return Work(whole.moved, whole.operations - 2 * self.last * tokens, self.dtype)

    def seen(self, pictures: float, again: bool = False) -> Work:
        weights, operations = self.tower_again if again else self.tower
        return Work(self.item * weights, operations * pictures, self.dtype)


def sample(
    config: Any,
    direction: str,
    dtype: torch.dtype,
    inputs: int,
    candidates: int,
    steps: int,
    prefix: int,
    guided: bool = False,
) -> list[Work]:
    """`inputs` prefixes of `prefix` tokens read, then `steps` tokens by each candidate."""
    language = Language(config, dtype)
    branches = 2 if guided else 1
    works = [language.read(inputs * branches * prefix, inputs * branches * causal(prefix))]
    if direction == "understanding":
        works.append(language.seen(inputs))
    drawn = inputs * candidates
    rows = drawn * branches
    codes = config.vq_config.num_embeddings
    table = direction == "generation" and codes <= rows * steps  # each embedded once
    if table:
        works.append(language.embedded(codes))
    twice = Work(0.0, 2 * language.before_mixing * drawn, dtype)
    for written in range(steps):
        works += [twice] * guided
        works.append(language.scored(direction, drawn, drawn if table or not written else 0))
        if written:  # the step that reads the token drawn before
            step = language.read(rows, rows * (prefix + written))
            cache = language.kept * (inputs * branches * prefix + rows * written)
            works.append(Work(step.moved + language.item * cache, step.operations, dtype))
    return works


def decode(config: Any, pictures: int) -> list[Work]:
    """Pictures of VQ tokens, in the weights' own float32."""
    return [decoded(config.vq_config, pictures)]


def score(
    config: Any, direction: str, dtype: torch.dtype, inputs: int, candidates: int,
    text: float, frame: int, passes: int = 1,
) -> list[Work]:  # fmt: skip
    """Of candidates in `direction`, by the model running the other way.

    Args:
        text: tokens of a caption or prompt, on average; frame: those around it, or around the
            picture in a question.
        passes: how many forwards read the weights.
    """
    language = Language(config, dtype)
    pairs, image = inputs * candidates, language.picture_tokens
    if direction == "understanding":
        length = frame + text + image - 1
        works = [
            encoded(config.vq_config, inputs),
            language.scored("generation", pairs * image, pairs),
        ]
    else:
        length = frame + image + text - 1
        works = [decoded(config.vq_config, pairs), language.seen(pairs)]
        works.append(language.scored("understanding", pairs * text, pairs))
    return [*works, language.read(pairs * length, pairs * causal(length), passes)]


def optimise(
    config: Any, direction: str, dtype: torch.dtype, inputs: int, candidates: int, target: float,
    prefix: int, *, lora: bool, again: bool, with_start: bool, passes: int = 1,
) -> list[Work]:  # fmt: skip
    """The gradient of all candidates; one prefix for those of an input.

    A backward takes two products for each of the forward's, one where the weights are not trained.
    `again`: the forward of the layers runs twice; `with_start`: the start model's runs, too.
    """
    language = Language(config, dtype)
    drawn = inputs * candidates
    tokens = inputs * prefix + drawn * (target - 1)
    pairs = inputs * causal(prefix) + drawn * ((target - 1) * prefix + causal(target - 1))
    backward = 1 if lora else 2
    forward = language.read(tokens, pairs, passes)
    works = [forward] * (1 + backward + with_start) + [language.again(tokens, pairs)] * again
    head = language.scored(direction, drawn * target, drawn)
    works += [head] * (1 + with_start)
    # With LoRA nothing before the first layer takes a gradient.
    works += [
        language.scored(direction, drawn * target, drawn * target if lora else drawn)
    ] * backward
    if direction == "understanding":
        works += [language.seen(inputs)] * (1 + with_start + (0 if lora else 2))
        works += [language.seen(inputs, again=True)] * (again and not lora)
    return works


def update(trained: int, directions: int, copied: int) -> list[Work]:
    """A step of the optimiser: gradients, moments, average, and the copy that samples."""
    moved = trained * (ADAM + AVERAGE + GRADIENT * directions) + COPY * copied
    return [Work(float(moved), 0.0, torch.float32)]


def attention(layers: int, width: int, pairs: float) -> float:
    """Operations of scores and of the values they weigh."""
    return 4.0 * layers * width * pairs


def causal(tokens: float) -> float:
    """Pairs of a query and a key that is not after it."""
    return tokens * (tokens + 1) / 2


def _tower(vision: Any) -> tuple[float, float]:
    """Weights of the vision tower and its aligner, and operations a picture."""
    width, tokens = vision.hidden_size, vision.num_image_tokens
    layer = 4 * width**2 + 2 * width * int(width * vision.mlp_ratio)
    patches = vision.num_channels * vision.patch_size**2 * width
    aligner = width * vision.projection_dim + (vision.depth - 1) * vision.projection_dim**2
    weights = patches + vision.num_hidden_layers * layer + aligner
    attended = attention(vision.num_hidden_layers, width, tokens**2)
    return weights, 2.0 * weights * tokens + attended


def _tower_again(vision: Any) -> tuple[float, float]:
    """Of what its layers compute again: all but their last products."""
    width, tokens, layers = vision.hidden_size, vision.num_image_tokens, vision.num_hidden_layers
    weights = layers * (4 * width**2 + width * int(width * vision.mlp_ratio))
    return weights, 2.0 * weights * tokens + attention(layers, width, tokens**2)
