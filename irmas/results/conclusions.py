"""The report's key deductions in words: each stands only if its test does; otherwise the data cannot tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from irmas.config import shown
from irmas.results.anova import ROUNDING
from irmas.results.bootstrap import Interval
from irmas.results.deductions import (
    BASELINE,
    CLOSE,
    PLATEAU,
    Mean,
    Rate,
    Share,
    baseline,
    end_epochs,
    finished,
    learning_rates,
    settings,
    share,
)
from irmas.results.page import (
    NONE,
    between,
    counted,
    in_cell,
    listed,
    p_value,
    percent,
    picture,
    plain,
    points,
    setting,
    table,
    whole_percent,
)
from irmas.results.ranking import Ranking
from irmas.results.statistics import Analysis, Level, Point


def written(ranking: Ranking, analysis: Analysis, pictures: Sequence[str]) -> list[str]:
    if set(ranking.plan.swept) <= {"seed"}:
        return ["## Key deductions", "Nothing was varied, so that there is nothing to deduce."]
    return [
        "## Key deductions",
        "### Regularisation balance",
        *_regularisation(ranking, analysis),
        "### Learning rate",
        *_learning_rate(ranking, analysis),
        *picture("curves.png", pictures, "Validation accuracy by epoch"),
        "### Capacity",
        *_capacity(ranking, analysis),
    ]


# Main effects


def _main_effect(ranking: Ranking, analysis: Analysis, key: str) -> str:
    levels = next((margin.levels for margin in analysis.margins if margin.key == key), ())
    if not levels:
        return f"{key}: one value alone has finished runs." if key in ranking.plan.swept else f"Not swept: {key}."
    if not analysis.anova.is_complete:
        return f"{key}: the grid is incomplete, so that the data cannot tell what it does."
    best = min(levels, key=lambda level: level.gap)
    others = [level for level in levels if level is not best]
    if all(level.gap < ROUNDING for level in levels):
        return f"{key}: all values have the same mean accuracy." + _f_test(analysis, key)
    text = f"{setting(key, best.value)} has the highest mean accuracy."
    if worse := [_behind(level) for level in others if level.holds]:
        text += f" **It is better than** {listed(worse)}."
    if unclear := [_behind(level) for level in others if not level.holds]:
        text += f" Whether it is better than {listed(unclear)} the data cannot tell"
        text += "." if analysis.training_noise else ", as training noise is not known."
    return text + _f_test(analysis, key) + _interactions(analysis, key)


def _behind(level: Level) -> str:
    interval = f", {between(level.gap_interval)}" if level.gap_interval else ""
    return f"{plain(level.value)} (by {points(level.gap)}{interval})"


def _f_test(analysis: Analysis, key: str) -> str:
    found = analysis.anova
    effect = next(effect for effect in found.effects if effect.keys == (key,))
    error = found.seeds if found.error == "seeds" else found.residual
    if effect.f is None or effect.p_holm is None or error is None:
        return ""
    return f" F({effect.variation.df}, {error.df}) = {effect.f:.3g}, {p_value(effect.p_holm)} after Holm."


def _interactions(analysis: Analysis, key: str) -> str:
    others = [
        f"{other} ({p_value(effect.p_holm)} after Holm)"
        for effect in analysis.anova.effects
        if len(effect.keys) == 2 and key in effect.keys and effect.p_holm is not None and effect.p_holm < 0.05
        for other in effect.keys
        if other != key
    ]
    return f" What it does depends on {listed(others)}." if others else ""


# Regularisation


def _regularisation(ranking: Ranking, analysis: Analysis) -> list[str]:
    augment = [key for key in ranking.plan.swept if key.partition(".")[0] == "augment"]
    if not BASELINE.keys() & set(ranking.plan.swept):
        effects = [_main_effect(ranking, analysis, key) for key in augment]
        return [f"Not swept: {listed(list(BASELINE))}.", *effects]
    effects = [f"- {_main_effect(ranking, analysis, key)}" for key in [*BASELINE, *augment]]
    blocks = [_against_baseline(ranking, analysis), "\n".join(effects)]
    if not augment:
        masks = ranking.plan.config.augment
        has = "Every" if masks.freq_masks + masks.time_masks else "No"
        blocks.append(f"{has} run has SpecAugment: whether it takes the place of other regularisation is not tested.")
    return blocks


def _against_baseline(ranking: Ranking, analysis: Analysis) -> str:
    leader, point = analysis.points[0], baseline(ranking, analysis)
    name = f"the report's baseline, {_named(BASELINE)},"
    if point is None:
        others = {key: value for key, value in leader.values.items() if key not in BASELINE}
        where = f" at {_named(others)}" if others else ""
        return f"The data cannot tell whether {name} over-regularises: it has no finished run{where}."
    if point is leader:
        return f"The leader is {name} itself: these runs do not show that it over-regularises."
    own = {key: settings(ranking, leader)[key] for key in BASELINE}
    gap = f"{points(point.gap)} behind ({_noted(point)})"
    if point.in_set is not False or point.holds is False:
        text = f"The data cannot tell whether {name} is worse than the leader's {_named(own)}: it is {gap}."
        if point.holds:
            text += f" The interval alone does not allow for the leader having been chosen from {len(analysis.points)}."
        return text
    if point.holds is None:
        return (
            f"On other excerpts too {name} would be behind the leader's {_named(own)}: it is {gap}. But training noise "
            "is not known, and the data cannot tell whether it is worse."
        )
    is_less = all(own[key] <= value for key, value in BASELINE.items())
    return (
        f"**{name[0].upper()}{name[1:]} is worse than the leader's {_named(own)}**, all else being equal: it is {gap}. "
        "That allows for training noise, and for the leader having been chosen. "
        + ("It over-regularises." if is_less else "But the leader is not regularised less in both.")
    )


def _named(values: dict[str, Any]) -> str:
    return " with ".join(setting(key, value) for key, value in values.items())


def _noted(point: Point) -> str:
    if point.gap_interval is None:
        return "it cannot be paired with the leader"
    return f"{between(point.gap_interval)}; {'' if point.in_set else 'not '}in the set of the best"


# Learning rate


def _learning_rate(ranking: Ranking, analysis: Analysis) -> list[str]:
    rates = learning_rates(ranking, analysis)
    if not rates:
        return [_main_effect(ranking, analysis, "lr")]
    best, *others = rates
    epochs = {row.epoch for row in finished(ranking)}
    end = counted(end_epochs(min(epochs)), "epoch") if len(epochs) == 1 else "third of the epochs"
    close = CLOSE * analysis.points[0].accuracy
    by_value = sorted(rates, key=lambda rate: -rate.level.value)
    sentences = [
        _main_effect(ranking, analysis, "lr"),
        *(_convergence(ranking, analysis, rate, best) for rate in others if rate.level.value < best.level.value),
        *_unconverged(best, end),
        _compared(best, [(rate, rate.delay) for rate in others], 1, "epochs", ("faster", "slower")),
        _compared(
            best,
            [(rate, rate.fluctuation_difference) for rate in others],
            100,
            "points",
            ("steadier", "less steady"),
        ),
    ]
    marks = f"reach {percent(close)}", f"reach {whole_percent(PLATEAU)}"
    return [
        f"How many runs {marks[0]} ({whole_percent(CLOSE)} of the leader's accuracy), how many {marks[1]}, and the "
        f"median epoch in which they do. How they end: a straight line through each run's last {end}, its slope with "
        "standard error, and the standard deviation about it.",
        table(
            ["lr", "runs", *marks, "slope, points an epoch", "fluctuation, points"],
            [_level(rate) for rate in by_value],
            left=0,
        ),
        f"Against {_lr(best)}, in pairs that differ in lr alone, with 95 % intervals for all rows together. Runs that "
        "differ in l2 alone train much alike and are one pair. Epochs later: until "
        f"{percent(close)} is reached; a run that does not counts as if it were in the epoch after its last.",
        table(
            ["lr", "pairs", "epochs later", "slope, points an epoch", "fluctuation, points"],
            [_difference(rate) for rate in by_value if rate is not best],
            left=0,
        ),
        "\n".join(f"- {sentence}" for sentence in sentences),
    ]


def _lr(rate: Rate) -> str:
    return f"lr {shown(rate.level.value)}"


def _level(rate: Rate) -> list[str]:
    return [
        shown(rate.level.value),
        str(rate.runs),
        _reached(rate.close, rate.runs),
        _reached(rate.plateau, rate.runs),
        f"{100 * rate.slope.value:.2f} ± {100 * rate.slope.error:.2f}" if rate.slope else NONE,
        f"{100 * rate.fluctuation:.2f}" if rate.fluctuation is not None else NONE,
    ]


def _reached(found: tuple[int, float], of: int) -> str:
    runs, epoch = found
    return f"{runs} of {of}" + (f", epoch {epoch:g}" if math.isfinite(epoch) else "")


def _difference(rate: Rate) -> list[str]:
    def cell(mean: Mean | None) -> str:
        return in_cell(mean.value, mean.interval) if mean else NONE

    delay = rate.delay
    epochs = f"{delay.value:.1f} [{delay.interval.low:.1f}, {delay.interval.high:.1f}]" if delay else NONE
    return [
        shown(rate.level.value),
        str(rate.pairs),
        epochs,
        cell(rate.slope_difference),
        cell(rate.fluctuation_difference),
    ]


def _convergence(ranking: Ranking, analysis: Analysis, rate: Rate, best: Rate) -> str:
    epochs = {row.epoch for row in finished(ranking)}
    slow = f"too slow to converge within {f'{min(epochs)} epochs' if len(epochs) == 1 else 'its epochs'}"
    is_worse = bool(rate.level.holds) and analysis.anova.is_complete
    ends = f"it ends {points(rate.level.gap)} behind {_lr(best)}"
    if rate.level.gap_interval and analysis.anova.is_complete:
        ends += f" ({between(rate.level.gap_interval)})"
    rises = "how it ends is not known"
    if rate.slope and rate.slope_difference:
        slope = f"its slope at the end is {points(rate.slope.value)} an epoch"
        rises = f"{slope}, {_more(rate.slope_difference)} than that of {_lr(best)}"
    if is_worse and rate.rises_more:
        return f"**{_lr(rate)} is {slow}**: {ends}, and {rises}."
    lacking = [] if is_worse else ["it is not clearly worse"]
    lacking += [] if rate.rises_more else ["it does not clearly rise more at the end"]
    return f"The data cannot tell whether {_lr(rate)} is {slow}, as {listed(lacking)}: {ends}; {rises}."


def _unconverged(best: Rate, end: str) -> list[str]:
    if best.slope is None or best.slope.interval.low <= 0:
        return []
    rise = f"its slope is {points(best.slope.value)} an epoch in the last {end} ({between(best.slope.interval)})"
    return [f"**{_lr(best)} has not converged itself**: {rise}."]


def _more(difference: Mean) -> str:
    if difference.value >= 0:
        return f"{points(difference.value)} more ({between(difference.interval)})"
    turned = Interval(-difference.interval.high, -difference.interval.low)
    return f"{points(-difference.value)} less ({between(turned)})"


def _compared(
    best: Rate, others: Sequence[tuple[Rate, Mean | None]], scale: float, unit: str, words: tuple[str, str]
) -> str:
    """Above and below which other rates the best one is, by their differences from it, and which are unclear."""
    found: dict[str, list[str]] = {word: [] for word in (*words, "")}
    for rate, mean in others:
        value = shown(rate.level.value)
        if mean is None:
            found[""].append(f"{value} (too few pairs)")
            continue
        sign = -scale if mean.interval.high < 0 else scale
        low, high = sorted((sign * mean.interval.low, sign * mean.interval.high))
        word = "" if low <= 0 else words[sign < 0]
        found[word].append(f"{value} (by {sign * mean.value:.2f} {unit}, 95 % interval {low:.2f} to {high:.2f})")
    sentences = [f"**{_lr(best)} is {word} than** {listed(found[word])}." for word in words if found[word]]
    if found[""]:
        sentences.append(f"Whether {_lr(best)} is {words[0]} than {listed(found[''])} the data cannot tell.")
    return " ".join(sentences)


# Capacity


def _capacity(ranking: Ranking, analysis: Analysis) -> list[str]:
    rows = finished(ranking)
    blocks = [
        f"{_share(share(rows))} finished runs end at {whole_percent(PLATEAU)} or above "
        f"(95 % interval by Wilson's score, {_range(share(rows).interval)})."
    ]
    keys = [key for key in ranking.plan.swept if key.partition(".")[0] == "model"]
    if not keys:
        return [*blocks, "Whether that is owed to the net's capacity this grid cannot tell: it has one architecture."]
    for key in keys:
        values = {shown(row.values[key]): row.values[key] for row in rows}
        shares = [
            [plain(value), _share(found), _range(found.interval)]
            for text, value in values.items()
            for found in [share([row for row in rows if shown(row.values[key]) == text])]
        ]
        heads = [key, f"runs at {whole_percent(PLATEAU)} or above", "95 % interval"]
        blocks += [_main_effect(ranking, analysis, key), table(heads, shares)]
    return blocks


def _share(found: Share) -> str:
    return f"{found.runs} of {found.of}"


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %"
