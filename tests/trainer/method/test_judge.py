"""The model's own yes or no, beside transformers' forward on one question at a time, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from PIL import Image

import suder
from suder.method import answers as answering
from suder.method.answers import Answers, answers_of
from suder.method.judge import WORDS, SelfJudge
from suder.models import load_model
from suder.settings.given import Prompts
from tests.tolerances import TOLERANCES
from tests.trainer.families import CODES

BATCH = TOLERANCES["batch", "cpu", torch.float32]
JUDGED = TOLERANCES["judge", "cpu", torch.float32]
TEXTS = [
    "a red circle", "A red circle. ", "", "two", "a blue square left of a green circle", "and red",
    "red " * 300, "a red circle",
]  # fmt: skip


@pytest.fixture(scope="module")
def drawn():
    return torch.randint(CODES, (8, 16), generator=torch.Generator().manual_seed(2))


def oracle(model, images, texts):
    """p of the words yes over those of both words, by all logits of the whole sequence."""
    core = copy.deepcopy(model.core).double()
    pixels = model.pixels(images)
    codes = model.encode(pixels)
    words = {w: model.tokenizer.convert_tokens_to_ids(w) for w in ("yes", "no", "Yes", "No")}
    lower = getattr(model.tokenizer.backend_tokenizer.normalizer, "normalize_str", str)("Y") == "y"
    words = {w: i for w, i in words.items() if not (lower and w[0].isupper())}
    values = []
    for row, text in enumerate(texts):
        if not text.strip() or len(text.split()) > 100:
            values.append(torch.nan)
            continue
        asked = model.asks["judge"].replace("{text}", text.strip().rstrip("."))
        ids = model.question_ids(asked)[None]
        if model.reads_tokens:
            ids[0, model.prompts.picture] = model.parts.picture_ids(codes[row : row + 1])[0]
            logits = core(input_ids=ids).logits
        else:
            logits = core(input_ids=ids, pixel_values=pixels[row : row + 1].double()).logits
        p = logits[0, -1].softmax(-1)
        yes, no = (sum(p[i] for w, i in words.items() if w.lower() == one) for one in ("yes", "no"))
        values.append(float(yes / (yes + no)))
    return torch.tensor(values, dtype=torch.float64)


@torch.no_grad()
def test_the_answer_is_that_of_all_logits(judging_model, pictures):
    images = [pictures[i % 4] for i in range(8)]
    ours = SelfJudge(judging_model)(images, TEXTS)
    expected = oracle(judging_model, images, TEXTS)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), expected, **JUDGED, equal_nan=True)
    assert ours.isnan().tolist() == [i in (2, 6) for i in range(8)]
    assert 0.0 <= ours.nanmean() <= 1.0
    assert ours[~ours.isnan()].std() > 0.02


@torch.no_grad()
def test_words_in_pieces_are_read_up_to_where_they_differ(judging_model, pictures):
    """Of both words that begin with one piece: p of each whole word, by teacher forcing."""
    model, judge = judging_model, SelfJudge(judging_model)
    first, yes, no = (int(model.tokenize([word])[0][0]) for word in ("red", "yes", "no"))
    judge.answers = Answers([first], [[yes], [no]])
    asked = [judge.question("a red circle")] * 4
    both = []
    for word in (yes, no):
        targets = [torch.tensor([first, word])] * 4
        found = model("understanding", model.pixels(pictures), targets, questions=asked)
        logits = found.hidden.double() @ found.weight.double().T
        both.append(logits.log_softmax(-1).gather(1, found.target[:, None]).view(4, 2).sum(1).exp())
    expected = both[0] / (both[0] + both[1])
    ours = judge(pictures, ["a red circle"] * 4)
    torch.testing.assert_close(ours.double(), expected, **JUDGED)


@pytest.mark.parametrize("limit", [{}, {"batch_size": 3}, {"tokens_per_batch": 1}])
def test_every_form_in_every_batch_gives_the_same(judging_model, pictures, drawn, limit):
    judge = SelfJudge(judging_model, **limit)
    texts = TEXTS[:5]
    shared = SelfJudge(judging_model)(pictures[:2], texts[:4], group=2)
    alone = torch.cat(
        [judge(pictures[i // 2 : i // 2 + 1], [text]) for i, text in enumerate(texts[:4])]
    )
    torch.testing.assert_close(shared, alone, **BATCH, equal_nan=True)
    for images in (
        [pictures[0], pictures[0], pictures[1], pictures[1]],
        [Image.fromarray(picture) for picture in pictures[:2]],
        judging_model.pixels(pictures[:2]),
    ):
        got = judge(images, texts[:4], group=1 if len(images) == 4 else 2)
        torch.testing.assert_close(got, shared, **BATCH, equal_nan=True)
    shown = judging_model.decode(drawn)  # eight drawings of two texts
    asked = ["a red circle", "two"]
    if judging_model.reads_tokens:
        drawn = judging_model.encode(judging_model.pixels(shown))
    expected = SelfJudge(judging_model)(shown.numpy(), [asked[i // 4] for i in range(8)])
    torch.testing.assert_close(judge(drawn, asked, group=4), expected, **BATCH)


def test_a_picture_is_read_once_for_all_its_questions(judging_model, pictures):
    rows, columns = [], []

    def seen(_, args, kwargs):
        rows.append(kwargs["inputs_embeds"].shape[0])
        columns.append(kwargs["inputs_embeds"].shape[:2].numel())

    module = judging_model.parts.language_model
    handle = module.register_forward_pre_hook(seen, with_kwargs=True)
    texts = ["a red circle", "two", "a green circle", "a red circle", "two"]
    SelfJudge(judging_model)(pictures[:1], texts, group=5)
    assert sum(rows) in (1, 3)  # equal pairs once, and side by side where that is less work
    assert len(rows) == 1
    columns.clear()
    few = SelfJudge(judging_model, tokens_per_batch=90)
    few([pictures[i] for i in (0, 1, 2, 3)], texts[:4])
    handle.remove()
    assert len(columns) > 1
    assert max(columns) <= 90


def test_the_answer_goes_through_the_op_with_the_rows_of_its_words(
    judging_model, pictures, monkeypatch
):
    shapes = []
    real = answering.linear_logprob

    def spy(hidden, weight, target, bias):
        shapes.append(tuple(weight.shape))
        return real(hidden, weight, target, bias)

    monkeypatch.setattr(answering, "linear_logprob", spy)
    judge = SelfJudge(judging_model)
    judge(pictures, ["a red circle"] * 4)
    words = sum(map(len, judge.answers.options))
    assert {rows for rows, _ in shapes} == {words}


@pytest.mark.parametrize("name", ["shapes", "shapes-2"])
def test_a_model_without_the_words_says_which(name, drawn):
    judge = SelfJudge(load_model(name))
    assert "'Does'" in judge.unavailable
    assert "its vocabulary lacks" in judge.unavailable
    with pytest.raises(ValueError, match=r"judge: .* cannot be asked 'Does this picture show"):
        judge(drawn[:1], ["a red circle"])


def test_another_question_is_another_answer(judging_model, pictures):
    usual = SelfJudge(judging_model)
    other = SelfJudge(judging_model, template="Was {text} no? yes")
    assert "'Was'" in other.unavailable
    other = SelfJudge(judging_model, template="show {text}?")
    assert not other.unavailable
    texts = ["a red circle"] * 4
    assert (other(pictures, texts) - usual(pictures, texts)).abs().max() > 1e-3
    for template in ("show it", "{text} {text}"):
        with pytest.raises(ValueError, match=r"takes a question with \{text\} in it once"):
            SelfJudge(judging_model, template=template)
        with pytest.raises(ValueError, match="in it once"):
            Prompts(judge=template)


def test_a_run_asks_what_its_settings_say(make_janus):
    model = make_janus(judge="a {text}?")
    assert model.asks["judge"] == "a {text}?"
    assert SelfJudge(model).template == "a {text}?"


def test_what_does_not_fit_together_is_named(judging_model, pictures):
    judge = SelfJudge(judging_model)
    with pytest.raises(ValueError, match="images: 3 pairs in groups of 1 take 3 or 3 images"):
        judge(pictures[:2], ["two"] * 3)
    with pytest.raises(ValueError, match="pairs: 4 of them are no whole number of groups of 3"):
        judge(pictures, ["two"] * 4, group=3)
    with pytest.raises(ValueError, match="batch_size: takes an integer from 1, got 0"):
        SelfJudge(judging_model, batch_size=0)
    assert judge(pictures[:0], []).shape == (0,)
    assert judge(pictures[:2], ["", " . "]).isnan().all()


def test_a_model_that_is_not_finite_gives_none(fresh_model_that_judges, pictures):
    model = fresh_model_that_judges
    judge = SelfJudge(model)
    assert (
        not model("understanding", model.pixels(pictures), model.tokenize(["two"] * 4))
        .hidden.isnan()
        .any()
    )
    model.parts.last_layer("understanding")[0].data[judge.answers.options[1][0], 2] = torch.nan
    assert judge(pictures, ["two"] * 4).isnan().all()


@torch.no_grad()
def test_products_in_16_bits_are_those_of_the_copy(judging_model, pictures, monkeypatch):
    twin = judging_model.frozen_copy()
    twin.compute = torch.bfloat16
    ours = SelfJudge(twin)(pictures, TEXTS[:2] * 2)
    exact = SelfJudge(judging_model)(pictures, TEXTS[:2] * 2)
    monkeypatch.setattr(answering, "to_sample_with", lambda model: model)
    assert torch.equal(ours, SelfJudge(twin)(pictures, TEXTS[:2] * 2))
    assert 0 < (ours - exact).abs().max() < 0.1


@pytest.fixture
def fresh_model_that_judges(judging_model):
    return judging_model.frozen_copy()


class Spelled:
    """As much of an adapter as words need, over a table of their ids."""

    def __init__(self, table):
        self.table = table

    def tokenize(self, texts):
        return [torch.tensor([*self.table.get(text, [0]), 99]) for text in texts]

    def detokenize(self, ids):
        back = {tuple(row): word for word, row in self.table.items()}
        return [back.get(tuple(row[:-1].tolist()), "") for row in ids]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"Yes": [1], "No": [2], "yes": [3], "no": [4]}, ([], [[1, 3], [2, 4]])),
        ({"yes": [3], "no": [4]}, ([], [[3], [4]])),
        ({"Yes": [3], "No": [4], "yes": [3], "no": [4]}, ([], [[3], [4]])),  # of one case
        ({"Yes": [7, 1, 2], "No": [7, 5]}, ([7], [[1], [5]])),  # a blank, then letters
        ({"Yes": [7, 1], "No": [7, 5], "yes": [3], "no": [4]}, ([], [[3], [4]])),
        (
            {"Yes": [1, 8], "No": [2], "yes": [2, 9], "no": [4]},
            ([], [[1], [2]]),
        ),  # yes begins as No
        ({"yes": [3], "no": [3, 4]}, None),
        ({"yes": [3]}, None),
    ],
)
def test_words_in_pieces_are_told_apart_by_the_first_that_differs(table, expected):
    found = answers_of(Spelled(table), WORDS)
    assert (None if found is None else tuple(found)) == expected


def test_it_is_public():
    assert suder.SelfJudge is SelfJudge
