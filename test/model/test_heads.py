from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from unim2_core.model.heads import ClusterHead


def _inputs(modalities: int, clusters: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    width = 6
    return {
        "tokens": rng.normal(size=(modalities, 3, 4, width)).astype(np.float32),
        "presence": np.ones((modalities, 3, 4), np.float32),
        "mean": rng.normal(size=(modalities, width)).astype(np.float32),
        "scale": rng.uniform(0.5, 2, (modalities, width)).astype(np.float32),
        "prototypes": rng.normal(size=(clusters, modalities, width)).astype(np.float32),
        "valid": np.ones(clusters, np.float32),
        "full_margin": np.array(0.3, np.float32),
    }


def _run(inputs: dict[str, np.ndarray], patch_size: int, stride: int) -> tuple[np.ndarray, ...]:
    head = ClusterHead(patch_size, stride)
    outputs = head(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    return tuple(output.numpy() for output in outputs)


def _cosines(inputs: dict[str, np.ndarray], row: int, column: int) -> list[float]:
    """The cosine of one token and every centre, over what is present, written out."""
    here = np.flatnonzero(inputs["presence"][:, row, column])
    token = []
    for m in here:
        part = (inputs["tokens"][m, row, column] - inputs["mean"][m]) * inputs["scale"][m]
        token.append(part / np.linalg.norm(part))
    token = np.concatenate(token)
    answers = []
    for k, prototype in enumerate(inputs["prototypes"]):
        centre = np.concatenate([prototype[m] for m in here])
        cosine = token @ centre / np.linalg.norm(token) / np.linalg.norm(centre)
        answers.append(cosine if inputs["valid"][k] else -np.inf)
    return answers


@pytest.mark.parametrize("presence", [(1, 1, 1), (1, 0, 1), (0, 1, 0)])
def test_nearest_centre_by_cosine_over_what_is_present(presence: tuple[int, ...]) -> None:
    inputs = _inputs(3, 5, seed=1)
    inputs["presence"][:] = np.array(presence, np.float32)[:, None, None]
    inputs["presence"][:, 1, 2] = (0, 1, 1)  # what one place sees is no other's business
    classes, confidence = _run(inputs, patch_size=8, stride=8)
    assert classes.shape == confidence.shape == (3, 4)
    for row in range(3):
        for column in range(4):
            cosines = _cosines(inputs, row, column)
            assert classes[row, column] == np.argmax(cosines)
            second, first = np.sort(cosines)[-2:]
            expected = 255 * min((first - second) / 0.3, 1)
            assert confidence[row, column] == pytest.approx(expected, abs=0.51)


def test_a_centre_out_of_use_never_wins() -> None:
    inputs = _inputs(2, 4, seed=2)
    inputs["prototypes"][3] = inputs["prototypes"][0] + 0.01
    inputs["valid"][0] = 0
    classes, _ = _run(inputs, patch_size=8, stride=8)
    assert 0 not in classes
    inputs["valid"][0], inputs["valid"][3] = 1, 0
    assert 0 in _run(inputs, patch_size=8, stride=8)[0]


def test_the_output_is_at_the_stride() -> None:
    classes, confidence = _run(_inputs(1, 3, seed=3), patch_size=16, stride=4)
    assert classes.shape == confidence.shape == (12, 16)
    assert classes.dtype == confidence.dtype == np.uint8


def test_a_place_that_nothing_sees_is_unlabelled() -> None:
    inputs = _inputs(2, 3, seed=4)
    inputs["presence"][:, 2, 1] = 0
    classes, confidence = _run(inputs, patch_size=8, stride=4)
    assert (classes[4:6, 2:4] == 255).all()
    assert (confidence[4:6, 2:4] == 0).all()
    assert (classes != 255).sum() == classes.size - 4
