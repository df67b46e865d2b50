"""A healthy checkpoint is called so; each kind of damage is found, in words, not in tracebacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from suder.cli import main
from suder.doctor import examine as examining
from suder.doctor import memory, parity, words
from suder.doctor.findings import Examination, Finding
from suder.doctor.patient import Patient, drawn_pairs
from suder.models.find import find_model
from suder.run import plan as memory_plan
from suder.testing import AdapterReport, Outcome
from tests.trainer.families import small_emu3, small_liquid

CODES = "model.vqmodel.quantize.embedding.weight"
FAST = ("words", "pictures", "rewards")


def of(examined: Examination, section: str) -> dict[str, list[str]]:
    """Texts of a section's findings by their level."""
    found: dict[str, list[str]] = {"fine": [], "odd": [], "wrong": []}
    for one in examined.sections:
        for finding in one.findings if one.name == section else ():
            found[finding.level].append(finding.text)
    return found


def examine(model: str | Path, *checks: str, **options: Any) -> Examination:
    patient = Patient(str(model), "cpu", torch.float32, drawn_pairs(16), **options)
    return examining.examine(patient, checks)


@pytest.fixture
def copy_of_shapes(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_model("shapes").folder, tmp_path / "checkpoint"))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def test_the_embedded_model_is_fine(capsys):
    assert main(["doctor", "shapes", "--checks", "words,pictures,parity,rewards"]) == 0
    said = capsys.readouterr().out
    assert "fine: files, words, pictures, parity, rewards\n" in said
    assert "fit to be trained, as far as this looked" in said
    assert "question, 27 ids: <bos> <|User|> : <begin_of_image> <image_placeholder> (x 16)" in said
    assert "the checkpoint's own processor gives the same question" in said
    assert "the tokens of transformers' generate" in said
    assert "odd" not in said
    assert "wrong" not in said


def test_numbers_in_json(capsys):
    assert main(["doctor", "shapes", "--checks", "pictures,rewards", "--json"]) == 0
    examined = json.loads(capsys.readouterr().out)
    assert examined["verdict"] == "fine"
    sections = {one["name"]: one["findings"] for one in examined["sections"]}
    assert list(sections) == ["files", "pictures", "rewards"]
    assert sections["files"][0]["values"]["weights"] == 2163051
    pictures = sections["pictures"][0]["values"]
    assert pictures["psnr"] > 25 > 15 > pictures["psnr_of_mean_colour"]
    for one in sections["rewards"]:
        values = one["values"]
        assert values["margin"] > 2
        assert values["margin"] == pytest.approx(values["matching"] - values["shuffled"])
        assert values["ahead"] > 0.9


def test_a_random_model_gives_no_signal(random_model_folder, capsys):
    assert main(["doctor", str(random_model_folder), "--checks", "pictures,rewards"]) == 1
    said = capsys.readouterr().out
    assert said.count("  wrong  rewards do not tell matching from shuffled") == 2
    assert "to do: random weights, a wrong template or a wrong VQ model" in said
    assert "never seen drawn shapes" in said
    assert "nothing of them is left" in said
    assert "not fit to be trained as it is" in said


def test_a_scaled_codebook(copy_of_shapes):
    change_weights(copy_of_shapes, lambda weights: weights[CODES].mul_(50))
    examined = examine(copy_of_shapes, "pictures")
    assert any("codes of length 50 to 50" in text for text in of(examined, "pictures")["odd"])
    assert examined.verdict == "odd"


def test_a_codebook_of_another_model(copy_of_shapes):
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))

    def shuffle(weights):
        weights[CODES] = weights[CODES][order].contiguous()

    change_weights(copy_of_shapes, shuffle)
    examined = examine(copy_of_shapes, "rewards")
    assert "do not tell matching from shuffled captions" in of(examined, "rewards")["wrong"][0]


