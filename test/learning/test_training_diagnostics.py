"""Histograms against plain arithmetic, of what the modalities see."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from training_samples import CONFIG, batches, draws_of, objective

from unim2_core.learning.diagnostics import assigned_clusters, cluster_use, correspondences

torch.set_num_threads(1)


def test_use_of_clusters() -> None:
    even = cluster_use(torch.arange(8).view(2, 2, 2) % 4, 4)
    assert even == pytest.approx(
        {"clusters/used": 4, "clusters/largest_share": 0.25, "clusters/entropy": 1}
    )
    collapsed = cluster_use(torch.full((2, 3, 3), 2), 4)
    assert collapsed["clusters/used"] == 1 and collapsed["clusters/entropy"] == 0
    assert cluster_use(torch.zeros(3, dtype=torch.int64), 1)["clusters/entropy"] == 0


def test_clusters_are_those_of_the_cosine() -> None:
    model, given = objective().eval(), batches(0)
    code = model.segmenter(given.anchors).code
    centers = model.cluster_probe.centers
    expected = torch.stack(
        [torch.cosine_similarity(code, center[None, :, None, None]) for center in centers], dim=1
    ).argmax(dim=1)
    assert assigned_clusters(model, given).equal(expected)


@pytest.mark.parametrize("hidden", [False, True])
def test_correspondences_at_cells(hidden: bool) -> None:
    config = replace(CONFIG, correspondence=replace(CONFIG.correspondence, cells=True))
    model, given = objective(config=config).eval(), batches(0)
    presence = {name: torch.ones(4, 4, 4) for name in ("rgb", "thermal")}
    if hidden:
        presence["thermal"][1:] = 0
        given = given._replace(presence=(presence, presence))
    found = correspondences(model, given, draws_of(model, given, 0))
    one, other = given.anchors["thermal"][0].flatten(1), given.positives["thermal"][0].flatten(1)
    cosines = torch.nn.functional.normalize(one, dim=0).T @ torch.nn.functional.normalize(
        other, dim=0
    )
    seen = found["correspondence/knn/features/thermal"]
    assert seen.shape == ((1 if hidden else 4) * 256,)
    torch.testing.assert_close(seen[:256], cosines.flatten())
    assert found["correspondence/own/code/rgb"].shape == (4 * 256,)
    # Nothing that is paired at random with the one image that is seen is seen itself.
    assert found["correspondence/random/code/thermal"].numel() == (0 if hidden else 4 * 256)
    assert not any(values.requires_grad for values in found.values())
