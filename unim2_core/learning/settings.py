"""Numbers of a training that were found by a search, as a YAML file for ``unim2 train``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unim2_core.errors import ModelError, cause
from unim2_core.files import write_atomically
from unim2_core.learning.correspondence import Shifts
from unim2_core.learning.methods import Recipe
from unim2_core.learning.objective import ModalityLoss, TermWeights

Basis = Literal["without labels", "oracle (uses labels)"]
"""What a search went by; every result of one says so."""

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Shift = Annotated[float, Field(ge=-1, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TermSettings(_Strict):
    """a of each term of the loss."""

    own: Weight = Field(description="a picture with itself")
    knn: Weight = Field(description="with one that is like it")
    random: Weight = Field(description="with any other")


class ShiftSettings(_Strict):
    """b of each term, a cosine."""

    own: Shift = Field(description="a picture with itself")
    knn: Shift = Field(description="with one that is like it")
    random: Shift = Field(description="with any other")


class ModalitySettings(_Strict):
    """How one modality counts."""

    weight: Weight = Field(description="of its loss in the sum")
    terms: TermSettings = Field(description="weights of its terms")
    shifts: ShiftSettings = Field(description="cosines above which features attract")

    @property
    def loss(self) -> ModalityLoss:
        """As the objective takes it."""
        terms, shifts = self.terms, self.shifts
        return ModalityLoss(
            self.weight,
            TermWeights(own=terms.own, knn=terms.knn, random=terms.random),
            Shifts(own=shifts.own, knn=shifts.knn, random=shifts.random),
        )


class Origin(_Strict):
    """The search that found the settings."""

    basis: Basis = Field(description="what it went by")
    score: float = Field(description="of the trial")
    study: str = Field(description="its name")
    trial: int = Field(description="its number in the study")


class Settings(_Strict):
    """Numbers of a training that take the place of a recipe's."""

    modalities: dict[str, ModalitySettings] = Field(
        min_length=1, description="modality: how it counts; the first is the reference"
    )
    code_dim: int = Field(ge=1, description="width of a code")
    rate: float = Field(gt=0, allow_inf_nan=False, description="learning rate of the network")
    origin: Origin | None = Field(None, description="where they come from; null: written by hand")

    @property
    def uses_labels(self) -> bool:
        """Whether labels had a part in finding them."""
        return self.origin is not None and self.origin.basis != "without labels"

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read and validate a file.

        Raises:
            ModelError: it is missing, is not YAML, or a key is unknown, missing or out of range.
        """
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise _unusable(path, cause(error)) from error
        except ValidationError as error:
            found = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}"
                for problem in error.errors()
            )
            raise _unusable(path, found) from error

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        content = self.model_dump(mode="json", exclude_none=True)
        write_atomically(path, yaml.safe_dump(content, sort_keys=False).encode())

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with these numbers; its shifts are then given and no longer measured.

        Raises:
            ModelError: nothing is trained, or a modality of the recipe has no numbers here.
        """
        names = recipe.network.modalities
        missing = [name for name in names if name not in self.modalities]
        if missing or recipe.method == "kmeans":
            raise ModelError(
                "the settings do not fit the training",
                expected=f"a method that trains, of some of {', '.join(self.modalities)}",
                found=f"{recipe.method} of {', '.join(names)}",
                remedy="search again for these --modalities, or leave out --config",
            )
        losses: Mapping[str, ModalityLoss] = {name: self.modalities[name].loss for name in names}
        return replace(
            recipe,
            network=replace(recipe.network, code_dim=self.code_dim),
            objective=replace(recipe.objective, modalities=losses),
            trainer=replace(recipe.trainer, rate=self.rate),
            shares=None,
        )


def _unusable(path: Path, found: str) -> ModelError:
    return ModelError(
        f"cannot use the settings in {path}",
        expected="the keys modalities: {NAME: {weight, terms, shifts}}, code_dim and rate",
        found=found,
        remedy="write one with: unim2 search --out settings.yaml",
    )