def test_a_weight_that_is_nan(copy_of_shapes):
    def spoil(weights):
        weights["model.lm_head.weight" if "model.lm_head.weight" in weights else "lm_head.weight"][
            3, 2
        ] = torch.nan

    change_weights(copy_of_shapes, spoil)
    examined = examine(copy_of_shapes, *FAST, "parity")
    (found,) = of(examined, "files")["wrong"]
    assert "NaN or infinite in 1 tensors: " in found
    assert "lm_head.weight" in found
    assert of(examined, "rewards")["wrong"] == ["rewards of pictures: 16 of 16 are not finite"]
    assert "could not be examined: NotFinite" in of(examined, "parity")["wrong"][0]


def test_a_wrong_template(copy_of_shapes):
    file = copy_of_shapes / "chat_template.jinja"
    file.write_text(file.read_text().replace("<|User|>", "USER"))
    wrong = of(examine(copy_of_shapes, "words"), "words")["wrong"]
    assert "the template of the question has words that the vocabulary does not know" in wrong
    assert "the template of the prompt has words that the vocabulary does not know" in wrong
    assert "the template of the prompt leaves out <|User|>, which it has" in wrong


@pytest.mark.parametrize("make", [small_emu3, small_liquid])
def test_models_of_one_vocabulary(make, tmp_path):
    make().save(tmp_path)
    examined = examine(tmp_path, *FAST, "parity")
    assert [one.name for one in examined.sections] == [
        "files",
        "words",
        "pictures",
        "parity",
        "rewards",
    ]
    found = of(examined, "words")
    assert any(text.startswith("question, ") for text in found["fine"])
    assert found["odd"] == ["the caption has words that the vocabulary does not know"]
    assert found["wrong"] == []
    assert len(of(examined, "rewards")["wrong"]) == 2  # the weights are random


def test_another_end_of_texts(copy_of_shapes):
    file = copy_of_shapes / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": 5}))
    (odd,) = of(examine(copy_of_shapes, "words"), "words")["odd"]
    assert odd.startswith("texts end in 2 ('<eos>') by the tokenizer, in [5]")


def test_a_processor_that_says_more_than_we_do(shared_janus):
    processor, prompts = shared_janus.processor, shared_janus.prompts
    said = prompts.question_ids.tolist(), prompts.prompt_ids("a red circle").tolist()
    same = words._of_the_processor(processor, "a red circle", *said)
    assert [one.level for one in same] == ["fine", "fine"]
    question, prompt = words._of_the_processor(processor, "a red circle", said[0][1:], said[1])
    assert (question.level, prompt.level) == ("odd", "fine")
    assert f"{len(said[0])} ids, suder one of {len(said[0]) - 1}" in question.text


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "holds no model: no config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "chat_template.jinja").write_text("hello"), "leaves out what"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'),
            "is a 'llama' checkpoint",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:100_000]
            ),
            "is damaged",
        ),
        (lambda folder: (folder / "adapter_config.json").touch(), "holds a PEFT adapter"),
        (lambda folder: shutil.rmtree(folder), "there is no folder"),
    ],
)
def test_what_does_not_load_is_a_finding(copy_of_shapes, damage, said, capsys):
    damage(copy_of_shapes)
    assert main(["doctor", str(copy_of_shapes)]) == 1
    out = capsys.readouterr().out
    assert said in out
    assert "Traceback" not in out
    assert "to do: nothing else can be examined until it loads" in out
    assert "words" not in out


def test_all_that_keeps_it_from_loading_is_said_at_once(copy_of_shapes):
    (copy_of_shapes / "config.json").write_text("{")
    (copy_of_shapes / "model.safetensors").unlink()
    wrong = of(examine(copy_of_shapes), "files")["wrong"]
    assert ["config.json is damaged" in wrong[0], "has no model.safetensors" in wrong[1]] == [
        True
    ] * 2
    shutil.copytree(copy_of_shapes, copy_of_shapes / "model")
    (copy_of_shapes / "config.json").rename(copy_of_shapes / "config.yaml")
    (found,) = of(examine(copy_of_shapes), "files")["wrong"]
    assert found.endswith(f"is the folder of a run; its model is {copy_of_shapes / 'model'}")


