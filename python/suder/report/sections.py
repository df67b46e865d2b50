"""The report's sections, each a piece of HTML, or "" where the run has nothing to show."""

from __future__ import annotations

import html
import json
from typing import Any

from suder.evaluation.compare import Row, compare
from suder.report import curves, gallery, tables
from suder.report.run_data import RunData

_NAMED = 20  # dropped inputs named in the page
_DECODINGS = {
    "greedy": "Greedy decoding: the most likely token, always",
    "sampled": "Sampled at temperature 1",
}


def headline(run: RunData) -> str:
    """What came out, in two numbers; or that nobody has judged it yet."""
    summary = run.summary
    done = summary.get("rounds", sum(row["round"] > 0 for row in run.rounds))
    facts = [f"start model <b>{html.escape(run.setting('model'))}</b>", f"{done} rounds"]
    facts.append(f"objective <b>{html.escape(run.setting('objective.name'))}</b>")
    facts.append(f"directions <b>{html.escape(run.setting('directions'))}</b>")
    if "seconds" in summary:
        facts.append(f"{summary['seconds'] / 60:.1f} minutes of training")
    if "kept_round" in summary:
        facts.append(f"weights of round {summary['kept_round']} kept")
    name = html.escape(run.folder.resolve().name)
    head = f"<h1>Self-improvement run “{name}”</h1><p class='quiet'>{' · '.join(facts)}</p>"
    if not summary:
        head += '<p class="note">This run is not finished.</p>'
    for decoding in _DECODINGS:
        rows = _rows(run, decoding)
        if rows:
            return head + _section(tables.cards(rows, decoding), _p(tables.verdict(rows)))
    command = f"<code>suder evaluate {html.escape(str(run.folder))}</code>"
    return head + _section(
        '<p class="note">Not evaluated: nothing on this page says whether the model got better. '
        f"{command} judges it on held-out inputs; then write this report again.</p>"
    )


def results(run: RunData) -> str:
    """The tables, per category, with intervals."""
    shown = {name: rows for name in _DECODINGS if (rows := _rows(run, name))}
    if not shown:
        return ""
    split = html.escape(str(run.summary.get("evaluation", {}).get("split", "test")))
    first = next(iter(shown.values()))
    tabled = [
        f"<details{' open' if rows is first else ''}><summary>{_DECODINGS[name]}</summary>"
        f"{tables.table(rows)}</details>"
        for name, rows in shown.items()
    ]
    return _section(
        "<h2>Base against tuned</h2>",
        _p(
            "Both models answer the same inputs with the same seeds, and an exact checker that no "
            "training code can import judges them. Differences are paired item by item; the 95% "
            "intervals are bootstrapped over whole combinations of things. Inputs are of the split "
            f"<b>{split}</b>."
        ),
        _chart(curves.category_bars(first), "accuracy by category"),
        *tabled,
    )


def pictures(run: RunData) -> str:
    """The first prompts with both models' pictures."""
    pair = _pair(run, "sampled") or _pair(run, "greedy")
    if pair is None:
        return ""
    how = "greedy" if pair[0].settings["greedy"] else "sampled with the same random numbers"
    return _section(
        "<h2>Pictures, before and after</h2>",
        _p(
            f"The first prompts of the evaluation, {how}; none was picked. Left the base model, "
            "right the tuned one; the mark is the checker's."
        ),
        gallery.picture_gallery(*pair),
    )


def captions(run: RunData) -> str:
    """The first pictures with both models' captions."""
    pair = _pair(run, "greedy") or _pair(run, "sampled")
    if pair is None:
        return ""
    return _section(
        "<h2>Captions, before and after</h2>",
        _p(
            "The first pictures of the evaluation; none was picked. A caption is right when it is "
            "a sentence, true of the picture, and leaves no thing out."
        ),
        gallery.caption_table(*pair),
    )


