"""Whether an adapted model may be served: evidence without labels, every figure kept.

Each check holds a figure against two limits: beyond the first a person should look at it, beyond
the second it is refused. Labels need not be there; where a person gives some, they only make the
guard stricter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["accepted", "review", "rejected"]
ORDER: tuple[Verdict, ...] = ("accepted", "review", "rejected")


@dataclass(frozen=True)
class Check:
    """One figure and its limits.

    Attributes:
        figure: its name, or the first part of it where there is one for each modality.
        meaning: what it says, for people.
        at_least: whether less is worse, else more is.
        review: beyond it, a person should look.
        reject: beyond it, the model is refused; None: never for this alone.
    """

    figure: str
    meaning: str
    at_least: bool
    review: float
    reject: float | None = None

    def verdict(self, value: float) -> Verdict:
        """What a value of the figure means; one that is not a number is refused."""
        if math.isnan(value):
            return "rejected"
        sign = 1 if self.at_least else -1
        if self.reject is not None and sign * value < sign * self.reject:
            return "rejected"
        return "review" if sign * value < sign * self.review else "accepted"


CHECKS = (
    Check("frames", "distinct pictures of the new drives", True, 20, 20),
    Check("presence", "how often a sensor sees something, of what it did before", True, 0.6),
    Check("spread", "how much a sensor's features vary, of what they did before", True, 0.4, 0.1),
    Check(
        "together",
        "standard errors by which a sensor fits the reference of its own moment better",
        True,
        2.0,
    ),
    Check("finite", "all weights and codes are numbers", True, 1, 1),
    Check("same_parent", "the version that was adapted is still the served one", True, 1),
    Check("entropy/old", "balance of the use of the classes, old drives", True, 0.55, 0.5),
    Check("entropy/new", "the same, new drives", True, 0.45, 0.3),
    Check("entropy_change/old", "change of it, old drives", True, -0.1, -0.2),
    Check("entropy_change/new", "change of it, new drives", True, -0.1, -0.2),
    Check("kept_ids/old", "places that keep their class, old drives", True, 0.93, 0.85),
    Check("kept_ids/new", "places that keep their class, new drives", True, 0.5, 0.25),
    Check("vanished_classes", "classes that nothing is any more", False, 0),
    Check("steadiness_change/old", "change of mirrored agreement, old drives", True, -0.04, -0.1),
    Check("steadiness_change/new", "change of mirrored agreement, new drives", True, -0.03, -0.08),
    Check("drift", "change of the weights, of their size", False, 0.5, 1.0),
    Check("anchors_change", "change of mIoU on labelled anchors, points", True, -0.5, -0.5),
)


@dataclass(frozen=True)
class Finding:
    """A figure that was held against its limits."""

    figure: str
    value: float
    check: Check
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """For people and the history."""
        limit = self.check.reject if self.verdict == "rejected" else self.check.review
        side = "at least" if self.check.at_least else "at most"
        return (
            f"{self.figure} is {self.value:.3g}, expected {side} {limit:g}: {self.check.meaning}"
        )


@dataclass(frozen=True)
class Judgement:
    """What became of an adapted model.

    Attributes:
        verdict: the worst of all findings.
        findings: all, in the order of the checks.
        others: figures without a limit.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    others: Mapping[str, float]

    @property
    def reasons(self) -> tuple[str, ...]:
        """A sentence for each finding that stands against the model, the worst first."""
        bad = [finding for finding in self.findings if finding.verdict != "accepted"]
        bad.sort(key=lambda finding: -ORDER.index(finding.verdict))
        return tuple(finding.sentence for finding in bad)

    def as_json(self) -> dict[str, Any]:
        """For the history; a figure that is not a number is None."""

        def plain(value: float) -> float | None:
            return round(value, 6) if math.isfinite(value) else None

        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "figures": {finding.figure: plain(finding.value) for finding in self.findings}
            | {name: plain(value) for name, value in self.others.items()},
            "limits": {
                finding.figure: {"review": finding.check.review, "reject": finding.check.reject}
                for finding in self.findings
            },
        }


def judged(figures: Mapping[str, float], checks: tuple[Check, ...] = CHECKS) -> Judgement:
    """Hold figures against the limits.

    Args:
        figures: name -> value; ``spread/thermal`` is held against ``spread`` where that has no
            check of its own. What is not there is not checked.
        checks: in the order in which they are reported.
    """
    named = {check.figure: check for check in checks}
    found: list[Finding] = []
    others: dict[str, float] = {}
    for name, value in figures.items():
        check = named.get(name) or named.get(name.partition("/")[0])
        if check is None:
            others[name] = value
        else:
            found.append(Finding(name, value, check, check.verdict(value)))
    found.sort(key=lambda finding: checks.index(finding.check))
    worst = max((ORDER.index(finding.verdict) for finding in found), default=0)
    return Judgement(ORDER[worst], tuple(found), others)
