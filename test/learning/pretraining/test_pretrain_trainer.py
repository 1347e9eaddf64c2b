from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from unim2_core.errors import ModelError
from unim2_core.learning.observers import Observer
from unim2_core.learning.pretraining import trainer as module
from unim2_core.learning.pretraining.objective import PretrainWeights
from unim2_core.learning.pretraining.pictures import PixelStore
from unim2_core.learning.pretraining.trainer import PretrainConfig, pretrain, statistics
from unim2_core.model.tiny import TinyBackbone

STEPS = 6


def _config(**changes: object) -> PretrainConfig:
    usual = {
        "steps": STEPS,
        "batch": 2,
        "checkpoint_every": 2,
        "log_every": 1,
        "precision": "fp32",
        "device": "cpu",
        "weights": PretrainWeights(prototypes=8),
    }
    return PretrainConfig(**(usual | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def store() -> PixelStore:
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (4, 2, 64, 96, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:8, :12]
    own = np.stack([(columns + 0.5) / 12, (rows + 0.5) / 8], -1).astype(np.float32)
    places = np.broadcast_to(own, (4, 2, *own.shape)).copy()
    return PixelStore(("rgb", "nir"), images, np.ones((4, 2), np.bool_), places)


class Log(Observer):
    """Remembers; breaks the training off after a step."""

    def __init__(self, stop_after: int = -1) -> None:
        self.stop_after = stop_after
        self.values: dict[int, Mapping[str, float]] = {}
        self.began = self.status = ""

    def start(self, facts: Mapping[str, object], resumed_from: int) -> None:
        self.began = str(resumed_from)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.values[step] = values
        if step == self.stop_after:
            raise KeyboardInterrupt

    def close(self, status: str) -> None:
        self.status = status


@pytest.fixture(scope="module")
def whole(store: PixelStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyBackbone, Log]:
    log = Log()
    made = pretrain(store, _config(), tmp_path_factory.mktemp("whole"), observers=[log])
    return made, log


def _same(one: TinyBackbone, other: TinyBackbone) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    store: PixelStore, tmp_path: Path, whole: tuple[TinyBackbone, Log], stop: int
) -> None:
    broken = Log(stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(store, _config(), tmp_path, observers=[broken])
    assert broken.status == "interrupted"
    log = Log()
    made = pretrain(store, _config(), tmp_path, observers=[log])
    # The state is saved after the step is told of.
    assert int(log.began) == 2 * ((stop - 1) // 2)
    assert _same(made, whole[0])
    assert log.values[STEPS] == whole[1].values[STEPS]


def test_it_learns_something_and_standardizes_what_it_gives(
    store: PixelStore, whole: tuple[TinyBackbone, Log]
) -> None:
    made, log = whole
    assert log.status == "finished"
    assert not _same(made, TinyBackbone.untrained(0))
    assert log.values[STEPS]["loss/hidden"] < log.values[1]["loss/hidden"]
    images = torch.from_numpy(store.images.reshape(-1, 64, 96, 3)).permute(0, 3, 1, 2)
    normal = module.MODALITIES["rgb"]
    mean, std = (torch.tensor(v)[:, None, None] for v in (normal.mean, normal.std))
    with torch.no_grad():
        tokens = made((images / 255 - mean) / std).flatten(0, 2)
    assert tokens.mean(0).abs().max() < 1e-2
    deviation = tokens.std(0)
    assert deviation.max() < 1.01
    assert (deviation > 0.99).float().mean() > 0.9  # what hardly varies is not blown up


def test_another_run_in_that_place_is_refused(store: PixelStore, tmp_path: Path) -> None:
    pretrain(store, _config(steps=2), tmp_path, facts={"pictures": "these"})
    with pytest.raises(ModelError, match="another training"):
        pretrain(store, _config(steps=2), tmp_path, facts={"pictures": "others"})
    with pytest.raises(ModelError, match="another training"):
        pretrain(store, _config(steps=2, rate=1.0), tmp_path, facts={"pictures": "these"})


def test_it_begins_with_the_weights_that_are_given(store: PixelStore, tmp_path: Path) -> None:
    start = TinyBackbone.untrained(9)
    first = {name: value.clone() for name, value in start.transformer.state_dict().items()}
    made = pretrain(store, _config(steps=1, rate=1e-9), tmp_path, start=start)
    for name, value in made.transformer.state_dict().items():
        torch.testing.assert_close(value, first[name], atol=1e-6, rtol=1e-4)


def test_a_loss_that_is_no_number_ends_it_and_names_the_term(
    store: PixelStore, tmp_path: Path
) -> None:
    start = TinyBackbone.untrained(0)
    with torch.no_grad():
        start.transformer.norm.bias.fill_(float("inf"))
    with pytest.raises(ModelError, match="step 0 is not a number") as error:
        pretrain(store, _config(), tmp_path, start=start)
    assert "hidden" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_it_is_measured_on_the_way(store: PixelStore, tmp_path: Path) -> None:
    log = Log()
    seen = []

    def measure(backbone: TinyBackbone) -> dict[str, float]:
        seen.append(backbone)
        return {"held/x": float(len(seen))}

    pretrain(store, _config(measure_every=2), tmp_path, observers=[log], measure=measure)
    assert [step for step, values in log.values.items() if "held/x" in values] == [2, 4]
    assert not _same(seen[0], seen[1])


def test_rates_warm_up_and_fall_and_prototypes_come_late() -> None:
    config = PretrainConfig(steps=100)
    assert config.multiplier(0) == pytest.approx(1 / 3)
    assert config.multiplier(3) == 1
    assert config.multiplier(99) < 0.001
    assert config.assigned(15) == 0 < config.assigned(16) < config.assigned(20) == 1
    assert config.teacher_decay(0) == 0.99
    assert config.teacher_decay(100) == pytest.approx(0.998)


@pytest.mark.parametrize("changes", [{"steps": 0}, {"batch": 0}, {"rate": 0.0}])
def test_what_cannot_be_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ModelError, match=next(iter(changes))):
        _config(**changes)


def test_statistics_are_those_of_the_images(store: PixelStore) -> None:
    normal = module.MODALITIES["rgb"]
    unit = torch.from_numpy(store.images.reshape(-1, 3)).double() / 255
    values = (unit - torch.tensor(normal.mean)) / torch.tensor(normal.std)
    mean, scale = statistics(lambda image: image.permute(0, 2, 3, 1), store)
    torch.testing.assert_close(mean.double(), values.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(scale.double(), 1 / values.std(0), atol=1e-4, rtol=0)