def test_pairs_of_the_users(tmp_path, capsys):
    pairs = drawn_pairs(8)
    for number, picture in enumerate(pairs.pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    prompts = tmp_path / "prompts.txt"
    arguments = ["--images", str(tmp_path), "--prompts", str(prompts), "--checks", "rewards"]
    prompts.write_text("\n".join(pairs.captions))
    assert main(["doctor", "shapes", *arguments]) == 0
    # Captions of the next picture match nothing, and there is no excuse of never-seen shapes.
    prompts.write_text("\n".join([*pairs.captions[1:], pairs.captions[0]]))
    capsys.readouterr()
    assert main(["doctor", "shapes", *arguments]) == 1
    said = capsys.readouterr().out
    assert "rewards do not tell matching from shuffled" in said
    assert "never seen" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "."], "--images and --prompts: pictures and their captions; give both"),
        (["--images", ".", "--prompts", "p.txt"], "p.txt has 1 texts and 1 blank lines, . has 0"),
        (["--images", "none", "--prompts", "p.txt"], "--images: there is no folder none"),
        (["--checks", "reward"], "--checks: no reward; there are files, words"),
        (["--pairs", "3"], "--pairs: takes four or more, got 3"),
        (["--image", "none.png"], "none.png"),
    ],
)
def test_bad_input_is_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a red circle\n\n")
    assert main(["doctor", "shapes", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_picture_of_the_users(tmp_path):
    # Nothing but its mean colour can come back of noise.
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (
        "nothing of them is left"
        in of(examine("shapes", "pictures", picture=noise), "pictures")["wrong"][0]
    )


def test_memory_beside_what_the_device_has(random_model_folder, monkeypatch):
    monkeypatch.setattr(memory, "SETTINGS", {"all weights, bfloat16": ("dtype=bfloat16",)})
    found = of(examine(random_model_folder, "memory"), "memory")["fine"]
    assert found[0].endswith("MiB, fits  (dtype=bfloat16)")
    assert found[1].endswith("all weights, bfloat16 fits")


def test_memory_that_no_device_has(monkeypatch):
    asked = []

    def plan(config):
        asked.append((config.dtype, config.lora.rank, config.optimizer.checkpoint_activations))
        return memory_plan.Plan({"weights": 1 << 60}, {"sample": 0}, 0)

    monkeypatch.setattr(memory, "plan", plan)
    found = of(examine("shapes", "memory", quick=True), "memory")
    assert asked == [("bfloat16", 0, False), ("bfloat16", 32, True)]
    assert all("1073741824.0 GiB, does not fit" in text for text in found["fine"][-2:])
    assert "and no setting here fits" in found["odd"][0]


@pytest.mark.parametrize(("gap", "level"), [(1e-4, "fine"), (2.0, "wrong")])
def test_other_tokens_than_generate(gap, level, monkeypatch):
    """A tie is rounding; more is another model than transformers'."""
    honest = parity.sample

    def off(*args, **options):
        drawn = honest(*args, **options)
        for row in drawn.tokens:
            row[3] = (row[3] + 1) % 30
        return drawn

    monkeypatch.setattr(parity, "sample", off)
    monkeypatch.setattr(parity, "_logprob", lambda *given: gap if given[5] == given[4][3] else 0.0)
    found = of(examine("shapes", "parity", quick=True), "parity")[level]
    assert "at token 3 of" in found[0] or "up to token 3 of" in found[0]


def test_the_contract_when_asked_for(monkeypatch):
    report = AdapterReport((Outcome("texts"), Outcome("ratio", ("log p differ",))))
    shown = {}

    def check(model, **given):
        shown.update(given)
        return report

    monkeypatch.setattr(examining, "check_adapter", check)
    found = of(examine("shapes", "contract"), "contract")
    assert found["fine"] == ["passed texts"]
    assert found["wrong"] == ["FAILED ratio - log p differ"]
    assert [picture.shape for picture in shown["images"]] == [(32, 32, 3)] * 3
    assert len(shown["prompts"]) == 3


def test_a_check_that_raises_is_a_finding(monkeypatch):
    def raises(patient):
        yield Finding("fine", "so far")
        raise KeyError("codebook")

    monkeypatch.setitem(examining.CHECKS, "pictures", raises)
    found = of(examine("shapes", "pictures"), "pictures")
    assert found["fine"] == ["so far"]
    assert found["wrong"] == ["could not be examined: KeyError: 'codebook'"]
