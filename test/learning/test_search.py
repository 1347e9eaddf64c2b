from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="learning needs torch: pip install 'unim2[train]'")
optuna = pytest.importorskip("optuna", reason="a search needs optuna: pip install 'unim2[train]'")

from unim2_core.errors import ModelError
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.learner import Learner
from unim2_core.learning.methods import recipe
from unim2_core.learning.search import (
    CODE_DIMS,
    RATES,
    Measure,
    Search,
    SearchConfig,
    Tried,
    steadiness,
    tries,
)
from unim2_core.learning.selection import Criteria, criteria
from unim2_core.learning.settings import Settings
from unim2_core.model.classifier import Classifier

NAMES = ("rgb", "thermal", "nir")
STEPS = 3


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def store() -> FeatureStore:
    return made_up_store()


def made_up_store() -> FeatureStore:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, (12, 3, 4))
    centres = rng.normal(size=(len(NAMES), 3, 6))
    tokens = {
        name: (centre[kinds] + 0.3 * rng.normal(size=(*kinds.shape, 6))).astype(np.float16)
        for name, centre in zip(NAMES, centres, strict=True)
    }
    numbers = np.arange(12, dtype=np.int64)
    present = {name: np.ones(kinds.shape, np.bool_) for name in NAMES}
    return FeatureStore(tokens, present, numbers, np.zeros_like(numbers), numbers * 10**9)


def _learner(
    store: FeatureStore, names: tuple[str, ...] = NAMES, method: str = "unim2"
) -> Learner:
    made = recipe(method, names, 6, 3, steps=STEPS, device="cpu")  # type: ignore[arg-type]
    return Learner(store, replace(made, batch=4, samples=3))


def _search(store: FeatureStore, score: object = None, **config: object) -> Search:
    measure = Measure("without labels", score or _size_of_a_code)  # type: ignore[arg-type]
    return Search(_learner(store), measure, SearchConfig(**config), {"pictures": "one"})  # type: ignore[arg-type]


def _size_of_a_code(classifier: Classifier) -> float:
    """A score that is known beforehand: the fewer channels the better."""
    return -float(classifier.prototypes.shape[1])


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'search.db'}"


def test_the_best_trial_becomes_settings_that_can_be_trained(
    store: FeatureStore, tmp_path: Path
) -> None:
    told: list[Tried] = []
    search = _search(store, trials=2, stages=1)
    study = search.open(_url(tmp_path), "one")
    search.run(study, tmp_path, told.append)
    found = search.best(study)
    assert [tried.number for tried in told] == [0, 1]
    assert found.origin is not None
    assert found.origin.score == -found.code_dim == max(tried.score for tried in told)
    assert found.origin.basis == "without labels"
    assert found.code_dim in CODE_DIMS
    assert RATES[0] <= found.rate <= RATES[1]
    assert found.modalities["thermal"] == found.modalities["nir"] != found.modalities["rgb"]

    found.write(tmp_path / "best.yaml")
    assert Settings.load(tmp_path / "best.yaml") == found
    made = found.applied(search.learner.recipe)
    assert made.shares is None
    assert made.network.code_dim == found.code_dim
    assert made.trainer.rate == found.rate
    assert made.objective.modalities["nir"] == found.modalities["nir"].loss
    learnt = Learner(store, made).learn(tmp_path / "run")
    assert learnt.classifier.prototypes.shape == (3, found.code_dim)
    assert [path.name for path in tmp_path.glob("trial-*")] == []


def test_each_modality_can_have_numbers_of_its_own(store: FeatureStore, tmp_path: Path) -> None:
    search = _search(store, trials=1, grouping="modalities")
    study = search.open(_url(tmp_path), "one")
    search.run(study, tmp_path)
    assert len(study.best_trial.params) == 3 * 7 + 2
    found = search.best(study)
    assert found.modalities["thermal"] != found.modalities["nir"]


