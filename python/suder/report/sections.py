"""What each section of the page shows, as values for the template; words, numbers, no HTML."""

from __future__ import annotations

from typing import Any

from suder.evaluation.compare import Row, compare
from suder.evaluation.grammar import parse
from suder.evaluation.result import Evaluation
from suder.report import curves, drift, gallery, tables
from suder.report.run_data import RunData
from suder.report.strips import strips, watched_prompts
from suder.storage.shown import counted

_NAMED = 20  # dropped inputs named in the page
_DECODINGS = {
    "greedy": "Greedy decoding: the most likely token, always",
    "sampled": "Sampled at temperature 1",
}


def headline(run: RunData) -> dict[str, Any]:
    """The run's name and facts."""
    summary = run.summary
    done = summary.rounds if summary else None
    if done is None:
        done = sum(row["round"] > 0 for row in run.rounds)
    facts = [
        ("start model", run.setting("model")),
        (counted(done, "round"), ""),
        ("objective", run.setting("objective.name")),
        ("directions", run.setting("directions")),
    ]
    if summary and summary.seconds is not None:
        facts.append((f"{summary.seconds / 60:.1f} minutes of training", ""))
    kept = summary.kept_round if summary else None
    if kept is not None:
        facts.append((f"weights of round {kept} kept", ""))
    return {"name": run.folder.resolve().name, "facts": facts, "kept_round": kept}


def results(run: RunData) -> dict[str, Any]:
    """The comparisons there are, greedy before sampled."""
    told = run.summary.evaluation if run.summary else None
    elsewhere = on_other_inputs(run)
    shown = {name: rows for name in _DECODINGS if not elsewhere and (rows := _rows(run, name))}
    comparisons = [
        {
            "decoding": name,
            "title": _DECODINGS[name],
            "totals": tables.totals(rows),
            "verdict": tables.verdict(rows),
            "lines": [tables.line(row) for row in rows],
        }
        for name, rows in shown.items()
    ]
    return {
        "comparisons": comparisons,
        "elsewhere": elsewhere,
        "titles": tables.TITLES,
        "split": told.split if told else "test",
        "category_bars": curves.category_bars(next(iter(shown.values()))) if shown else "",
    }


def pictures(run: RunData) -> dict[str, Any]:
    """The first prompts with both models' pictures."""
    pair = _pair(run, "sampled") or _pair(run, "greedy")
    greedy = pair is not None and pair[0].settings["greedy"]
    return {
        "pictures": gallery.picture_gallery(*pair) if pair else [],
        "pictures_how": "greedy" if greedy else "sampled with the same random numbers",
    }


def captions(run: RunData) -> dict[str, Any]:
    """The first pictures with both models' captions."""
    pair = _pair(run, "greedy") or _pair(run, "sampled")
    return {"captions": gallery.caption_table(*pair) if pair else []}


def training(run: RunData) -> dict[str, Any]:
    """Curves of the training samples."""
    names = ("reward/generation", "reward/understanding")
    there = any(name in row for row in run.rounds for name in names)
    return {"training_curves": curves.training_curves(run) if there else ""}


def guard(run: RunData) -> dict[str, Any]:
    """What the label-free guard saw and did."""
    there = any("guard/kl/generation" in row for row in run.rounds)
    return {
        "guard_curves": curves.guard_curves(run) if there else "",
        "statistic_curves": drift.statistic_curves(run),
        "guard_words": _guard_words(run),
    }


def heldout(run: RunData) -> dict[str, Any]:
    """The run's own held-out inputs over the rounds, with their rewards."""
    kept = run.summary.kept_round if run.summary else None
    last = [row for row in run.rounds if kept is None or row["round"] == kept][-1:]
    said = []
    for direction, name in (("generation", "pictures"), ("understanding", "captions")):
        for row in last:
            gain, error = (row.get(f"guard/{one}/{direction}") for one in ("gain", "error"))
            if gain is not None and row["round"] > 0:
                noise = "" if error is None else f", standard error {error:.3f}"
                said.append(
                    f"Reward of {name} of all held-out inputs at round {row['round']}, against the "
                    f"start's: {gain:+.3f}{noise}."
                )
    return {"heldout": said, **strips(run)}


def suites(run: RunData) -> dict[str, Any]:
    """Other people's questions, base and tuned side by side."""
    return {
        "suites": [
            {
                "title": one.suite,
                "of": f"{one.questions} questions of {one.file}, answered by {one.by}"
                + (f"; {one.left_out} left out" if one.left_out else ""),
                "lines": [tables.counted(row) for row in one.rows],
            }
            for one in run.suites
        ]
    }


def dropped(run: RunData) -> dict[str, Any]:
    """What was left out, counted and named."""
    before = sum(row.round is None for row in run.dropped)
    return {
        "dropped": run.dropped[:_NAMED],
        "dropped_before": before,
        "dropped_during": len(run.dropped) - before,
        "dropped_more": len(run.dropped) - _NAMED,
    }


def settings(run: RunData) -> dict[str, Any]:
    """Everything needed to run it again."""
    return {"config": run.config, "versions": run.versions}


def on_other_inputs(run: RunData) -> bool:
    """Whether there is an evaluation on the shapes world of a run whose prompts are not of it."""
    told = run.summary.evaluation if run.summary else None
    if not (told or run.evaluations) or (told and told.world != "shapes"):
        return False
    return any(parse(prompt) is None for prompt in watched_prompts(run))


def _pair(run: RunData, decoding: str) -> tuple[Evaluation, Evaluation] | None:
    if on_other_inputs(run):
        return None
    base, tuned = (run.evaluations.get((side, decoding)) for side in ("base", "tuned"))
    return None if base is None or tuned is None else (base, tuned)


def _rows(run: RunData, decoding: str) -> list[Row]:
    told = run.summary.evaluation if run.summary else None
    if told and (rows := told.rows(decoding)):
        return rows
    pair = _pair(run, decoding)
    if pair is None:
        return []
    try:
        return compare(*pair)
    except (ValueError, KeyError) as error:
        run.notes.add(f"{run.folder / 'evaluation'}: not compared: {error}")
        return []


def _guard_words(run: RunData) -> str:
    looks = sum("guard/kl/generation" in row for row in run.rounds)
    words = [f"Without labels, it looked {counted(looks, 'time')} at inputs kept from training."]
    summary = run.summary
    if summary is None:
        return words[0]
    kept, state = summary.kept_round, summary.guard
    if kept is not None:
        of = "" if summary.rounds is None else f" of {summary.rounds}"
        words.append(f"It kept the weights of round {kept}{of}.")
    if kept == 0:
        words.append("That is the start model: nothing later was worth keeping.")
    if state and state.rollbacks:
        words.append(f"It rolled the run back {counted(state.rollbacks, 'time')}.")
    if summary.stopped:
        words.append(f"It stopped the run: {summary.stopped}.")
    elif state and state.declines:
        words.append(f"Its last look was a decline: {state.note}.")
    return " ".join(words)
