"""The scorecard as Markdown and as one HTML page that asks nothing of the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longalign_core.evaluation import pictures
from longalign_core.evaluation.scorecard import CaseResult, Scorecard, SuiteScore
from longalign_core.page_frame import render_page, score

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_CASES_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture (one <svg> element of ours, not to be escaped) with its title and caption."""

    title: str
    picture: str
    caption: str


def as_html(card: Scorecard) -> str:
    """One page: figures, pictures and texts, readable by day and by night, without a request."""
    figures = {suite.name: _suite_figure(suite) for suite in card.suites}
    return render_page(
        _TEMPLATE,
        card=card,
        suite_figures={name: figure for name, figure in figures.items() if figure},
        cases={suite.name: cases_shown(suite, _CASES_SHOWN) for suite in card.suites},
        lengths=_lengths_figure(card),
        packs=_packs_figure(card),
        loss=_loss_figure(card),
    )


def as_markdown(card: Scorecard) -> str:
    """Headline scores, gate, what was left unscored and what was rejected, for terminals and reviews."""
    lines = [f"# Scorecard: {card.name}", ""]
    if card.notice:
        lines += [f"> {' '.join(card.notice.split())}", ""]
    lines += [
        "| suite | mean | 95 % interval | scale | questions | unscored |",
        "|---|---|---|---|---|---|",
    ]
    for suite in card.suites:
        estimate, scale = suite.estimate, suite.scale
        interval = "–" if estimate.low is None else f"{score(estimate.low)} to {score(estimate.high)}"
        lines.append(
            f"| {suite.name} | {score(estimate.mean)} | {interval} | {scale.minimum:g} to {scale.maximum:g} "
            f"| {len(suite.cases)} | {estimate.num_unscored} |"
        )
    lines += ["", _gate_sentence(card), ""]
    for suite in card.suites:
        if suite.unscored_reasons:
            lines += [f"Unscored verdicts of {suite.name}:", ""]
            lines += [f"- {_cell(reason)}: {count}" for reason, count in suite.unscored_reasons.items()] + [""]
    if card.packing:
        lines += [f"Packing: {card.packing.num_packs:,} packs, {card.packing.utilisation:.1%} of their room used.", ""]
    if card.training and len(card.training.losses):
        losses = card.training.losses
        lines += [f"Training: {len(losses):,} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}.", ""]
    if card.rejects:
        lines += ["| rejected by | reason | records |", "|---|---|---|"]
        lines += [f"| {_cell(one.stage)} | {_cell(one.reason)} | {one.count:,} |" for one in card.rejects] + [""]
    return "\n".join(lines)


def cases_shown(suite: SuiteScore, limit: int) -> tuple[CaseResult, ...]:
    """At most `limit` questions, evenly from the unscored and the worst to the best."""
    ranked = sorted(suite.cases, key=lambda case: (case.score is not None, case.score or 0.0, case.answer.question_id))
    if len(ranked) <= limit:
        return tuple(ranked)
    return tuple(ranked[round(place * (len(ranked) - 1) / (limit - 1))] for place in range(limit))


def _suite_figure(suite: SuiteScore) -> Figure | None:
    attributes = [case.answer.attributes for case in suite.cases]
    if attributes and all("length" in given and "depth" in given for given in attributes):
        cells = {
            (int(case.answer.attributes["length"]), float(case.answer.attributes["depth"])): case.score
            for case in suite.cases
        }
        caption = (
            "1 means the needle's words are in the reply, 0 that they are not, – that there was no reply to score."
        )
        title = f"{suite.name}: found or not, by depth and length"
        return Figure(title=title, picture=pictures.needle_heatmap(cells), caption=caption)
    scores = [case.score for case in suite.cases if case.score is not None]
    if not scores:
        return None
    picture = pictures.score_histogram(scores, suite.scale.minimum, suite.scale.maximum)
    title = f"{suite.name}: scores of its questions"
    return Figure(title=title, picture=picture, caption="A question's score is the mean of its verdicts.")


def _lengths_figure(card: Scorecard) -> Figure | None:
    if card.sequences is None or not len(card.sequences.lengths):
        return None
    lengths = card.sequences.lengths
    caption = (
        f"{len(lengths):,} sequences, {int(lengths.sum()):,} tokens, of which {card.sequences.num_targets:,} are "
        f"targets that the loss counts; shortening took {card.sequences.num_cut:,} tokens away."
    )
    return Figure(title="Length of the training sequences", picture=pictures.length_histogram(lengths), caption=caption)


def _packs_figure(card: Scorecard) -> Figure | None:
    if card.packing is None:
        return None
    plan = card.packing
    shown = f"the first {len(plan.packs)} of them" if len(plan.packs) < plan.num_packs else "all of them"
    caption = (
        f"{plan.num_packs:,} packs over all epochs use {plan.utilisation:.1%} of their room; {shown} are drawn, each "
        "column one pack and each piece one sequence."
    )
    return Figure(title="Packing", picture=pictures.packs_picture(plan.packs, plan.capacity), caption=caption)


def _loss_figure(card: Scorecard) -> Figure | None:
    if card.training is None or not len(card.training.losses):
        return None
    curve = card.training
    caption = (
        f"{len(curve.losses):,} optimizer steps over {curve.num_tokens:,} tokens in {curve.seconds:,.0f} s; loss "
        f"{curve.losses[0]:.3f} at the first, {curve.losses[-1]:.3f} at the last."
    )
    return Figure(title="Loss", picture=pictures.loss_curve(curve.steps, curve.losses), caption=caption)


def _gate_sentence(card: Scorecard) -> str:
    gate = card.gate
    if gate.threshold is None:
        return "No gate is set."
    return f"Gate {gate.outcome}: the mean of {gate.suite or 'the first suite'} has to be at least {gate.threshold:g}."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