def test_a_bad_trial_is_pruned_before_it_is_trained_to_the_end(
    store: FeatureStore, tmp_path: Path
) -> None:
    calls: list[float] = []

    def worse_and_worse(classifier: Classifier) -> float:
        calls.append(-len(calls))
        return calls[-1]

    search = _search(store, worse_and_worse, trials=3, stages=3, startup_trials=1)
    study = search.open(_url(tmp_path), "one")
    search.run(study, tmp_path)
    assert [tried.state for tried in tries(study)] == ["finished", "pruned", "pruned"]
    assert [tried.stages for tried in tries(study)] == [3, 1, 1]
    assert len(calls) == 5
    assert search.best(study).origin.trial == 0  # type: ignore[union-attr]


def test_a_trial_that_diverges_is_pruned_and_the_search_goes_on(
    store: FeatureStore, tmp_path: Path
) -> None:
    tokens = {name: array.copy() for name, array in store.tokens.items()}
    search = _search(replace(store, tokens=tokens), trials=1)
    tokens["rgb"][:] = np.inf  # after the statistics were taken
    study = search.open(_url(tmp_path), "one")
    search.run(study, tmp_path)
    assert [tried.state for tried in tries(study)] == ["pruned"]
    with pytest.raises(ModelError, match="found nothing"):
        search.best(study)


def test_an_interrupted_search_goes_on_as_if_nothing_had_been(
    store: FeatureStore, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = _search(store, trials=3, stages=1)
    study = whole.open(_url(tmp_path / "a"), "one")
    whole.run(study, tmp_path)
    expected = [trial.params for trial in study.get_trials()]

    scored = 0

    def interrupted(classifier: Classifier) -> float:
        nonlocal scored
        scored += 1
        if scored == 2:
            raise KeyboardInterrupt
        return _size_of_a_code(classifier)

    search = _search(store, interrupted, trials=2, stages=1)
    study = search.open(_url(tmp_path / "b"), "one")
    with pytest.raises(KeyboardInterrupt):
        search.run(study, tmp_path)
    assert [tried.state for tried in tries(study)] == ["finished", "failed"]

    again = _search(store, trials=2, stages=1)
    study = again.open(_url(tmp_path / "b"), "one")
    again.run(study, tmp_path)
    states = [tried.state for tried in tries(study)]
    assert states == ["finished", "failed", "finished"]
    assert [trial.params for trial in study.get_trials()] == expected
    again.run(study, tmp_path)  # there is nothing left to do
    assert len(tries(study)) == 3


def test_a_second_one_joins(store: FeatureStore, tmp_path: Path) -> None:
    first, second = (_search(store, trials=4, stages=1) for _ in range(2))
    studies = [search.open(_url(tmp_path), "one") for search in (first, second)]
    inner = threading.Event()

    def meanwhile(tried: Tried) -> None:
        if not inner.is_set():
            inner.set()
            second.run(studies[1], tmp_path)

    first.run(studies[0], tmp_path, meanwhile)
    found = tries(studies[0])
    assert [tried.number for tried in found] == list(range(4))
    assert len({str(trial.params) for trial in studies[0].get_trials()}) == 4
    assert first.best(studies[0]) == second.best(studies[1])


@pytest.mark.slow
def test_processes_share_a_study(tmp_path: Path) -> None:
    program = Path(__file__).with_name("search_worker.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(program), str(tmp_path), name],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    while len(list(tmp_path.glob("*.ready"))) < 2:
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.05)
    (tmp_path / "go").touch()  # both open a study that is not there yet
    parts = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    numbers = sorted(map(int, parts[0] + parts[1]))
    # Both may begin what each believes to be the last one.
    assert all(parts) and len(numbers) in (8, 9) and numbers == list(range(len(numbers)))
    found = optuna.load_study(study_name="one", storage=_url(tmp_path)).get_trials()
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in found)
    assert len({str(trial.params) for trial in found}) == len(numbers)


def test_a_study_of_another_task_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    search = _search(store, trials=1)
    search.open(_url(tmp_path), "one")
    oracle = Search(
        search.learner,
        Measure("oracle (uses labels)", _size_of_a_code),
        search.config,
        {"pictures": "one"},
    )
    with pytest.raises(ModelError, match=r"(?s)basis: oracle.*basis: without labels"):
        oracle.open(_url(tmp_path), "one")
    fewer = _learner(store, NAMES[:2])
    with pytest.raises(ModelError, match="modalities"):
        Search(fewer, search.measure, search.config, {"pictures": "one"}).open(
            _url(tmp_path), "one"
        )
    with pytest.raises(ModelError, match="pictures: two"):
        Search(search.learner, search.measure, search.config, {"pictures": "two"}).open(
            _url(tmp_path), "one"
        )
    search.open(_url(tmp_path), "one")
    oracle.open(_url(tmp_path), "another")


