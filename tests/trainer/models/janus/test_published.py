"""Janus-Pro as published: the ids of its own processor, its files, and what a run makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import JanusProcessor
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

import suder
from suder.models.janus.layout import caption_ids, generation_ids, null_ids, understanding_ids
from suder.models.weightless import weightless
from suder.run.folder import RunError
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import load_config
from suder.settings.learning import Lora
from suder.storage.files import read_jsonl, read_object
from tests.trainer.published import PAD, PLAIN, SIZES, SPECIAL, write_checkpoint, write_processor

PICTURE = Image.new("RGB", (20, 20), "red")
TEXTS = ("Describe the image.", "a red circle", "  Ünïcode 猫 🐈\u200d⬛\n\nin  two lines ", "",
         "{{ x }}", "(<|)", "1234 + 5.6%", "<User>: |Assistant|", "ø öre", "\ue000")  # fmt: skip
PIECES = st.sampled_from([*PLAIN, *"<|>: \n\t.é猫", "user", "image", "\u3000", "<|", "|>", "▁"])


def spells_none(text: str) -> bool:
    return not any(token in text for token in SPECIAL)


ANY_TEXT = (st.text(max_size=20) | st.lists(PIECES, max_size=8).map("".join)).filter(spells_none)


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With 576 places for a picture, which the published settings do not even say."""
    folder = tmp_path_factory.mktemp("processor")
    write_processor(folder, size=28)
    return JanusProcessor.from_pretrained(folder)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "Janus-Pro-1B"
    write_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def loaded(published: Path) -> Any:
    return suder.load_model(published)


def turn(role: str, text: str, picture: bool = False) -> dict[str, Any]:
    shown = [{"type": "image"}] if picture else []
    return {"role": role, "content": [*shown, {"type": "text", "text": text}]}


def theirs(processor: Any, *turns: dict[str, Any], mode: str = "text", open_: bool = True) -> Any:
    """Ids as a user of transformers gets them, with a picture where the turns have one."""
    prompt = processor.apply_chat_template(list(turns), add_generation_prompt=open_)
    images = [PICTURE] if turns[0]["content"][0]["type"] == "image" else None
    return processor(text=prompt, images=images, generation_mode=mode)["input_ids"][0]


def ids_are_the_processors(processor: Any, text: str) -> None:
    asked = understanding_ids(processor, text).tolist()
    assert asked == list(theirs(processor, turn("user", text, picture=True)))
    drawn = generation_ids(processor, text).tolist()
    assert drawn == list(theirs(processor, turn("user", text), mode="image"))
    if text.strip():
        turns = turn("user", "Describe the image.", picture=True), turn("assistant", text)
        caption = caption_ids(processor, text).tolist()
        whole = [*understanding_ids(processor).tolist(), *caption]
        assert whole[:-1] == list(theirs(processor, *turns, open_=False))
        more = theirs(processor, *turns, turn("user", "And?"))
        assert whole == list(more)[: len(whole)]  # the next turn follows an end of sentence


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_the_processors(processor: Any, text: str) -> None:
    ids_are_the_processors(processor, text)


@given(text=ANY_TEXT)
def test_ids_of_any_text_are_the_processors(processor: Any, text: str) -> None:
    ids_are_the_processors(processor, text)


def test_a_question_asked_in_one_call(processor: Any) -> None:
    """`apply_chat_template(tokenize=True)`, as in the model card."""
    asked = turn("user", "What is red?", picture=True)
    asked["content"][0]["image"] = PICTURE
    found = processor.apply_chat_template(
        [asked], add_generation_prompt=True, tokenize=True, return_dict=True, generation_mode="text"
    )
    assert understanding_ids(processor, "What is red?").tolist() == list(found["input_ids"][0])


def test_the_system_prompt(processor: Any) -> None:
    tokenizer = processor.tokenizer
    ids = understanding_ids(processor)
    system = tokenizer(DEFAULT_SYSTEM_PROMPT)["input_ids"]  # BOS before it
    assert ids[: len(system)].tolist() == system
    assert len(system) > 60
    none = understanding_ids(processor, system_prompt="")
    assert none.tolist() == [system[0], *ids[len(system) :].tolist()]
    own = understanding_ids(processor, system_prompt=" Be brief. ")
    brief = tokenizer("Be brief.\n\n")["input_ids"]
    assert own.tolist() == [*brief, *none[1:].tolist()]
    for token in SPECIAL:
        with pytest.raises(ValueError, match=r"system_prompt: '.*' in it is a token that means"):
            understanding_ids(processor, system_prompt=f"Be brief.{token}")


