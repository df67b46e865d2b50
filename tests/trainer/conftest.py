"""Random models: one for runs, one whose answers depend on what it is asked; textbook passes.

The textbook runs transformers' own forward on one sequence at a time, with full logits, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from suder.models import Janus, load_model
from suder.models.janus.layout import caption_ids, generation_ids, understanding_ids
from suder.pretrain.architecture import Sizes, build_janus
from suder.settings.config import TrainConfig
from suder.settings.config_file import load_config
from suder.world import emoji
from tests.trainer.families import JUDGING, small_emu3, small_liquid
from tests.trainer.icons import write_packages

WORDS = ("a", "red", "blue", "green", "circle", "square", "and", "two")
PROMPTS = ("a red circle", "a blue square", "two green circle", "a red square and a blue circle")
# 16 pixels in patches of 8: 4 image tokens, the fewest that are not all in one row.
SIZES = Sizes(
    image=16,
    patch=8,
    hidden=32,
    layers=1,
    heads=2,
    mlp=32,
    vision_hidden=32,
    vision_layers=1,
    vision_heads=2,
    codebook=32,
    vq_multiplier=(1, 1, 1, 1),
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model in the HF format."""
    folder = tmp_path_factory.mktemp("model")
    model, processor = build_janus(WORDS, seed=3, sizes=SIZES)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lively_model_folder(
    random_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Weights large enough for candidates to differ in reward; a fresh model finds all alike."""
    folder = tmp_path_factory.mktemp("lively")
    model = load_model(random_model_folder)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    model.save(folder)
    return folder


@pytest.fixture(scope="session")
def inputs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 pictures of noise in `pictures/`, 12 prompts in `prompts.txt`."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(5)
    for number in range(12):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number:02d}.png")
    prompts = [f"{prompt} {word}" for prompt in PROMPTS for word in ("red", "blue", "two")]
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def make_config(
    random_model_folder: Path, inputs_folder: Path, tmp_path: Path
) -> Callable[..., TrainConfig]:
    """`make_config("rounds=3", ..., output="name")`: settings of a run that takes a second."""

    def make(*changes: str, output: str = "run") -> TrainConfig:
        tree: dict[str, Any] = {
            "model": str(random_model_folder),
            "output": str(tmp_path / output),
            "data": {
                "images": str(inputs_folder / "pictures"),
                "prompts": str(inputs_folder / "prompts.txt"),
                "heldout": 0.25,
            },
            "rounds": 2,
            "inputs_per_round": 3,
            "candidates": 4,
            "sampling": {"max_new_tokens": 6},
            "reward": {"cut_captions": "keep"},  # an untrained model ends few
            "optimizer": {"lr": 0.003, "warmup_rounds": 0},
            "guard": {"every": 2, "samples": 24},
        }
        return load_config(tree, changes)

    return make


# ---- models: 16 image tokens, as in the embedded model; the rest as small as it can be

JANUS_WORDS = ("a", "an", "and", "red", "green", "blue", "circle", "square", "triangle")
JANUS_WORDS += ("left", "right", "of", "above", "below", "two", "circles")
JANUS_SIZES = Sizes(
    hidden=32,
    layers=2,
    heads=2,
    mlp=64,
    vision_hidden=32,
    vision_layers=1,
    vision_heads=2,
    codebook=48,
)


def random_janus(seed: int = 0, words: tuple[str, ...] = (), **options: Any) -> Janus:
    """A new model with weights large enough that its distributions are far from uniform."""
    model, processor = build_janus((*JANUS_WORDS, *words), seed=seed, sizes=JANUS_SIZES)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "vqmodel" in name or weight.ndim != 2:
            continue
        spread = 1.0 if "embed" in name else 1.2 * weight.shape[1] ** -0.5
        weight.data.normal_(0.0, spread, generator=generator)
    for head in (model.lm_head, model.model.generation_head.vision_head):
        head.weight.data.mul_(2.0)
    model.model.generation_head.vision_head.bias.data.normal_(0.0, 0.5, generator=generator)
    return Janus(model, processor, **options)


@pytest.fixture(scope="session")
def shared_janus() -> Janus:
    """One model for the tests that change nothing in it."""
    return random_janus()


MAKE = {"janus": random_janus, "emu3": small_emu3, "liquid": small_liquid}


@pytest.fixture(scope="session", params=list(MAKE))
def shared_model(request: pytest.FixtureRequest) -> Any:
    """One model of each family, of the same words, 16 tokens a picture and 48 codes."""
    return (
        request.getfixturevalue("shared_janus")
        if request.param == "janus"
        else MAKE[request.param]()
    )


@pytest.fixture(scope="session", params=list(MAKE))
def judging_model(request: pytest.FixtureRequest) -> Any:
    """One of each family whose vocabulary has the judge's words; its answers are as random."""
    return MAKE[request.param](words=JUDGING)


@pytest.fixture(params=list(MAKE))
def fresh_model(request: pytest.FixtureRequest) -> Any:
    """A model of the test's own."""
    return MAKE[request.param]()


@pytest.fixture(scope="session", params=list(MAKE))
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of each family in the HF format, of 4 tokens a picture, for runs."""
    if request.param == "janus":
        found: Path = request.getfixturevalue("random_model_folder")
        return found
    folder = tmp_path_factory.mktemp(request.param)
    MAKE[request.param](image_size=16).save(folder)
    return folder


@pytest.fixture
def janus() -> Janus:
    """A model of the test's own."""
    return random_janus()


@pytest.fixture
def make_janus() -> Any:
    return random_janus


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return [
        "a red circle",
        "two blue circles",
        "a green triangle above a red square",
        "a blue square left of a green circle and a red circle",
    ]


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """uint8 `[4, 32, 32, 3]`: coloured squares on noise, so that no two look alike."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (4, 32, 32, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        image[4 * i : 4 * i + 12, 6:20] = rng.integers(100, 256, 3)
    return images


@dataclass(frozen=True)
class Textbook:
    """float64 log-probabilities `[L]` of one target, one sequence at a time, from full logits."""

    janus: Janus
    model: Any

    def text_logits(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """`[L, V]`: transformers' forward on picture, question and text."""
        prefix = understanding_ids(self.janus.processor)
        output = self.model(
            input_ids=torch.cat([prefix, ids])[None],
            pixel_values=pixels[None].double(),
            attention_mask=torch.ones(1, len(prefix) + len(ids), dtype=torch.int64),
        )
        logits: Tensor = output.logits[0, len(prefix) - 1 : -1]
        return logits

    def image_logits(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        """`[I, V]`: language model and generation head on a prompt's ids and VQ tokens."""
        model = self.model
        words = model.get_input_embeddings()(prefix[None])
        drawn = model.prepare_embeddings_for_image_generation(tokens[None, :-1])
        output = model.model.language_model(inputs_embeds=torch.cat([words, drawn], 1))
        hidden = output.last_hidden_state[0, len(prefix) - 1 :]
        logits: Tensor = model.model.generation_head(hidden)
        return logits

    def text(self, pixels: Tensor, ids: Tensor) -> Tensor:
        return chosen(self.text_logits(pixels, ids), ids)

    def image(self, prompt: str, tokens: Tensor) -> Tensor:
        prefix = generation_ids(self.janus.processor, prompt)
        return chosen(self.image_logits(prefix, tokens), tokens)

    def ids(self, text: str) -> Tensor:
        return caption_ids(self.janus.processor, text)


def chosen(logits: Tensor, target: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]


@pytest.fixture(scope="session")
def textbook(shared_janus: Janus) -> Textbook:
    return Textbook(shared_janus, copy.deepcopy(shared_janus.core).double())


@pytest.fixture
def textbook_of() -> Callable[[Janus], Textbook]:
    return lambda janus: Textbook(janus, copy.deepcopy(janus.core).double())


@pytest.fixture(scope="session")
def icons_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packages(tmp_path_factory.mktemp("icons"))


@pytest.fixture
def emoji_world(icons_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The emoji world of icons drawn here; the folder is shared, its drawings are kept in it."""
    pytest.importorskip("resvg_py")
    monkeypatch.setenv("SUDER_EMOJI", str(icons_folder))
    emoji.drawings.cache_clear()
    yield icons_folder
    emoji.drawings.cache_clear()