@pytest.mark.parametrize(
    "url", ["nonsense", "nodatabase://x", "sqlite:////not/there/search.db", "redis://localhost"]
)
def test_a_database_that_cannot_be_opened_is_explained(store: FeatureStore, url: str) -> None:
    with pytest.raises(ModelError, match="cannot open the trials"):
        _search(store, trials=1).open(url, "one")


def test_a_password_is_not_shown(store: FeatureStore) -> None:
    with pytest.raises(ModelError) as error:
        _search(store, trials=1).open("nodatabase://me:secret@host/db", "one")
    assert "secret" not in str(error.value)


def test_a_score_that_is_no_number_ends_the_search(store: FeatureStore, tmp_path: Path) -> None:
    search = _search(store, lambda classifier: float("nan"), trials=2)
    study = search.open(_url(tmp_path), "one")
    with pytest.raises(ModelError, match="cannot be scored"):
        search.run(study, tmp_path)
    assert len(tries(study)) == 1


def test_steadiness_is_comparable_and_puts_a_collapsed_model_behind() -> None:
    nan = float("nan")
    assert steadiness(Criteria(0.1, 0.9, 0.1, 0.4, 0.8)) == pytest.approx(0.6)
    assert steadiness(Criteria(9.0, 0.9, 0.1, 0.8)) == pytest.approx(0.8)
    assert steadiness(Criteria(0.1, 0.3, 1.0, 1.0, 1.0)) <= 0
    assert np.isnan(steadiness(Criteria(0.1, 0.9, 1.0, nan, nan)))


def test_a_real_score_finds_the_better_of_trials(store: FeatureStore, tmp_path: Path) -> None:
    def score(classifier: Classifier) -> float:
        return steadiness(criteria(classifier, store, mirrored=store))

    search = _search(store, score, trials=2, stages=1)
    study = search.open(_url(tmp_path), "one")
    search.run(study, tmp_path)
    best = search.best(study)
    assert best.origin is not None
    assert best.origin.score == max(tried.score for tried in tries(study))  # type: ignore[type-var]
    assert -1 < best.origin.score <= 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.replace("rate:", "speed:"), "speed: Extra inputs"),
        (lambda content: content.replace("code_dim: 70", "code_dim: 0"), "code_dim"),
        (lambda content: content.replace("weight: 0.5", "weight: -0.5"), "weight"),
        (lambda content: content.replace("weight: 0.5", "weight: .nan"), "weight"),
        (lambda content: "- a\n- b", "file: Input should be"),
        (lambda content: "a: [", "line 1, column 5"),
    ],
)
def test_settings_that_are_not_right_are_explained(
    tmp_path: Path, change: object, expected: str
) -> None:
    terms = {"own": 0.1, "knn": 0.2, "random": 0.3}
    how = {"weight": 0.5, "terms": terms, "shifts": terms}
    path = tmp_path / "settings.yaml"
    Settings.model_validate({"modalities": {"rgb": how}, "code_dim": 70, "rate": 1e-4}).write(path)
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(ModelError, match=expected):
        Settings.load(path)


def test_settings_of_other_modalities_are_refused(store: FeatureStore) -> None:
    terms = {"own": 0.1, "knn": 0.2, "random": 0.3}
    how = {"weight": 0.5, "terms": terms, "shifts": terms}
    settings = Settings.model_validate({"modalities": {"rgb": how}, "code_dim": 7, "rate": 1e-4})
    with pytest.raises(ModelError, match="do not fit"):
        settings.applied(recipe("unim2", ("rgb", "nir"), 6, 3))
    with pytest.raises(ModelError, match="do not fit"):
        settings.applied(recipe("kmeans", ("rgb",), 6, 3))
    assert settings.applied(recipe("rgb_only", ("rgb", "nir"), 6, 3)).network.code_dim == 7
