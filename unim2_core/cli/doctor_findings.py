"""What a check of ``unim2 doctor`` says, and how checks are run: one never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from unim2_core.errors import Unim2Error, cause

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        subject: what was looked at.
        state: ``ok``; ``warning``: it works, but not as well as it could, or not everything;
            ``error``: something that is asked for will fail.
        found: what there is.
        remedy: the command that mends it, or what else to do; empty where all is well.
    """

    subject: str
    state: State
    found: str
    remedy: str = ""


Check = Callable[[], Iterable[Finding]]


def ok(subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", found)


def warning(subject: str, found: str, remedy: str) -> Finding:
    """It works, but not as it could."""
    return Finding(subject, "warning", found, remedy)


def error(subject: str, found: str, remedy: str) -> Finding:
    """Something will fail."""
    return Finding(subject, "error", found, remedy)


def run_checks(checks: Mapping[str, Check]) -> list[Finding]:
    """Run all checks; what one raises becomes its finding.

    Args:
        checks: subject -> check.
    """
    found: list[Finding] = []
    for subject, check in checks.items():
        try:
            found += check()
        except Unim2Error as problem:
            text = problem.what + (f"; found {problem.found}" if problem.found else "")
            found.append(error(subject, text, problem.remedy))
        except Exception as problem:
            found.append(
                error(
                    subject,
                    f"the check itself failed: {type(problem).__name__}: {cause(problem)}",
                    "please report this as a bug; the other lines hold all the same",
                )
            )
    return found
