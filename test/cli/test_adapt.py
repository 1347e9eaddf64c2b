from __future__ import annotations

import hashlib
import json
import resource
import shutil
from pathlib import Path

import adaptation_samples as samples
import pytest
from typer.testing import CliRunner

from unim2_core.cli.main import app
from unim2_core.model.bundle import MEMORY, PARITY, TRAINING, WEIGHTS, Bundle
from unim2_core.model.versions import read_history, served

pytest.importorskip("torch", reason="adapting a model needs torch: pip install 'unim2[train]'")
pytestmark = pytest.mark.slow
runner = CliRunner()


@pytest.fixture
def model(site_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(site_path / "site.unim2", tmp_path / "site.unim2"))


def adapt(model: Path, site: Path, drive: Path, *more: str) -> tuple[int, str, dict]:
    """Exit status, output and the report for machines."""
    report = model.with_name("report.json")
    report.unlink(missing_ok=True)
    result = runner.invoke(
        app,
        [
            *("adapt", str(model), "--bag", str(drive), "--rig", str(site / "rig.yaml")),
            *("--steps", "1", "--json", str(report), *more),
        ],
    )
    content = json.loads(report.read_text()) if report.exists() else {}
    return result.exit_code, result.output, content


def bytes_served(model: Path) -> dict[str, str]:
    """File -> digest of all that is served."""
    names = ["manifest.json", *Bundle(model).manifest.files]
    return {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in names}


def test_a_good_drive_adds_a_version_that_is_served_and_can_be_taken_back(
    site_path: Path, model: Path, tmp_path: Path
) -> None:
    before = bytes_served(model)
    first = Bundle(model)
    drive = samples.write_more(tmp_path / "more", seed=4)
    picture = tmp_path / "report.png"
    status, output, report = adapt(model, site_path, drive, "--report", str(picture))
    assert (status, report["verdict"]) == (0, "accepted"), output
    assert picture.read_bytes().startswith(b"\x89PNG")
    now = served(model)
    assert (now.number, now.sha256) == (1, report["served_sha256"])
    assert any((now.weights[name] != part).any() for name, part in first.weights().items())
    assert [label.id for label in now.labels] == [label.id for label in first.manifest.labels]
    assert Bundle(model).manifest.parent == first.sha256
    [entry] = read_history(model)
    assert entry.details["figures"]["frames"] == 40
    assert "kept_ids/old" in entry.details["limits"]
    out = tmp_path / "out.mcap"
    segment = ["segment", str(drive), "--model", str(model), "--out", str(out)]
    result = runner.invoke(app, [*segment, "--rig", str(site_path / "rig.yaml")])
    assert result.exit_code == 0, result.output  # the gate holds the engine against new answers
    result = runner.invoke(app, ["history", str(model)])
    assert "serves version 1" in result.output
    result = runner.invoke(app, ["rollback", str(model)])
    assert "serves version 0" in result.output, result.output
    assert bytes_served(model) == before
    assert served(model).sha256 == first.sha256
    result = runner.invoke(app, ["rollback", str(model), "--to", "1"])
    assert served(model).sha256 == now.sha256


def test_names_and_merged_classes_outlive_adapting_and_going_back(
    site_path: Path, model: Path, tmp_path: Path
) -> None:
    clusters = Bundle(model).manifest.clusters
    naming = ["name", str(model), "--set", "0=road", "--merge", "0,1", "--unknown", "2"]
    assert runner.invoke(app, naming).exit_code == 0
    named = Bundle(model).manifest
    assert named.served_as == {1: 0, 2: 255}
    drive = samples.write_more(tmp_path / "more", seed=4)
    status, output, report = adapt(model, site_path, drive)
    assert (status, report["verdict"]) == (0, "accepted"), output
    adapted = Bundle(model).manifest
    assert (adapted.labels, adapted.served_as) == (named.labels, named.served_as)
    assert adapted.clusters == clusters
    assert read_history(model)[-1].details["identity"]["ids"] == clusters
    assert runner.invoke(app, ["name", str(model), "--back"]).exit_code == 1
    assert served(model).number == 1, "names do not go back to another version"
    assert runner.invoke(app, ["rollback", str(model)]).exit_code == 0
    assert Bundle(model).manifest.labels == named.labels
    assert runner.invoke(app, ["rollback", str(model), "--to", "1"]).exit_code == 0
    assert served(model).labels == named.labels


