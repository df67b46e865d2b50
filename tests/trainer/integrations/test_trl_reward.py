"""The dual reward in TRL's trainer: what it is given, what it gives, and a step with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import suder
from suder.integrations.trl import DualReward
from suder.models.base import NotFinite

CAPTIONS = ["a red circle", "two green circle", "", "a blue square"]


@pytest.fixture
def pictures(janus: Any) -> list[Any]:
    side = janus.image_size
    return list(np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8))


def test_captions(janus: Any, pictures: list[Any]) -> None:
    expected = suder.DualReward(janus).understanding(pictures, CAPTIONS).tolist()
    reward = DualReward(janus)
    got = reward(prompts=["?"] * 4, completions=CAPTIONS, image=pictures, completion_ids=[[]] * 4)
    assert got == pytest.approx(expected, nan_ok=True)
    assert math.isnan(got[2])
    assert all(isinstance(one, float) for one in got)
    assert reward.__name__ == "dual_reward_understanding"
    # The same of conversations, of TRL's other column, and of one that the user names.
    turns: list[Any] = [[{"role": "assistant", "content": text}] for text in CAPTIONS]
    turns[1][0]["content"] = [{"type": "text", "text": CAPTIONS[1]}]
    lists = [[picture] for picture in pictures]
    assert reward([], turns, images=lists) == pytest.approx(expected, nan_ok=True)
    other = DualReward(janus, column="shown", missing=-9.0)
    expected[2] = -9.0
    assert other([], CAPTIONS, shown=pictures, image=None) == pytest.approx(expected)


def test_pictures(janus: Any) -> None:
    tokens = torch.randint(janus.image_vocab_size, (4, janus.num_image_tokens))
    prompts = ["a red circle", "a blue square"] * 2
    expected = suder.DualReward(janus).generation(prompts, tokens).tolist()
    reward = DualReward(janus, "generation")
    rows = tokens.tolist()
    assert reward(prompts, [""] * 4, rows) == pytest.approx(expected)
    asked = [
        [{"role": "system", "content": "draw"}, {"role": "user", "content": text}]
        for text in prompts
    ]
    assert reward(asked, [""] * 4, rows) == pytest.approx(expected)
    shifted = [[7, *(code + 100 for code in row)] for row in rows]
    cut = DualReward(
        janus, "generation", column="text", codes=lambda ids: [i - 100 for i in ids[1:]]
    )
    assert cut([""] * 4, [""] * 4, shifted, text=prompts) == pytest.approx(expected)
    broken = [rows[0], rows[1][:-1], [janus.image_vocab_size, *rows[2][1:]], rows[3]]
    assert [math.isnan(one) for one in reward(prompts, [""] * 4, broken)] == [
        False,
        True,
        True,
        False,
    ]
    assert all(math.isnan(one) for one in reward(prompts, [""] * 4, [[]] * 4))


def test_options_are_those_of_the_reward(janus: Any, pictures: list[Any]) -> None:
    reward = DualReward(janus, reduction="sum", scorer="frozen")
    expected = suder.DualReward(janus, reduction="sum").understanding(pictures, CAPTIONS).tolist()
    assert reward([], CAPTIONS, image=pictures) == pytest.approx(expected, nan_ok=True)


def test_what_is_refused(janus: Any, pictures: list[Any]) -> None:
    with pytest.raises(ValueError, match="takes understanding or generation, got 'both'"):
        DualReward(janus, "both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no column 'images' .* among \['text'\]; name it"):
        DualReward(janus)([], CAPTIONS, text=CAPTIONS)
    with pytest.raises(ValueError, match="images, row 0: takes one image a caption, got 2"):
        DualReward(janus)([], CAPTIONS[:1], images=[pictures[:2]])
    with pytest.raises(ValueError, match="no column 'words'"):
        DualReward(janus, "generation", column="words")([""], [""], [[0]])
    with pytest.raises(ValueError, match="needs completion_ids"):
        DualReward(janus, "generation")(["a red circle"], [""])


def test_a_model_of_nan_is_said(janus: Any, pictures: list[Any]) -> None:
    reward = DualReward(janus, scorer="frozen")
    with torch.no_grad():
        next(reward.reward.model.parameters()).fill_(math.nan)
        for weight in reward.reward.model.parameters():
            weight.fill_(math.nan)
    with pytest.raises(NotFinite, match="weights hold NaN"):
        reward([], CAPTIONS, image=pictures)


@pytest.mark.filterwarnings("ignore")  # of the host's own libraries
def test_a_step_of_trl(janus: Any, pictures: list[Any], tmp_path: Path) -> None:
    """A text-only policy guesses captions; TRL logs the mean of the rewards that it was given."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = janus.processor.tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    given: list[float] = []

    class Kept(DualReward):
        def __call__(self, *args: Any, **columns: Any) -> list[float]:
            scored = super().__call__(*args, **columns)
            given.extend(scored)
            return scored

    shown = [Image.fromarray(one) for one in pictures]
    rows = Dataset.from_list([{"prompt": "a", "shown": one} for one in shown])
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=4,
        max_steps=1,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )

    trainer = trl.GRPOTrainer(
        LlamaForCausalLM(config),
        Kept(janus, column="shown"),
        arguments,
        rows,
        processing_class=tokenizer,
    )
    trainer.train()
    assert len(given) == 4
    logged = trainer.state.log_history[0]["rewards/dual_reward_understanding/mean"]
    assert logged == pytest.approx(np.nanmean(given), rel=1e-5)