@pytest.mark.parametrize("token", SPECIAL)
def test_special_tokens_in_a_text_are_text(processor: Any, token: str) -> None:
    tokenizer = processor.tokenizer
    meant = set(tokenizer.convert_tokens_to_ids(list(SPECIAL)))
    for text in (token, f"a {token} red", f"x{token}{token}y", f"{token}: b\n{token}"):
        caption = caption_ids(processor, text)
        assert meant.intersection(caption.tolist()) == {tokenizer.eos_token_id}
        assert tokenizer.decode(caption[:-1]).strip() == text
        for ids in (generation_ids, understanding_ids):
            found = [one for one in ids(processor, text).tolist() if one in meant]
            assert found == [one for one in ids(processor, "x").tolist() if one in meant]


def test_null_prompt_is_that_of_generate(processor: Any) -> None:
    """All but BOS and begin-of-image padded, as `generate` and DeepSeek's own script do it."""
    tokenizer = processor.tokenizer
    ids = generation_ids(processor, "a red circle")
    null = null_ids(processor, ids).tolist()
    pad, start = tokenizer.convert_tokens_to_ids([PAD, "<begin_of_image>"])
    assert null == [tokenizer.bos_token_id, *[pad] * (len(ids) - 2), start]
    without = type(processor).from_pretrained(tokenizer.name_or_path)
    without.tokenizer.pad_token = None
    with pytest.raises(ValueError, match="has no pad token"):
        null_ids(without, ids)


# ---- a checkpoint