def test_weights_go_only_as_far_as_ids_are_kept(
    site_path: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = samples.write_more(tmp_path / "more", seed=4)
    figures = []
    for kept in (0.0, 1.1):  # reached by any model, and by none
        monkeypatch.setattr("unim2_core.learning.outcome.KEPT_IDS", kept)
        copy = tmp_path / f"{kept}.unim2"
        shutil.copytree(model, copy)
        adapt(copy, site_path, drive)
        figures.append(read_history(copy)[0].details["figures"])
    whole, least = figures
    assert (whole["weights_share"], whole["centres_share"]) == (1.0, 1.0)
    assert (least["weights_share"], least["centres_share"]) == (0.2, 0.0)
    assert least["drift"] == pytest.approx(0.2 * whole["drift"], rel=1e-3)
    assert least["kept_ids/old"] >= whole["kept_ids/old"]


POISONS = {
    "black frames": ("rejected", "frames"),
    "black colour": ("rejected", "spread/rgb"),
    "saturated thermal": ("rejected", "spread/thermal"),
    "thermal of another drive": ("review", "together/thermal"),
    "depth that is no number": ("review", "presence/depth"),
    "ten frames": ("rejected", "frames"),
    "one repeated frame": ("rejected", "frames"),
}


@pytest.mark.parametrize("name", POISONS)
def test_what_a_poisoned_drive_teaches_is_not_served(
    name: str, site_path: Path, model: Path, tmp_path: Path
) -> None:
    good = site_path / "day"
    change = {
        "black frames": samples.black,
        "black colour": samples.black_colour,
        "saturated thermal": samples.saturated,
        "thermal of another drive": samples.shuffled(site_path / "night"),
        "depth that is no number": samples.without_depth,
        "ten frames": samples.few,
        "one repeated frame": samples.repeated(good),
    }[name]
    drive = samples.rewritten(good, tmp_path / "drive", change)
    before = bytes_served(model)
    status, output, report = adapt(model, site_path, drive)
    verdict, figure = POISONS[name]
    assert (status, report["verdict"]) == ({"rejected": 3, "review": 4}[verdict], verdict), output
    assert any(reason.startswith(figure) for reason in report["reasons"])
    assert bytes_served(model) == before
    [entry] = read_history(model)
    assert (entry.event, entry.parent) == (verdict, 0)
    assert entry.details["reasons"] == report["reasons"]


def test_a_full_disk_leaves_what_is_served(site_path: Path, model: Path, tmp_path: Path) -> None:
    drive = samples.write_more(tmp_path / "more", seed=4)
    before = bytes_served(model)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))  # the memory is larger
    try:
        status, output, _ = adapt(model, site_path, drive)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 1
    assert "room on its disk" in output
    assert bytes_served(model) == before
    assert not [e for e in read_history(model) if e.event == "accepted"]


def test_a_drive_of_another_rig_is_explained(site_path: Path, model: Path, tmp_path: Path) -> None:
    before = bytes_served(model)

    def without_colour(topic: str, number: int, message: object) -> object:
        return None if topic == "/rgb/image" else message

    drive = samples.rewritten(site_path / "day", tmp_path / "drive", without_colour)
    status, output, _ = adapt(model, site_path, drive)
    assert status == 1
    assert "no images of the sensor rgb" in output
    assert bytes_served(model) == before
    assert read_history(model) == []


def test_several_processes_and_a_rate_that_is_none_are_refused(
    site_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bytes_served(model)
    status, output, _ = adapt(model, site_path, site_path / "night", "--rate", "-1")
    assert status == 1 and "cannot be set up: rate" in output and "to do" in output
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    status, output, _ = adapt(model, site_path, site_path / "night")
    assert status == 1 and "run it without torchrun" in output
    assert bytes_served(model) == before


def test_a_model_without_memory_asks_for_the_old_drives(site_path: Path, model: Path) -> None:
    (model / MEMORY).unlink()
    manifest = json.loads((model / "manifest.json").read_text())
    del manifest["files"][MEMORY]
    (model / "manifest.json").write_text(json.dumps(manifest))
    status, output, _ = adapt(model, site_path, site_path / "night")
    assert status == 1
    assert "--old-bag" in output
    old = ("--old-bag", str(site_path / "day"))
    status, output, report = adapt(model, site_path, site_path / "night", *old)
    assert status in (0, 3, 4), output
    assert report["figures"]["steps"] > 0


def test_a_familiar_drive_needs_no_adapting(site_path: Path, model: Path) -> None:
    before = bytes_served(model)
    status, output, report = adapt(model, site_path, site_path / "day", "--if-shifted")
    assert (status, report["verdict"]) == (0, "not needed"), output
    assert "not adapted" in output and "unlike the remembered" in output
    assert bytes_served(model) == before
    status, output, report = adapt(model, site_path, site_path / "night", "--if-shifted")
    assert report["verdict"] != "not needed", output


def test_another_bundle_is_written_and_the_old_one_stays(
    site_path: Path, model: Path, tmp_path: Path
) -> None:
    before = bytes_served(model)
    drive = samples.write_more(tmp_path / "more", seed=4)
    out = tmp_path / "two.unim2"
    status, output, _ = adapt(model, site_path, drive, "--out", str(out))
    assert status == 0, output
    assert Bundle(out).manifest.number == 1
    assert bytes_served(model) == before
    assert read_history(model) == []
    assert not list(tmp_path.glob(".*"))
    status, output, _ = adapt(model, site_path, drive, "--out", str(out))
    assert status == 1 and "exists" in output


def test_a_model_that_was_not_trained_cannot_be_adapted(
    site_path: Path, model_path: Path, tmp_path: Path
) -> None:
    clusters = Path(shutil.copytree(model_path, tmp_path / "clusters.unim2"))
    old = ("--old-bag", str(site_path / "day"))
    status, output, _ = adapt(clusters, site_path, site_path / "night", *old)
    assert status == 1
    assert "train one with --method unim2" in output
    assert "old drives" not in output
    assert not (clusters / TRAINING).exists()


def test_who_goes_back_meanwhile_is_not_overruled(
    site_path: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unim2_core.cli import adapting
    from unim2_core.model.versions import add_version, changing

    def same(folder: Path) -> None:
        for name in (WEIGHTS, PARITY, TRAINING, MEMORY):
            shutil.copy(model / name, folder)

    drive = samples.write_more(tmp_path / "more", seed=4)
    original = adapting.outcome

    def changed(*arguments: object) -> object:
        found = original(*arguments)  # type: ignore[arg-type]
        with changing(model):
            add_version(Bundle(model), "accepted", Bundle(model).manifest, same, {})
        return found

    monkeypatch.setattr(adapting, "outcome", changed)
    status, output, report = adapt(model, site_path, drive)
    assert (status, report["verdict"]) == (4, "review"), output
    assert [reason.partition(" ")[0] for reason in report["reasons"]] == ["same_parent"]
    assert report["served"] == 1 and report["number"] == 2
