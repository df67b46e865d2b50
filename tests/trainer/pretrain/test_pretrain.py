"""The recipe of the embedded model: its parts, each on something tiny, and the whole twice."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration, JanusProcessor

from suder.models import load_model
from suder.models.find import ASSETS, EMBEDDED
from suder.models.janus import layout
from suder.pretrain import patches, recipe, schedule, stages, vq, warmup
from suder.pretrain.architecture import Sizes, build_janus
from suder.pretrain.journal import Journal
from suder.world.captions import WORDS
from suder.world.catalogue import world

SMALL = Sizes(hidden=32, layers=1, heads=2, mlp=64, vision_hidden=32, vision_layers=1, codebook=64)


@pytest.fixture
def small() -> tuple[JanusForConditionalGeneration, JanusProcessor]:
    return build_janus(WORDS, seed=0, sizes=SMALL)


def pictures(n: int) -> torch.Tensor:
    return torch.from_numpy(world("shapes").pictures(n, 0))


def unit(codes: torch.Tensor) -> bool:
    return torch.allclose(codes.norm(dim=-1), torch.ones(len(codes)), atol=1e-6)


def test_the_embedded_sizes_are_the_promised_ones():
    model, _ = build_janus(WORDS, seed=1)
    trained = sum(parameter.numel() for parameter in warmup.trainable(model))
    assert 1e6 < trained < 3e6
    assert 4 * sum(parameter.numel() for parameter in model.parameters()) < 12e6
    assert model.lm_head.weight.data_ptr() != model.get_input_embeddings().weight.data_ptr()


def test_model_and_processor_survive_saving(small, tmp_path):
    model, processor = small
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = JanusForConditionalGeneration.from_pretrained(tmp_path)
    reader = JanusProcessor.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert unit(again.model.vqmodel.quantize.embedding.weight)
    assert again.generation_config.generation_kwargs == {"boi_token_id": 4}
    assert again.config.tie_word_embeddings is False
    text = "A red circle left of a blue square."
    assert torch.equal(layout.generation_ids(processor, text), layout.generation_ids(reader, text))
    picture = pictures(1)
    pixels = reader.image_processor(list(picture.numpy()), return_tensors="pt").pixel_values
    torch.testing.assert_close(pixels, vq.to_pixels(picture))
    assert torch.equal(vq.to_pictures(pixels), picture)


def test_seeds_decide_the_weights_and_nothing_else():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, _ = build_janus(WORDS, seed=3, sizes=SMALL)
    assert torch.equal(torch.rand(3), expected)  # the caller's random state is untouched
    same, _ = build_janus(WORDS, seed=3, sizes=SMALL)
    other, _ = build_janus(WORDS, seed=4, sizes=SMALL)
    assert stages.weights_digest(first) == stages.weights_digest(same)
    assert stages.weights_digest(first) != stages.weights_digest(other)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="do not give one grid"):
        Sizes(patch=16)
    with pytest.raises(ValueError, match="multiple of 32"):
        Sizes(vq_channels=48)


def test_the_layout_is_the_chat_template_of_the_processor(small):
    _, processor = small
    picture = {"type": "image"}
    asked = {"type": "text", "text": layout.QUESTION}
    text = processor.apply_chat_template(
        [{"role": "user", "content": [picture, asked]}], add_generation_prompt=True
    )
    inputs = processor(text=[text], images=[pictures(1)[0].numpy()])
    assert torch.equal(inputs["input_ids"][0], layout.understanding_ids(processor))
    told = [{"role": "user", "content": [{"type": "text", "text": "two red rings"}]}]
    text = processor.apply_chat_template(told, add_generation_prompt=True)
    inputs = processor(text=[text], generation_mode="image")
    ids = layout.generation_ids(processor, "two red rings")
    assert torch.equal(inputs["input_ids"][0], ids)

    names = processor.tokenizer.convert_ids_to_tokens
    assert " ".join(names(ids)) == (
        "<bos> <|User|> : two red rings <|Assistant|> : <begin_of_image>"
    )
    null = layout.null_ids(processor, ids)
    assert " ".join(names(null)) == "<bos>" + " <pad>" * 7 + " <begin_of_image>"
    caption = layout.caption_ids(processor, " a red ring  ")
    assert " ".join(names(caption)) == "a red ring <eos>"
    assert processor.tokenizer.decode(caption, skip_special_tokens=True) == "a red ring"
    # Every word of the world is one token, and known.
    for word in WORDS:
        known = layout.caption_ids(processor, word)
        assert len(known) == 2
        assert known[0] != processor.tokenizer.unk_token_id


def test_the_straight_through_gradient_reaches_the_encoder(small):
    model = small[0].model.vqmodel
    pixels = vq.to_pixels(pictures(4))
    tokens, features = vq.encode(model, pixels)
    made = vq.decode(model, tokens, features)
    (made - pixels).square().mean().backward()  # the reconstruction alone, nothing else
    for parameter in (*model.encoder.parameters(), *model.quant_conv.parameters()):
        assert parameter.grad is not None
    assert model.encoder.conv_in.weight.grad.norm() > 0
    # The straight-through value: the decoder sees the codes themselves, exactly as `decode` does.
    torch.testing.assert_close(made, model.decode(tokens), rtol=1e-4, atol=1e-5)


def test_encoding_takes_the_nearest_code_on_the_sphere(small):
    model = small[0].model.vqmodel
    model.quantize.embedding.weight.data *= torch.linspace(0.1, 9, 64)[:, None]
    pixels = vq.to_pixels(pictures(3))
    tokens, _ = vq.encode(model, pixels)
    raw = model.quant_conv(model.encoder(pixels)).double().permute(0, 2, 3, 1).flatten(1, 2)
    codes = model.quantize.embedding.weight.double()
    cosine = F.cosine_similarity(raw[:, :, None], codes[None, None], dim=-1)
    assert torch.equal(tokens, cosine.argmax(-1))


def test_patches_are_cut_row_by_row():
    seen = pictures(2)
    parts = patches.cut(seen, 8)
    assert parts.shape == (2, 16, 192)
    assert torch.equal(parts[1, 6].view(8, 8, 3), seen[1, 8:16, 16:24])


def test_clusters_are_their_members_means_and_blank_is_one():
    seen = pictures(200)
    centres = patches.cluster_patches(seen, 40, 8, seed=0)
    assert centres.shape == (40, 192)
    names = patches.nearest_centres(seen, centres, 8)
    different = patches.cut(seen, 8).flatten(0, 1).unique(dim=0).double()
    nearest = (different[:, None] - centres.double()).square().sum(-1).argmin(-1)
    for cluster in range(40):
        mean = different[nearest == cluster].mean(0)
        torch.testing.assert_close(centres[cluster].double(), mean, rtol=1e-5, atol=1e-3)
    blank = names[(patches.cut(seen, 8) == 255).all(-1)]
    assert len(blank) > 1000
    assert len(blank.unique()) == 1
    assert torch.equal(patches.cluster_patches(seen, 40, 8, seed=0), centres)


def test_there_are_no_more_clusters_than_different_patches():
    two = torch.cat([torch.zeros(1, 32, 32, 3), torch.full((1, 32, 32, 3), 255.0)])
    centres = patches.cluster_patches(two.to(torch.uint8), 64, 8, seed=0)
    assert sorted(centres.mean(-1).tolist()) == [0, 255]


def test_training_the_vq_model_lowers_every_part_of_its_loss(small):
    model = small[0].model.vqmodel
    rows: list[dict[str, float]] = []
    settings = vq.VQSettings(steps=15, batch=8)
    vq.train_vq(model, pictures(32), settings, seed=0, log=rows.append)
    assert rows[-1]["step"] == 15
    for part in ("squared", "absolute", "naming"):
        assert rows[-1][part] < rows[0][part], part
    assert unit(model.quantize.embedding.weight)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def pairs_of(model, processor, n: int) -> warmup.Pairs:
    seen, said = world("shapes").pairs("supervised", n, 0)
    return warmup.prepare_pairs(model, processor, torch.from_numpy(seen), said)


def test_the_losses_are_the_textbook_ones(small):
    """One pair at a time, unpadded, against the batch of mixed lengths."""
    model, processor = small
    pairs = pairs_of(model, processor, 6)
    assert len({len(prompt) for prompt in pairs.prompts}) > 1
    question = layout.understanding_ids(processor)
    pixels = vq.to_pixels(pairs.pictures)
    text: list[torch.Tensor] = []
    image: list[torch.Tensor] = []
    for row in range(6):
        ids = torch.cat([question, pairs.captions[row]])[None]
        logits = model(input_ids=ids, pixel_values=pixels[row : row + 1]).logits[0].double()
        scores = logits[len(question) - 1 : -1].log_softmax(-1)
        text.append(scores.gather(1, pairs.captions[row][:, None])[:, 0])
        embeds = torch.cat(
            [
                model.get_input_embeddings()(pairs.prompts[row]),
                model.prepare_embeddings_for_image_generation(pairs.tokens[row]),
            ]
        )[None]
        hidden = model.model.language_model(inputs_embeds=embeds).last_hidden_state
        hidden = hidden[0, len(pairs.prompts[row]) - 1 : -1]
        scores = model.model.generation_head(hidden).double().log_softmax(-1)
        image.append(scores.gather(1, pairs.tokens[row][:, None])[:, 0])
    found = warmup.understanding_loss(model, question, pixels, pairs.captions)
    torch.testing.assert_close(found.double(), -torch.cat(text).mean(), rtol=1e-5, atol=0)
    found = warmup.generation_loss(model, pairs.prompts, pairs.tokens)
    torch.testing.assert_close(found.double(), -torch.cat(image).mean(), rtol=1e-5, atol=0)


def test_codes_of_patches_are_alike_where_the_patches_are():
    generator = torch.Generator().manual_seed(0)
    # Two patterns, each pale and dark, and each of the four a little changed.
    pattern = 60 * torch.rand(2, 1, 48, generator=generator)
    level = torch.tensor([0.0, 150.0])[None, :, None]
    centres = (pattern + level).repeat_interleave(2, 1).flatten(0, 1)
    centres = centres + torch.rand(8, 48, generator=generator)
    codes = patches.codes_of(centres, 6)
    assert unit(codes)
    cosines = (codes @ codes.T).fill_diagonal_(-1)
    assert cosines.argmax(1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    flat = patches.codes_of(torch.full((3, 48), 7.0), 6)  # no differences, no numbers that are none
    assert flat.isfinite().all()


def test_the_rate_rises_and_falls():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    plan = schedule.up_then_cosine(optimizer, 40)
    rates = []
    for _ in range(40):
        rates.append(plan.get_last_lr()[0])
        optimizer.step()
        plan.step()
    assert rates[:2] == [1.0, 2.0]
    assert all(one > other > 0 for one, other in itertools.pairwise(rates[1:]))
    assert rates[-1] < 0.02


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_twenty_steps_of_warm_up_lower_both_losses_and_spare_the_vq_model(small, optimizer):
    model, processor = small
    pairs = pairs_of(model, processor, 64)
    frozen = {name: value.clone() for name, value in model.model.vqmodel.state_dict().items()}
    question, pixels = layout.understanding_ids(processor), vq.to_pixels(pairs.pictures)

    def measure() -> tuple[float, float]:
        with torch.no_grad():
            said = warmup.understanding_loss(model, question, pixels, pairs.captions)
            drawn = warmup.generation_loss(model, pairs.prompts, pairs.tokens)
        return said.item(), drawn.item()

    before = measure()
    settings = warmup.WarmupSettings(steps=20, batch=16, lr=1e-2, optimizer=optimizer)
    warmup.train_warmup(model, processor, pairs, settings, seed=0, log=lambda row: None)
    after = measure()
    assert after[0] < 0.8 * before[0]
    assert after[1] < 0.95 * before[1]
    assert not any(p.requires_grad for p in model.model.vqmodel.parameters())
    for name, value in model.model.vqmodel.state_dict().items():
        assert torch.equal(value, frozen[name]), name


def test_muon_takes_the_matrices_of_layers_and_adamw_the_rest_once_each(small):
    model, _ = small
    trained = warmup.trainable(model)
    settings = warmup.WarmupSettings(optimizer="muon")
    adamw, muon = (
        [weight for group in one.param_groups for weight in group["params"]]
        for one in warmup._optimizers(model, settings)
    )
    assert {id(one) for one in adamw + muon} == {id(one) for one in trained}
    assert len(adamw) + len(muon) == len(trained)
    layers = model.model.language_model.layers[0]
    assert any(one is layers.mlp.up_proj.weight for one in muon)
    assert any(one is model.lm_head.weight for one in adamw)
    assert any(one is model.get_input_embeddings().weight for one in adamw)


def tiny_recipe(**changes) -> recipe.Recipe:
    return recipe.Recipe(
        world="shapes",
        sizes=SMALL,
        vq=vq.VQSettings(pictures=16, steps=2, batch=4),
        warmup=warmup.WarmupSettings(pairs=16, steps=2, batch=4),
        **changes,
    )


def read_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_whole_recipe_repeats_bit_for_bit_and_goes_on_where_it_was_cut(tmp_path, monkeypatch):
    first = stages.pretrain(tiny_recipe(), tmp_path / "first", quiet=True)
    again = recipe.load_recipe(first / "recipe.yaml")
    assert again == tiny_recipe()

    class Killed(RuntimeError):
        pass

    def die(*args, **kwargs):
        raise Killed

    whole = stages.train_warmup
    monkeypatch.setattr(stages, "train_warmup", die)
    with pytest.raises(Killed):
        stages.pretrain(again, tmp_path / "second", quiet=True)
    assert not (tmp_path / "second").exists()
    monkeypatch.setattr(stages, "train_warmup", whole)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "train_vq", die)  # the finished stage is not done again
        second = stages.pretrain(again, tmp_path / "second", quiet=True)

    digests = [read_log(folder)[-1]["sha256"] for folder in (first, second)]
    assert digests[0] == digests[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    assert JanusForConditionalGeneration.from_pretrained(second).dtype == torch.float32
    assert [row["stage"] for row in read_log(second)] == ["vq", "vq", "warmup", "done"]
    assert (second / "versions.json").is_file()

    other = stages.pretrain(tiny_recipe(seed=2), tmp_path / "other", quiet=True)
    assert read_log(other)[-1]["sha256"] != digests[0]
    with pytest.raises(FileExistsError, match="is not empty"):
        stages.pretrain(tiny_recipe(), first, quiet=True)


def test_nothing_of_the_users_is_replaced_or_deleted(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("a file")
    with pytest.raises(FileExistsError, match="is no folder"):
        stages.pretrain(tiny_recipe(), mine, quiet=True)
    (tmp_path / "new.stages").mkdir()
    (tmp_path / "new.stages" / "notes.txt").write_text("a note")
    with pytest.raises(FileExistsError, match="holds other files"):
        stages.pretrain(tiny_recipe(), tmp_path / "new", quiet=True)
    assert (tmp_path / "new.stages" / "notes.txt").read_text() == "a note"
    assert mine.read_text() == "a file"


def test_a_loss_that_is_not_finite_ends_it_at_once():
    with Journal(quiet=True) as journal, journal.stage("vq", 9) as log:
        log({"step": 1, "loss": 0.5})
        with pytest.raises(ValueError, match="vq, step 2: loss is not finite"):
            log({"step": 2, "loss": float("nan")})


def test_where_nobody_sees_a_bar_a_line_tells_of_each_tenth(capsys):
    with Journal() as journal, journal.stage("vq", 25) as log:
        for step in range(1, 26):
            log({"step": step, "loss": 0.5})
    said = [line for line in capsys.readouterr().err.splitlines() if " of 25 " in line]
    assert len(said) == 10
    assert said[-1].startswith("vq 25 of 25  loss 0.500")


def test_a_bad_recipe_names_the_setting(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("world: shapes\nvq:\n  stepz: 3\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: `vq\.stepz`"):
        recipe.load_recipe(file)
    with pytest.raises(
        FileNotFoundError, match="the ones that come with suder: digits, emoji, shapes"
    ):
        recipe.load_recipe("cats")
    assert recipe.load_recipe("shapes", seed=7).seed == 7


@pytest.mark.parametrize("folder", EMBEDDED.values())
def test_an_embedded_model_is_of_the_packaged_recipe(folder):
    of, seed = folder.split("-")
    made = recipe.load_recipe(ASSETS / folder / "recipe.yaml")
    assert made == recipe.load_recipe(of, seed=int(seed))


@pytest.mark.parametrize(
    ("name", "text"),
    [("shapes", "two red circles and a blue square"), ("emoji", "dog, outlined on blue")],
)
def test_an_embedded_model_writes_its_words_as_they_are_written(name, text):
    model = load_model(name)
    assert model.detokenize(model.tokenize([text])) == [text]