def training(run: RunData) -> str:
    """Curves of the training samples."""
    if not any("reward/generation" in row or "reward/understanding" in row for row in run.rounds):
        return ""
    return _section(
        "<h2>Training</h2>",
        _p(
            "The dual reward of a picture is the mean log-likelihood of its prompt given the "
            "picture; of a caption, that of the picture's tokens given the caption. Both come from "
            "the model itself, so their rise alone proves nothing; the judged tables do. Faint: "
            "each round; strong: running mean."
        ),
        _chart(curves.training_curves(run), "rewards, KL, gradient norms and entropy by round"),
    )


def guard(run: RunData) -> str:
    """What the label-free guard saw and did."""
    if not any("guard/kl/generation" in row for row in run.rounds):
        return _section("<h2>Guard</h2>", _p("The guard was off: the last weights were kept."))
    chart = _chart(curves.guard_curves(run), "what the guard saw")
    return _section("<h2>Guard</h2>", _p(_guard_words(run)), chart)


def dropped(run: RunData) -> str:
    """What was left out, counted and named."""
    if not run.dropped:
        return _section("<h2>Left out</h2>", _p("Nothing: every input and candidate was used."))
    rows = "".join(
        f"<tr><td>{row.get('round', 'before')}</td><td>{html.escape(str(row['input']))}</td>"
        f"<td>{html.escape(str(row['why']))}</td></tr>"
        for row in run.dropped[:_NAMED]
    )
    inputs = sum("round" not in row for row in run.dropped)
    more = len(run.dropped) - _NAMED
    return _section(
        "<h2>Left out</h2>",
        _p(
            f"{inputs} inputs before training, {len(run.dropped) - inputs} candidates or inputs "
            "during it. All of them are in <code>data/dropped.jsonl</code>."
        ),
        f"<table><tr><th>round</th><th>input</th><th>why</th></tr>{rows}</table>",
        f"<p class='quiet'>and {more} more</p>" if more > 0 else "",
    )


def settings(run: RunData) -> str:
    """Everything needed to run it again."""
    versions = html.escape(json.dumps(run.versions, indent=1))
    return _section(
        "<h2>Settings and versions</h2>",
        f"<details><summary>settings</summary><pre>{html.escape(run.config)}</pre></details>",
        f"<details><summary>versions</summary><pre>{versions}</pre></details>",
    )


def _section(*parts: str) -> str:
    return f"<section>{''.join(parts)}</section>\n"


def _p(text: str) -> str:
    return f"<p>{text}</p>"


def _chart(data: str, alt: str) -> str:
    return f'<img class="chart" alt="{alt}" src="{data}">'


def _pair(run: RunData, decoding: str) -> tuple[Any, Any] | None:
    base, tuned = (run.evaluations.get((side, decoding)) for side in ("base", "tuned"))
    return None if base is None or tuned is None else (base, tuned)


def _rows(run: RunData, decoding: str) -> list[Row]:
    told: list[Row] = run.summary.get("evaluation", {}).get(decoding, [])
    pair = _pair(run, decoding)
    return told or (compare(*pair) if pair else [])


def _guard_words(run: RunData) -> str:
    summary = run.summary
    state = summary.get("guard") or {}
    looks = sum("guard/kl/generation" in row for row in run.rounds)
    words = [f"Without labels, it looked {looks} times at inputs kept from training."]
    if "kept_round" in summary:
        kept, rounds = summary["kept_round"], summary["rounds"]
        words.append(f"It kept the weights of round {kept} of {rounds}.")
    if summary.get("kept_round") == 0:
        words.append("That is the start model: nothing later was worth keeping.")
    if state.get("rollbacks"):
        words.append(f"It rolled the run back {state['rollbacks']} times.")
    if summary.get("stopped"):
        words.append(f"It stopped the run: {html.escape(str(summary['stopped']))}.")
    elif state.get("declines"):
        words.append(f"Its last look was a decline: {html.escape(str(state['note']))}.")
    return " ".join(words)
