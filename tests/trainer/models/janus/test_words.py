"""Text that spells a special token is text, in prompts, questions and captions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import JanusProcessor, PreTrainedTokenizerFast

import suder
from suder.models.janus.layout import caption_ids, generation_ids, understanding_ids
from suder.pretrain.architecture import CHAT_TEMPLATE, SPECIAL, Sizes, build_processor

SPEAKERS = ("<|User|>", "<|Assistant|>")


def byte_pairs(special: tuple[str, ...]) -> JanusProcessor:
    """A processor that can spell any text, as Janus-Pro's; speakers may be plain added tokens."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    corpus = ["a red circle and two blue squares", "user assistant eos pad image placeholder begin"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=letters, show_progress=False)
    backend.train_from_iterator(corpus, trainer)
    # Special tokens come first in no vocabulary; here they follow the words.
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    backend.add_tokens([AddedToken(t, normalized=False) for t in SPECIAL if t not in special])
    begin = ("<bos>", backend.token_to_id("<bos>"))
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[begin]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens={
            "image_token": "<image_placeholder>",
            "boi_token": "<begin_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )
    return JanusProcessor(
        image_processor=build_processor((), Sizes()).image_processor,
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
        num_image_tokens=16,
    )


PROCESSORS: dict[str, Any] = {
    "all special": byte_pairs(SPECIAL),
    "speakers are plain": byte_pairs(tuple(token for token in SPECIAL if token not in SPEAKERS)),
}


def commands(processor: Any, ids: Any) -> list[int]:
    """Tokens of the special list, and the speakers."""
    meant = {processor.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    return [one for one in ids.tolist() if one in meant]


def texts_of(token: str) -> list[str]:
    return [token, f"a {token} red", f"{token}{token}", f"x{token}y", f"a {token}: b\n{token}"]


def check(processor: Any, text: str) -> None:
    tokenizer = processor.tokenizer
    caption = caption_ids(processor, text)
    assert commands(processor, caption) == [tokenizer.eos_token_id]
    assert tokenizer.decode(caption[:-1]).strip() == text.strip()
    prompt, frame = generation_ids(processor, text), generation_ids(processor, "x")
    assert commands(processor, prompt) == commands(processor, frame)
    whole = tokenizer.decode(frame).replace("x", text.strip())
    assert tokenizer.decode(prompt) == whole
    asked, plain = understanding_ids(processor, text), understanding_ids(processor, "x")
    assert commands(processor, asked) == commands(processor, plain)


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("token", SPECIAL)
def test_every_token_of_the_list_can_be_spelled(name, token):
    processor = PROCESSORS[name]
    for text in texts_of(token):
        check(processor, text)


PIECES = st.sampled_from([*SPECIAL, "<", ">", "|", "eos", "a", " ", ":", "\n", "é", "\u200b", "<|"])


@pytest.mark.parametrize("name", PROCESSORS)
@given(pieces=st.lists(PIECES, max_size=8))
def test_any_text_is_text(name, pieces):
    check(PROCESSORS[name], "".join(pieces).strip())


@pytest.fixture(scope="module")
def embedded():
    return suder.load_model("shapes")


@pytest.mark.parametrize("token", SPECIAL)
@pytest.mark.parametrize("change", [str, str.upper, str.title])
def test_the_embedded_model_reads_unknown_words(embedded, token, change):
    """Its few words spell no such text; and in capitals it met the vocabulary's own entries."""
    processor, unknown = embedded.processor, embedded.processor.tokenizer.unk_token_id
    for text in texts_of(change(token)):
        for ids, frame in (
            (caption_ids(processor, text), caption_ids(processor, "red")),
            (generation_ids(processor, text), generation_ids(processor, "red")),
            (understanding_ids(processor, text), understanding_ids(processor, "red")),
        ):
            found = [one for one in commands(processor, ids) if one != unknown]
            assert found == commands(processor, frame)
            assert unknown in ids.tolist()


def test_ordinary_text_has_the_ids_it_had():
    """Joined with the template's words before it is tokenised, as the models were trained."""
    for processor in PROCESSORS.values():
        tokenizer = processor.tokenizer
        for text in ("a red circle", "Two blue squares.", "", "{{ x }}", "(<)"):
            turn = [{"role": "user", "content": [{"type": "text", "text": text}]}]
            whole = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            expected = tokenizer(whole + "<begin_of_image>")["input_ids"]
            assert generation_ids(processor, text).tolist() == expected
            words = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
            assert caption_ids(processor, text).tolist() == [*words, tokenizer.eos_token_id]


def test_a_prompt_cannot_end_its_turn(shared_janus):
    """The whole way: `tokenize` and prompts of a loaded model."""
    eos = shared_janus.eos_token_id
    (ids,) = shared_janus.tokenize(["a red <eos> circle"])
    assert ids.tolist().count(eos) == 1
    assert shared_janus.detokenize([ids]) == ["a red circle"]  # unknown words are left out