def pictures(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_what_is_loaded(published: Path, loaded: Any, tmp_path: Path) -> None:
    """bfloat16 in pieces, two weights that the config calls tied; saved again it is the same."""
    assert len(list(published.glob("model-*.safetensors"))) > 1
    core = loaded.core
    assert not torch.equal(core.lm_head.weight, core.get_input_embeddings().weight)
    assert loaded.saved == torch.bfloat16
    assert loaded.asks == {
        "question": "Describe the image.",
        "system_prompt": DEFAULT_SYSTEM_PROMPT,
        "null_prompt": "padded",
        "judge": "Does this picture show {text}? Answer yes or no.",
    }
    assert not suder.SelfJudge(loaded).unavailable
    loaded.save(tmp_path)
    again = suder.load_model(tmp_path)
    assert again.asks == loaded.asks
    assert again.max_new_tokens == loaded.max_new_tokens
    assert torch.equal(again.prompts.question_ids, loaded.prompts.question_ids)
    for (name, one), other in zip(
        loaded.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_plan_counts_both_weights(published: Path, loaded: Any) -> None:
    held = sum(one.nbytes for one in loaded.state_dict().values())
    with weightless(str(published), None, Lora(), question="What?", null_prompt="fixed") as model:
        assert sum(one.nbytes for one in model.state_dict().values()) == held
        assert model.asks["question"] == "What?"
        assert model.max_new_tokens == loaded.max_new_tokens == 512


def test_captions_and_pictures_are_those_of_generate(loaded: Any) -> None:
    """From the inputs that its own processor makes."""
    processor, core = loaded.processor, loaded.core
    pixels = loaded.pixels(pictures())
    ours = suder.sample(loaded, "understanding", pixels, greedy=True, max_new_tokens=12)
    prompt = processor.apply_chat_template(
        [turn("user", "Describe the image.", picture=True)], add_generation_prompt=True
    )
    for picture, row in zip(pictures(), ours.tokens, strict=True):
        given = processor(text=prompt, images=[Image.fromarray(picture)], return_tensors="pt")
        found = core.generate(
            **given, generation_mode="text", do_sample=False, max_new_tokens=12
        )  # fmt: skip
        assert row.tolist() == found[0, given["input_ids"].shape[1] :].tolist()
    prompts = ["a red circle", "<|User|> two 猫"]
    drawn = suder.sample(loaded, "generation", prompts[:1], greedy=True, guidance=5.0)
    prompt = processor.apply_chat_template([turn("user", prompts[0])], add_generation_prompt=True)
    given = processor(text=prompt, generation_mode="image", return_tensors="pt")
    found = core.generate(**given, generation_mode="image", do_sample=False)
    assert drawn.tokens[0].tolist() == found[0].tolist()
    assert suder.sample(loaded, "generation", prompts, n=2).tokens.shape == (4, SIZES.tokens)


def test_tokens_that_the_tokenizer_has_not(loaded: Any) -> None:
    """The head has rows to spare; a drawn one is no text."""
    ids = [*loaded.tokenize(["a red"])[0][:-1].tolist(), len(loaded.processor.tokenizer) + 3]
    assert loaded.detokenize([torch.tensor(ids)]) == ["a red"]


@pytest.fixture
def tuned(published: Path, tmp_path: Path) -> Path:
    """Somebody's fine-tune in the same format."""
    folder = tmp_path / "tuned"
    shutil.copytree(published, folder)
    return folder


def test_fine_tunes_load_as_they_are(tuned: Path, loaded: Any) -> None:
    (tuned / "generation_config.json").unlink()
    for name in ("README.md", ".gitattributes", "added_tokens.json", "trainer_state.json"):
        (tuned / name).write_text("{}")
    (tuned / "training_args.bin").write_bytes(b"a pickle")  # beside the weights, and never read
    (tuned / "checkpoint-100").mkdir()
    model = suder.load_model(tuned, dtype=torch.bfloat16)
    assert model.max_new_tokens == 512
    assert torch.equal(model.core.lm_head.weight.float(), loaded.core.lm_head.weight)
    model.save(tuned / "again")
    assert suder.load_model(tuned / "again").max_new_tokens == 512


def test_longest_captions_by_the_model(tuned: Path) -> None:
    file = tuned / "generation_config.json"
    file.write_text(json.dumps(read_object(file) | {"max_new_tokens": 77}))
    assert suder.load_model(tuned).max_new_tokens == 77
    config = read_object(tuned / "config.json")
    question = len(suder.load_model(tuned).prompts.question_ids)
    config["text_config"]["max_position_embeddings"] = question + 20
    (tuned / "config.json").write_text(json.dumps(config))
    model = suder.load_model(tuned)
    assert model.max_new_tokens == model.longest_text == 21
    assert suder.load_model("shapes").max_new_tokens == 32


def test_deepseeks_own_format_says_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "multi_modality"}')
    with pytest.raises(ValueError, match=r"deepseek-community/.*convert_janus_weights_to_hf\.py"):
        suder.load_model(tmp_path)


# ---- a run


def config_of(model: Path, tmp_path: Path, inputs: Path, *changes: str) -> TrainConfig:
    tree = {
        "model": str(model),
        "output": str(tmp_path / "run"),
        "data": {"images": str(inputs / "pictures"), "prompts": str(inputs / "prompts.txt")},
        "rounds": 2,
        "inputs_per_round": 2,
        "candidates": 2,
        "sampling": {"max_new_tokens": 5, "guidance": 3.0},
        "guard": {"inputs": 2, "samples": 4},
    }
    return load_config(tree, changes)


def test_a_run_keeps_to_what_it_asks(tuned: Path, inputs_folder: Path, tmp_path: Path) -> None:
    asked = [
        "prompts.question=What is this?",
        "prompts.system_prompt=''",
        "prompts.null_prompt=fixed",
        "prompts.judge=Is this {text}?",
    ]
    keep = "reward.cut_captions=keep"
    config = config_of(tuned, tmp_path, inputs_folder, *asked, keep, "sampling.max_new_tokens=null")
    file = tuned / "generation_config.json"
    plain = file.read_text()
    file.write_text(json.dumps(json.loads(plain) | {"max_new_tokens": 4}))
    trainer = Trainer(config, quiet=True)
    wanted = understanding_ids(trainer.learner.policy.processor, "What is this?", "")
    for model in (trainer.learner.policy, trainer.learner.start, trainer.learner.scorer.model):
        assert torch.equal(model.prompts.question_ids, wanted)
        assert model.prompts.null_prompt == "fixed"
    trainer.run()
    kept = read_object(tmp_path / "run" / "versions.json")["asked"]
    assert kept == {
        "question": "What is this?",
        "system_prompt": "",
        "null_prompt": "fixed",
        "judge": "Is this {text}?",
        "max_new_tokens": 4,
    }
    assert load_config(tmp_path / "run" / "config.yaml").prompts == config.prompts
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert all(row["length/understanding"] <= 4 for row in rows if row["round"])
    file.write_text(plain)  # and now its captions would be longer
    with pytest.raises(RunError, match=r"other than then: max_new_tokens"):
        Trainer.resume(tmp_path / "run", quiet=True)


def test_cut_captions_are_no_candidates(
    published: Path, inputs_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Untrained, it ends none in five tokens: every one is counted and named, none is learnt."""
    Trainer(config_of(published, tmp_path, inputs_folder), quiet=False).run()
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")[1:]
    assert [row["unfinished/understanding"] for row in rows] == [4, 4]
    assert [row["dropped/understanding"] for row in rows] == [4, 4]
    assert [row["pairs/understanding"] for row in rows] == [0, 0]
    assert all(row["grad_norm/understanding"] == 0 for row in rows)
    assert all(row["grad_norm/generation"] > 0 for row in rows)
    named = read_jsonl(tmp_path / "run" / "data" / "dropped.jsonl")
    assert {row["why"] for row in named} == {"caption cut off after 5 tokens"}
    assert len(named) == 8
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("all 4 captions were cut off after 5 tokens") == 1  # not every round
    assert "set reward.cut_captions=keep" in said
