"""Settings of what a run is given, and of what its model is asked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, model_validator

from suder.settings.fields import NonNegative, PathText, Positive, Section, says


def _asks_about_a_text(question: str) -> str:
    if question.count("{text}") != 1:
        raise ValueError(f"takes a question with {{text}} in it once, got {question!r}")
    return question


class Data(Section):
    images: Annotated[PathText, says("folder of pictures, searched recursively; no labels needed")]
    prompts: Annotated[PathText, says("text file, one prompt a line")]
    follow_links: Annotated[
        bool, says("read symbolic links that lead out of the folder of pictures, too")
    ] = False
    heldout: Annotated[
        float,
        says(
            "fraction of both kept from training for the guard to watch, guard.inputs of each at "
            "most; where that is fewer than 8 different ones, all are trained on and all are "
            "watched",
            ge=0,
            lt=1,
        ),
    ] = 0.25
    rollouts: Annotated[
        PathText | None,
        says(
            "Parquet file of rollouts, or folder of such: a run learns from them, and samples "
            "nothing but the guard's looks. images and prompts may be left out: theirs are taken"
        ),
    ] = None
    pairing: Annotated[
        bool,
        says(
            "prompts are the pictures' own texts, x.txt beside x.png or {file_name, text} in a "
            "metadata.jsonl, and a round has captions of a picture and drawings of its text; "
            "prompts may be left out, or name such a file of JSON lines"
        ),
    ] = False
    replay: Annotated[
        NonNegative,
        says(
            "inputs of each direction, at most, that a round takes up again besides its own, of "
            "those whose candidates were all dropped or all of one reward; 0: none"
        ),
    ] = 0

    @model_validator(mode="before")
    @classmethod
    def _taken(cls, tree: Any) -> Any:
        """Inputs that nobody names: those of the rollouts, or the pictures' own texts."""
        if isinstance(tree, dict) and isinstance(tree.get("rollouts"), str):
            return {"images": tree["rollouts"], "prompts": tree["rollouts"]} | tree
        if isinstance(tree, dict) and tree.get("pairing") is True and "images" in tree:
            return {"prompts": tree["images"]} | tree
        return tree


class Prompts(Section):
    """Keyword arguments of a model's adapter. Null is the model's own, as its adapter tells it."""

    question: Annotated[
        str | None,
        says('what is asked about a picture; null: the model\'s own, "Describe the image."'),
    ] = None
    system_prompt: Annotated[
        str | None,
        says(
            "what stands before the question; null: what the checkpoint's processor puts there "
            '(the published Janus-Pro have a default system prompt); "": nothing'
        ),
    ] = None
    null_prompt: Annotated[
        str | None,
        says(
            "guidance's unconditional prompt. Janus: padded, each prompt with padding for its "
            "words, as it was trained, or fixed, the same for all, which does not tell the "
            "prompt's length; Emu3, Liquid: any text, such as what is not wanted; null: the "
            "model's own, padded for Janus"
        ),
    ] = None
    judge: Annotated[
        Annotated[str, AfterValidator(_asks_about_a_text)] | None,
        says(
            "what is asked about a picture and a text, {text}, to be answered by yes or no "
            "(suder.SelfJudge); null: the family's, for Janus \"Does this picture show {text}? "
            'Answer yes or no."'
        ),
    ] = None
    image_size: Annotated[
        Positive | None,
        says(
            "side of a picture in pixels, of a model that draws in any size (Emu3, Liquid), which "
            "then is saved with it; null: the model's own"
        ),
    ] = None
