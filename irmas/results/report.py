"""A ranking and its analysis -> report.md: the sections of the report that the suite reproduces.

Written from these two alone, so that whoever ranks a sweep reads the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from irmas.config import shown
from irmas.results import best, conclusions, grid
from irmas.results.anova import Anova, Variation
from irmas.results.bootstrap import CONFIDENCE, RESAMPLES
from irmas.results.edges import Edge
from irmas.results.outcomes import Confusion
from irmas.results.page import (
    NONE,
    between,
    code,
    counted,
    in_cell,
    listed,
    p_in_cell,
    percent,
    picture,
    plain,
    points,
    setting,
    table,
    whole_percent,
    yes_no,
)
from irmas.results.ranking import Ranking, mixed_sources
from irmas.results.statistics import Analysis, Point
from irmas.sweep.jobs import named_runs

TOP = 10


def markdown(ranking: Ranking, analysis: Analysis | None, confusion: Confusion | None, pictures: Sequence[str]) -> str:
    """The report of a ranking by last epochs. `analysis` is None where no run has finished, `confusion`, the leader's,
    where its predictions are missing.

    `pictures` are the file names of those that there are, which lie in plots/ beside the report.
    """
    blocks = [f"# Tuning report: {ranking.plan.name}", *_in_short(ranking, analysis), *_objective(ranking)]
    blocks += grid.written(ranking, analysis)
    if analysis:
        blocks += _top(ranking, analysis, pictures)
        blocks += _explained(ranking, analysis, pictures)
        blocks += conclusions.written(ranking, analysis, pictures)
        blocks += _optimised(ranking, analysis)
    return "\n\n".join(blocks + _notes(ranking, analysis, confusion)) + "\n"


def _in_short(ranking: Ranking, analysis: Analysis | None) -> list[str]:
    if not analysis:
        return [f"None of {counted(len(ranking.rows), 'run')} has finished: there is nothing to compare yet."]
    leader, total = analysis.points[0], len(analysis.points)
    accuracy = percent(leader.accuracy) + (f" ({between(leader.interval)})" if leader.interval else "")
    if analysis.recordings and not leader.interval:
        accuracy += " (no interval: excerpts that are all right, or all wrong, do not tell what others would be)"
    if ranking.plan.config.data.split == "all":
        accuracy += ", which tells nothing, since the validation excerpts were trained on too"
    if total == 1:
        return [f"The validation accuracy of {_named(leader)} is {accuracy}."]
    text = f"The leader is {_named(leader)}, with a validation accuracy of {accuracy}."
    if analysis.threshold is not None:
        text += f" {_undecided(analysis)}"
        if apart := sum(point.in_set is None for point in analysis.points):
            text += f" {counted(apart, 'combination')} cannot be compared with it."
    return [text]


def _undecided(analysis: Analysis) -> str:
    """How many points may be the best beside the leader; of two points or more."""
    others = len(analysis.points) - 1
    equal = sum(point.in_set is True for point in analysis.points[1:])
    if equal == others:
        each = "The other combination cannot" if others == 1 else f"None of the other {others} combinations can"
        return f"{each} be told from the leader."
    text = f"The leader stands apart from {'the other' if others == 1 else 'all that can be compared with it'}."
    if equal:
        text = f"{equal} of the other {others} combinations cannot be told from the leader."
    return text if analysis.training_noise else f"{text} That is of these trained nets: training noise is not known."


def _named(point: Point) -> str:
    values = ", ".join(setting(key, value) for key, value in point.values.items())
    return named_runs(point.runs) + (f" ({values})" if values else "")


def _objective(ranking: Ranking) -> list[str]:
    keys = [key for key in ranking.plan.swept if key != "seed"]
    aim = (
        f"Find the values of {listed(keys)} that raise validation accuracy past its plateau, and tell which "
        "differences between the runs can be relied on."
        if keys
        else "Train one configuration, and tell how far its validation accuracy can be relied on."
    )
    return ["## Objective", aim]


# Top performers


def _top(ranking: Ranking, analysis: Analysis, pictures: Sequence[str]) -> list[str]:
    keys = list(analysis.points[0].values)
    heads = ["rank", "run ID", *keys, "validation accuracy, % [95 %]", "validation loss"]
    if len(analysis.points) > 1:
        heads += ["behind the leader, points [95 %]", "may be the best"]
    shown_points = analysis.points[:TOP]
    blocks = [
        "## Top performers",
        table(
            heads, [_point(rank, point, ranking)[: len(heads)] for rank, point in enumerate(shown_points, 1)], left=0
        ),
    ]
    if len(analysis.points) > TOP:
        blocks.append(f"The first {TOP} of {len(analysis.points)} combinations; ranking.csv has every run.")
    if any(len(point.runs) > 1 for point in analysis.points):
        blocks.append("Accuracy and loss are the means over a combination's seeds.")
    return [
        *blocks,
        *picture("accuracy.png", pictures, "Validation accuracy of the combinations, with 95 % intervals"),
        *_set_of_the_best(analysis),
        *_selection(analysis),
        _training_noise(analysis),
        *picture("confusion.png", pictures, "Confusion matrix of the leader"),
    ]


def _point(rank: int, point: Point, ranking: Ranking) -> list[str]:
    losses = [row.loss for row in ranking.rows if row.id in point.runs and row.loss is not None]
    return [
        str(rank),
        ", ".join(map(str, point.runs)),
        *map(plain, point.values.values()),
        in_cell(point.accuracy, point.interval),
        f"{math.fsum(losses) / len(losses):.4f}" if losses else NONE,
        in_cell(point.gap, point.gap_interval) if rank > 1 else NONE,
        yes_no(point.in_set),
    ]


def _set_of_the_best(analysis: Analysis) -> list[str]:
    total = len(analysis.points)
    if total == 1:
        return []
    if analysis.threshold is None:
        return [f"{analysis.unpaired} Which combinations may be the best is not known."]
    if analysis.is_blind:
        few = "too few excerpts or seeds" if analysis.training_noise else "too few excerpts"
        return [
            f"**{_undecided(analysis)}** There are {few} to exclude any: one that is never right would not lie far "
            "enough behind. The order says little."
        ]
    return [
        f"**{_undecided(analysis)}** A combination is out of the set of the best only if it lies more than "
        f"{points(analysis.threshold)} behind the leader: among equal combinations the largest difference exceeds "
        "that in 5 % of sweeps. Any of the set may be the best one; the order within it says little."
    ]


def _selection(analysis: Analysis) -> list[str]:
    paired = [point for point in analysis.points if point.gap_interval]
    if analysis.luck is None or analysis.optimism is None or len(paired) < 2:
        return []
    lead = analysis.points[0].accuracy - math.fsum(point.accuracy for point in paired) / len(paired)
    return [
        f"The leader was chosen as the best of {len(paired)}. Were all of them equal, the best would by luck alone "
        f"exceed their common accuracy by about {points(analysis.luck)}; the leader exceeds their mean by "
        f"{points(lead)}{'' if lead > analysis.luck else ', which is no more than luck'}. Part of its accuracy comes "
        f"from having been chosen: resampling expects {points(analysis.optimism)}, a low guess where they are equal."
    ]


def _training_noise(analysis: Analysis) -> str:
    noise = analysis.training_noise
    if noise is None:
        return (
            "Training noise is not known, and no interval holds it: intervals are of these trained nets on other "
            "excerpts. Trained again, the same settings may come out otherwise; several seeds would tell."
        )
    size = (
        f"one run's accuracy has a standard deviation of {points(noise.sd)} ({counted(noise.df, 'degree')} of freedom)"
    )
    if noise.source == "seeds":
        text = f"Training noise, from the seeds: {size}. All intervals hold it."
        if analysis.anova.blocks:
            text += (
                " That is without what a seed does to all combinations alike: intervals of accuracies hold it "
                "too, those of differences need not."
            )
        return text
    return (
        "Each combination was trained once: the intervals of accuracies do not hold training noise. Its estimate is "
        f"what main effects and two-way interactions leave of the grid: {size}. The intervals of differences and the "
        "set hold it, so that no conclusion is drawn which it would overturn."
        + (" It is a rough estimate, and they are wide for that: several seeds tell more." if noise.df < 10 else "")
    )


# What the grid explains


def _explained(ranking: Ranking, analysis: Analysis, pictures: Sequence[str]) -> list[str]:
    if not analysis.margins:
        return []
    blocks = ["## What the grid explains"]
    if analysis.anova.is_complete:
        blocks += _anova(analysis.anova)
    else:
        blocks.append(
            f"The grid is incomplete: {len(analysis.points)} of {analysis.combinations} combinations have a finished "
            "run. There is no analysis of variance, and the levels of a key below also differ in the other keys."
        )
    heads = ["key", "value", "runs", "mean accuracy, % [95 %]", "behind the best value, points [95 %]", "holds"]
    rows = [
        [
            margin.key,
            plain(level.value),
            str(level.runs),
            in_cell(level.accuracy, level.interval),
            in_cell(level.gap, level.gap_interval) if level.gap else NONE,
            yes_no(level.holds) if level.gap and analysis.anova.is_complete else NONE,
        ]
        for margin in analysis.margins
        for level in margin.levels
    ]
    return [
        *blocks,
        "Main effects: the mean accuracy of all combinations with a value. The intervals of differences are for all "
        "pairs of values of all keys together; a difference holds if its interval excludes 0.",
        table(heads, rows, left=2),
        *picture("effects.png", pictures, "Main effects"),
        *picture("heatmap.png", pictures, "Validation accuracy over the grid"),
    ]


def _anova(found: Anova) -> list[str]:
    def line(name: str, variation: Variation, *test: str) -> list[str]:
        return [name, f"{100 * variation.share:.1f}", str(variation.df), *(test or (NONE, NONE, NONE))]

    rows = []
    for effect in found.effects:
        test: tuple[str, ...] = ()
        if effect.f is not None and effect.p is not None and effect.p_holm is not None:
            test = (f"{effect.f:.3g}", p_in_cell(effect.p), p_in_cell(effect.p_holm))
        rows.append(line(" x ".join(effect.keys), effect.variation, *test))
    for name, variation in (("residual", found.residual), ("seed", found.blocks), ("among seeds", found.seeds)):
        if variation and variation.df:
            rows.append(line(name, variation))
    return [
        "Analysis of variance of the accuracies:",
        table(["effect", "share of the variation, %", "df", "F", "p", "p after Holm"], rows),
        _tested(found),
    ]


def _tested(found: Anova) -> str:
    if not found.error or all(effect.p_holm is None for effect in found.effects):
        return (
            "There is nothing to test the effects against: each combination was trained once, and nothing is left over."
        )
    error = "the spread among the seeds of a combination" if found.error == "seeds" else "the residual"
    clear = [" x ".join(effect.keys) for effect in found.effects if effect.p_holm is not None and effect.p_holm < 0.05]
    says = f"Clear: {listed(clear)}." if clear else "No effect is clear."
    return (
        f"F compares with {error}: does an effect exceed training noise, on these excerpts? Holm's p allows for all "
        f"effects of the table; below 0.05 an effect is clear. {says}"
    )


# Optimised configuration


def _optimised(ranking: Ranking, analysis: Analysis) -> list[str]:
    winner = best.config(ranking, analysis)
    leader = analysis.points[0]
    values = dict.fromkeys(leader.values) | {"dropout": None, "lr": None, "l2": None}
    flat = {"dropout": winner.dropout, "lr": winner.lr, "l2": winner.l2} | leader.values
    rows = [[key, plain(flat[key])] for key in values]
    pool = winner.data.pool
    rows.append(["input", f"{winner.features.n_mels // pool} x {winner.features.n_frames // pool}"])
    if not any(key.partition(".")[0] == "augment" for key in values):
        rows.append(["SpecAugment", yes_no(bool(winner.augment.freq_masks + winner.augment.time_masks))])
    if "class_weights" not in values:
        rows.append(["class weights", yes_no(winner.class_weights)])
    seed = f", with seed {winner.seed} of run {leader.runs[0]}" if len(leader.runs) > 1 else ""
    blocks = [
        "## Optimised configuration",
        f"The values of {named_runs(leader.runs)}; best.yaml holds every setting{seed}.",
        table(["setting", "value"], rows, left=2),
    ]
    if edges := [_edge(edge) for edge in analysis.edges if edge.side]:
        blocks += ["On the edge of the grid, so that the best value may lie beyond:", "\n".join(edges)]
    return [
        *blocks,
        "The production run, a job where sbatch is found; with `hydra/launcher=local` added it trains on this machine:",
        f"```\n{best.production_command(ranking, analysis)}\n```",
    ]


def _edge(edge: Edge) -> str:
    end = f"- {edge.key} {shown(edge.value)} is the {edge.side} of {len(edge.levels)} values"
    return end + (
        f"; add {edge.key}={shown(edge.beyond)}." if edge.beyond is not None else "; nothing more is allowed."
    )


# Notes


def _notes(ranking: Ranking, analysis: Analysis | None, confusion: Confusion | None) -> list[str]:
    data = ranking.plan.config.data
    notes = []
    if analysis:
        notes += [*_about_numbers(analysis), *([analysis.unpaired] if analysis.unpaired else [])]
        chosen = "The validation excerpts have chosen the leader. Its" if len(analysis.points) > 1 else "The"
        notes.append(f"{chosen} accuracy on a test set is not known, nor that on recordings of another kind.")
    if confusion and (unseen := [name for name, row in zip(confusion[1], confusion[0], strict=True) if not row.any()]):
        notes.append(
            f"No excerpt of {listed([plain(name) for name in unseen])} is among those that validate the leader."
        )
    if data.split == "clip":
        notes.append(
            "The split is by excerpt: excerpts of one recording stand on both sides, and all accuracies are too high."
        )
    if data.split == "all":
        notes.append("The validation excerpts were trained on too: accuracies and losses of validation tell nothing.")
    if data.source == "standin" and data.cache is None:
        notes.append("The music is rendered: these accuracies say nothing about IRMAS.")
    if mixed := mixed_sources(ranking):
        notes.append(f"{mixed[0].upper()}{mixed[1:]}.")
    if ranking.state.note and any(row.rank is None for row in ranking.rows):
        notes.append("Slurm could not be asked: the states of unfinished runs are what they last said.")
    notes += [f"Could not be read: {code(_inside(problem))}." for problem in ranking.problems]
    notes.append(_made_by(ranking))
    return ["## Notes", "\n".join(f"- {note}" for note in notes)]


def _about_numbers(analysis: Analysis) -> list[str]:
    leader = analysis.points[0]
    notes = [
        "Accuracies are of validation in the last epoch; no epoch was chosen. The validation loss is cross-entropy "
        "without the penalty, so that it can be compared across l2."
    ]
    if leader.interval and analysis.excerpts:
        error = math.sqrt(leader.accuracy * (1 - leader.accuracy) / analysis.excerpts)
        notes.append(
            f"One excerpt is {points(1 / analysis.excerpts)}. Were the {analysis.excerpts} excerpts independent, the "
            f"standard error of the leader's accuracy would be {points(error)}. Excerpts of one recording are right "
            f"and wrong together: the {whole_percent(CONFIDENCE)} intervals come from {RESAMPLES} resamples of the "
            f"{analysis.recordings} recordings."
        )
    return notes


def _inside(problem: str) -> str:
    """Without the part of a path that depends on where the sweep lies."""
    return " ".join(word[word.find("runs/") :] if "/runs/" in word else word for word in problem.split(" "))


def _made_by(ranking: Ranking) -> str:
    plan = ranking.plan
    commit = f", commit {plan.commit[:12]}{'+' * plan.commit.endswith('+')}" if plan.commit else ""
    return f"Digests: data {plan.data}, source {plan.source}{commit}."
