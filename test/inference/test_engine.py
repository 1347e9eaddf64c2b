from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from unim2_core.errors import ModelError
from unim2_core.files import sha256
from unim2_core.inference.engine import Engine
from unim2_core.model.bundle import BACKBONE, HEAD, MANIFEST, PARITY, Bundle


def test_answers_equal_what_torch_stored(model_path: Path) -> None:
    bundle = Bundle(model_path)
    stored = bundle.parity()
    engine = Engine(bundle)
    tokens = engine.tokens(stored["images"])
    # A deviation is the root of a difference, 1e-3 at least: float32's 1e-7 there gives 5e-5.
    np.testing.assert_allclose(tokens, stored["tokens"], rtol=1e-4, atol=5e-5)
    classes, confidence = engine.classify(tokens, np.ones(tokens.shape[:3], np.float32))
    assert confidence.shape == classes.shape
    differ = classes != stored["classes"]
    assert differ.mean() < 0.005
    assert (confidence[differ] <= 1).all()  # ties only


@pytest.mark.parametrize("name", ["tokens", "classes"])
def test_an_engine_that_computes_something_else_is_refused(
    model_path: Path, tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))
    stored = Bundle(copy).parity()
    stored[name] = stored[name][:, ::-1].copy() if name == "tokens" else stored[name][::-1].copy()
    np.savez_compressed(copy / PARITY, **stored)
    text = (copy / MANIFEST).read_text()
    text = text.replace(sha256(model_path / PARITY), sha256(copy / PARITY))
    (copy / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match="does not compute what"):
        Engine(Bundle(copy))


def test_graphs_with_other_inputs_are_refused(model_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))
    shutil.copyfile(copy / BACKBONE, copy / HEAD)
    text = (copy / MANIFEST).read_text()
    text = text.replace(sha256(model_path / HEAD), sha256(copy / HEAD))
    (copy / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match="cannot run the graphs"):
        Engine(Bundle(copy))


def test_unknown_backend(model_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown backend"):
        Engine(Bundle(model_path), "abacus")  # type: ignore[arg-type]
