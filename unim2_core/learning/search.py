"""Search for the numbers of a training: weights, shifts, width of a code, and learning rate.

The space is that of the paper's release; Optuna's TPE walks through it. Trials are kept in a
database, so that a search goes on after it was stopped, and many machines can share one. A trial
tells its score several times while it trains, and stops where it falls behind the median of those
that were finished.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from unim2_core.errors import ModelError
from unim2_core.learning.diagnostics import Diverged
from unim2_core.learning.learner import Learner
from unim2_core.learning.methods import Recipe
from unim2_core.learning.objective import Objective
from unim2_core.learning.selection import SMALLEST_ENTROPY, Criteria
from unim2_core.learning.settings import (
    Basis,
    ModalitySettings,
    Origin,
    Settings,
    ShiftSettings,
    TermSettings,
)
from unim2_core.learning.studies import (
    NumberedSampler,
    database_errors,
    fail_stale_trials,
    open_database,
)
from unim2_core.model.classifier import Classifier

Grouping = Literal["groups", "modalities"]
State = Literal["finished", "pruned", "failed", "running"]

TERMS = ("own", "knn", "random")
CODE_DIMS = (70, 90, 128, 192, 256, 320, 384)
RATES = (1e-5, 1e-2)
"""The release ends at 1e-3, below the rate of the preset ``robot``."""
TASK = "unim2 task"
"""Attribute of a study that says what its scores are of."""

_STATES: dict[Any, State] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


def steadiness(found: Criteria) -> float:
    """Score of a candidate without labels that means the same in every trial.

    The mean agreement of the model with itself on mirrored pictures and on crops: adjusted Rand
    indices, whose 0 and 1 are the same whatever the numbers of a training are. The margin is left
    out, whose scale changes with the width of a code, and so are ranks, which would change with
    every trial that is added. What a missing modality changes is left out, too: a model that
    hardly uses one hardly misses it. What agrees with itself because everything is in few
    clusters has collapsed: 1 is taken off, so it is behind all that has not.

    Returns:
        At most 1; NaN where neither agreement is known.
    """
    known = [value for value in (found.flips, found.crops) if not math.isnan(value)]
    if not known:
        return math.nan
    return sum(known) / len(known) - (1.0 if found.entropy < SMALLEST_ENTROPY else 0.0)


@dataclass(frozen=True)
class Measure:
    """What a search goes by.

    Attributes:
        basis: whether labels have a part in it.
        score: of a model; more is better.
    """

    basis: Basis
    score: Callable[[Classifier], float]


@dataclass(frozen=True)
class SearchConfig:
    """How to search.

    Attributes:
        trials: finished or pruned ones that the study is to have in the end, of all processes.
        grouping: ``groups``: the reference has numbers of its own, all others share theirs, as
            published; ``modalities``: each has its own.
        stages: how often a trial tells its score; it may be pruned at all but the last.
        startup_trials: that are finished before any is pruned.
        seed: of what is suggested.
    """

    trials: int
    grouping: Grouping = "groups"
    stages: int = 4
    startup_trials: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"trials": 1, "stages": 1, "startup_trials": 0, "seed": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ModelError(
                    f"the search cannot be set up: {name}",
                    expected=f"at least {smallest}",
                    found=str(getattr(self, name)),
                )


@dataclass(frozen=True)
class Tried:
    """A trial, for people.

    Attributes:
        number: of the trial in the study.
        state: how it stands.
        score: the last that it told; None: it told none.
        stages: how many it told.
    """

    number: int
    state: State
    score: float | None
    stages: int


class Search:
    """A search over the numbers of a training; nothing is computed twice that trials share.

    Args:
        learner: of the recipe whose numbers are searched for.
        measure: what the search goes by.
        config: how.
        facts: what else must be equal for scores to be comparable, such as digests of the
            pictures and of the backbone; JSON types only.
    """

    def __init__(
        self, learner: Learner, measure: Measure, config: SearchConfig, facts: Mapping[str, object]
    ) -> None:
        recipe, names = learner.recipe, learner.recipe.network.modalities
        self.learner, self.measure, self.config = learner, measure, config
        if recipe.objective.joint:
            self.groups = {"joint": names}
        elif config.grouping == "groups" and len(names) > 1:
            self.groups = {"reference": names[:1], "others": names[1:]}
        else:
            self.groups = {name: (name,) for name in names}
        self.every = math.ceil(recipe.trainer.steps / config.stages)
        self.task = {
            "basis": measure.basis,
            "method": recipe.method,
            "preset": recipe.preset,
            "start": recipe.start,
            "modalities": list(names),
            "groups": list(self.groups),
            "clusters": recipe.clusters,
            "steps": recipe.trainer.steps,
            "score every": self.every,
            **facts,
        }

    def open(self, storage: str, name: str) -> optuna.Study:
        """Open a study, or begin it.

        Args:
            storage: URL of a database, as SQLAlchemy takes it.
            name: of the study.

        Raises:
            ModelError: the database cannot be opened, or the study is of another task.
        """
        database = open_database(storage)
        with database_errors():
            study = optuna.create_study(
                storage=database,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                sampler=NumberedSampler(self.config.seed),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=self.config.startup_trials),
            )
            known = study.user_attrs.get(TASK)
            if known is None and not study.get_trials(deepcopy=False):
                study.set_user_attr(TASK, self.task)
                known = self.task
        known = known or {}
        other = [key for key in self.task if known.get(key) != self.task[key]]
        if other:
            raise ModelError(
                f"the study {name!r} is of another task",
                expected="; ".join(f"{key}: {self.task[key]}" for key in other),
                found="; ".join(f"{key}: {known.get(key, 'unknown')}" for key in other),
                remedy="give this search another name with --study, or the options of that one",
            )
        return study

    def run(
        self,
        study: optuna.Study,
        folder: Path,
        told: Callable[[Tried], None] = lambda tried: None,
    ) -> None:
        """Try until the study has its number of trials, in all processes together.

        When it is interrupted, the running trial is failed, and does not count.

        Args:
            study: see ``open``.
            folder: that is there, for what a trial writes while it runs.
            told: called with each trial that came to its end here.

        Raises:
            ModelError: a trial cannot be run at all, or the database is gone.
        """

        def tell(_: optuna.Study, trial: Any) -> None:
            told(_tried(trial))

        while self.left(study) > 0:
            with database_errors():
                study.optimize(
                    lambda trial: self._try(trial, folder), n_trials=1, callbacks=[tell]
                )

    def left(self, study: optuna.Study) -> int:
        """How many trials are still to be begun; those that run elsewhere are on their way."""
        with database_errors():
            fail_stale_trials(study)
            states = Counter(tried.state for tried in tries(study))
        return self.config.trials - states["finished"] - states["pruned"] - states["running"]

    def best(self, study: optuna.Study) -> Settings:
        """The settings of the best trial that was finished.

        Raises:
            ModelError: none was.
        """
        with database_errors():
            finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if not finished:
                raise ModelError(
                    "the search has found nothing",
                    expected="at least one finished trial",
                    found=f"none in the study {study.study_name!r}",
                    remedy="run it again; if all trials diverge, look at the pictures",
                )
            best = study.best_trial
        origin = Origin(
            basis=self.measure.basis,
            score=best.value,
            study=study.study_name,
            trial=best.number,
        )
        return self._suggested(best).model_copy(update={"origin": origin})

    def _try(self, trial: optuna.Trial, folder: Path) -> float:
        learner = copy.copy(self.learner)  # neighbours and statistics do not depend on numbers
        learner.recipe = recipe = self._recipe(self._suggested(trial))
        scores: list[float] = []

        def validate(objective: Objective) -> Mapping[str, float]:
            # A copy: making a classifier moves the weights to the CPU.
            score = self.measure.score(learner.classifier(copy.deepcopy(objective)))
            if not math.isfinite(score):
                raise ModelError(
                    "a model cannot be scored",
                    expected="other views of the pictures, or with an oracle labels",
                    found=f"a score of {score}",
                    remedy="give pictures that allow one of them",
                )
            scores.append(score)
            trial.report(score, len(scores))
            last = len(scores) * self.every >= recipe.trainer.steps
            if not last and trial.should_prune():
                raise optuna.TrialPruned
            return {"search/score": score}

        with tempfile.TemporaryDirectory(prefix="trial-", dir=folder) as run:
            try:
                learner.train(learner.objective(), Path(run), validate=validate)
            except ModelError as error:
                if isinstance(error.__cause__, Diverged):
                    raise optuna.TrialPruned from error
                raise
        return scores[-1]

    def _recipe(self, settings: Settings) -> Recipe:
        """The recipe of a trial, which leaves nothing behind to go on from."""
        recipe = settings.applied(self.learner.recipe)
        trainer = replace(
            recipe.trainer,
            validate_every=self.every,
            candidates=1,
            checkpoint_every=recipe.trainer.steps,
        )
        return replace(recipe, trainer=trainer)

    def _suggested(self, trial: Any) -> Settings:
        """The settings of a trial, which may be over."""

        def share(name: str) -> float:
            return float(trial.suggest_float(name, 0.0, 1.0))

        modalities: dict[str, ModalitySettings] = {}
        for group, names in self.groups.items():
            how = ModalitySettings(
                weight=share(f"{group}.weight"),
                terms=TermSettings(**{term: share(f"{group}.terms.{term}") for term in TERMS}),
                shifts=ShiftSettings(**{term: share(f"{group}.shifts.{term}") for term in TERMS}),
            )
            modalities |= dict.fromkeys(names, how)
        return Settings(
            modalities=modalities,
            code_dim=trial.suggest_categorical("code_dim", CODE_DIMS),
            rate=trial.suggest_float("rate", *RATES, log=True),
        )


def tries(study: optuna.Study) -> list[Tried]:
    """All trials of a study, in order."""
    return [_tried(trial) for trial in study.get_trials(deepcopy=False)]


def _tried(trial: Any) -> Tried:
    told = trial.intermediate_values
    score = trial.value if trial.value is not None else told[max(told)] if told else None
    return Tried(trial.number, _STATES[trial.state], score, len(told))
