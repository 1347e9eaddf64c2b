"""Where the trials of a search are kept, any database of SQLAlchemy, and what they draw."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from unim2_core.errors import ModelError

HEARTBEAT_S, GRACE_S = 30, 150
"""A running trial shows so often that it lives; one without a sign for so long has failed."""
BUSY_S = 60
"""How long a process waits while another writes to the file."""
BEGINNINGS, BEGIN_AGAIN_S = 20, 0.25
"""A database is looked at again, so often, where another process begins it at the same time."""


def open_database(url: str) -> optuna.storages.RDBStorage:
    """Open the database of a URL, or begin it; its folder must be there.

    Raises:
        ModelError: it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what happens is told by the command
    try:
        backend = make_url(url).get_backend_name()
        options = {"connect_args": {"timeout": BUSY_S}} if backend == "sqlite" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _begun(
                lambda: optuna.storages.RDBStorage(
                    url,
                    engine_kwargs=options,
                    heartbeat_interval=HEARTBEAT_S,
                    grace_period=GRACE_S,
                )
            )
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"cannot open the trials in {shown(url)}",
            expected="the URL of a database, such as sqlite:///search.db",
            found=_first_line(error),
            remedy="mend --storage, or install what drives a database of that kind",
        ) from error


def _begun(
    begin: Callable[[], optuna.storages.RDBStorage],
) -> optuna.storages.RDBStorage:
    """Open a database that another process may be making at the same moment."""
    for _ in range(BEGINNINGS):
        try:
            return begin()
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                raise
            time.sleep(BEGIN_AGAIN_S)
    return begin()


def fail_stale_trials(study: optuna.Study) -> None:
    """Give up on trials whose process shows no sign of life any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


@contextmanager
def database_errors() -> Iterator[None]:
    """Explain what a database that worked before does not do any more.

    Raises:
        ModelError: in the place of the error of the database.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise ModelError(
            "the trials cannot be read or written",
            expected="the database that was there before",
            found=_first_line(error.__cause__ or error),
            remedy="see that its disk has room and its server runs; the same command goes on",
        ) from error


def shown(url: str) -> str:
    """A URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return url.partition(":")[0] or "nowhere"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class NumberedSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """TPE whose draws depend on the seed, the number of the trial, and those before it.

    So a search that goes on suggests what it would have suggested, and processes that began
    together with one seed do not all try the same.

    Args:
        seed: of all trials.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tpe = optuna.samplers.TPESampler(seed=seed)

    def before_trial(self, study: Any, trial: Any) -> None:
        """Begin anew for a trial."""
        self._tpe = optuna.samplers.TPESampler(
            seed=(self._seed * 1_000_003 + trial.number) % 2**32
        )
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        """As TPE does."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        """As TPE does."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        """As TPE does."""
        return self._tpe.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """As TPE does."""
        self._tpe.after_trial(study, trial, state, values)
