"""Pre-training with everything that a person wants to see of it. Needs torch."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, progress
from unim2_core.cli.training import Bar, quiet
from unim2_core.data.drive_labels import SYNTHETIC
from unim2_core.data.drive_pictures import DrivePictures, encodings_of
from unim2_core.data.pictures import PictureSource
from unim2_core.data.synthetic import DriveConfig, default_rig
from unim2_core.data.synthetic_set import RATE_HZ, drive_configs, rendered
from unim2_core.data.views import Kept
from unim2_core.evaluation.linear_probe import linear_probe, told_by_reference
from unim2_core.files import sha256, write_atomically
from unim2_core.learning.feature_cache import open_features
from unim2_core.learning.observers import HISTORY, Observer, read_history
from unim2_core.learning.pretraining.pictures import PixelStore, open_pixels, pixel_bytes
from unim2_core.learning.pretraining.trainer import PretrainConfig, pretrain
from unim2_core.model.frozen import TINY, FrozenBackbone
from unim2_core.model.texture import TextureFeatures
from unim2_core.model.tiny import TinyBackbone

MODALITIES = ("rgb", "depth", "thermal", "nir", "aolp")
FITTED_ON, MEASURED_ON = 200, 300
"""First seeds of the synthetic worlds that measure, beside those that are learnt from."""
HELD_DRIVES, HELD_SECONDS = 4, 4.0
HELD_SIZE = (240, 320)
HELD_SHARE = 10
"""Of pictures without labels, the last tenth measures, and the tenth before it fits."""
PARTS = {
    "all": slice(None),
    "simple": slice(0, TextureFeatures.embed_dim),
    "transformer": slice(TextureFeatures.embed_dim, None),
}


@dataclass(frozen=True, eq=False)
class Held:
    """Pictures that are not learnt from.

    Attributes:
        fit: what a linear map is fitted on.
        test: what it is measured on.
    """

    fit: PictureSource
    test: PictureSource

    @property
    def labelled(self) -> bool:
        """Whether labels measure; else the other sensors do."""
        return self.test.classes is not None

    @property
    def what(self) -> str:
        """The measure, in words."""
        if self.labelled:
            return "linear probe, mIoU % on held-out pictures"
        if len(self.test.modalities) == 1:
            return "without labels and without a second sensor nothing measures"
        return "simple features of other sensors told from the reference, % of the variance"

    def __call__(self, backbone: TinyBackbone) -> dict[str, float]:
        """Figures of both halves and of the whole, percent; none where nothing measures."""
        if not self.labelled and len(self.test.modalities) == 1:
            return {}
        with tempfile.TemporaryDirectory() as scratch:
            frozen = FrozenBackbone.of(backbone, TINY)
            fit, test = (
                open_features(part, frozen, Path(scratch)) for part in (self.fit, self.test)
            )
            found: dict[str, float] = {}
            for part, channels in PARTS.items():
                if self.labelled:
                    names = fit.modalities
                    one = linear_probe(fit, test, names[:1], channels=channels).mean_iou
                    every = linear_probe(fit, test, names, channels=channels).mean_iou
                    found |= {f"held/{part}/{names[0]}": one, f"held/{part}/all sensors": every}
                else:
                    found[f"held/{part}"] = told_by_reference(fit, test, channels=channels)
        return {name: round(100 * value, 2) for name, value in found.items()}


def synthetic_pictures(drives: int, size: tuple[int, int], folder: Path) -> PictureSource:
    """Pictures of short drives, each through another world."""
    with progress("rendering drives", drives) as advance:
        bags = rendered(drive_configs(drives), folder, advance)
    return _pictures(bags, size, labelled=False)


def synthetic_held(folder: Path) -> Held:
    """Labelled pictures of worlds of other seeds."""
    parts = []
    for first in (FITTED_ON, MEASURED_ON):
        configs = drive_configs(HELD_DRIVES, first_seed=first, seconds=HELD_SECONDS)
        bags = rendered(configs, folder)
        pictures = _pictures(bags, HELD_SIZE, labelled=True)
        parts.append(Kept(pictures, range(pictures.limit)))
    return Held(*parts)


def _pictures(bags: Sequence[Path], size: tuple[int, int], *, labelled: bool) -> DrivePictures:
    return DrivePictures(
        bags,
        default_rig(DriveConfig(rate_hz=RATE_HZ)),
        encodings_of(MODALITIES),
        size=size,
        patch_size=TinyBackbone.patch_size,
        labels=SYNTHETIC if labelled else None,
        warn=lambda text: None,  # that the slow cameras pair seldom at this rate is known
    )


def held_of(pictures: PictureSource, count: int) -> Held:
    """The last pictures of a source: ``count`` is how many it has."""
    tenth = max(1, count // HELD_SHARE)
    return Held(
        Kept(pictures, range(count - 2 * tenth, count - tenth)),
        Kept(pictures, range(count - tenth, count)),
    )


def learnt_from(store: PixelStore) -> PixelStore:
    """What ``held_of`` leaves of the pictures."""
    rest = len(store) - 2 * max(1, len(store) // HELD_SHARE)
    return PixelStore(
        store.modalities, store.images[:rest], store.there[:rest], store.places[:rest]
    )


def pixels_of(pictures: PictureSource, cache: Path) -> PixelStore:
    """All pictures as pixels; says how large they get before it begins."""
    size = pixel_bytes(pictures, TinyBackbone.patch_size)
    console.print(escape(f"pictures: at most {size / 1e6:.0f} MB in {cache}"))
    with progress("pictures", pictures.limit) as advance:
        return open_pixels(pictures, TinyBackbone.patch_size, cache, advance)


def pretrain_backbone(
    store: PixelStore,
    held: Held,
    config: PretrainConfig,
    out: Path,
    run: Path,
    *,
    start: TinyBackbone | None,
    observers: tuple[Observer, ...],
    facts: Mapping[str, object],
    licence: str,
) -> dict[str, Any]:
    """Train, measure, and write the weights and their card; returns what the card says.

    Raises:
        Unim2Error: the loss is not finite, or something cannot be written.
    """
    with console.status("measuring what it begins with"):
        before = held(start or TinyBackbone.untrained(config.seed))
    quiet()
    with progress("pre-training", config.steps) as advance:
        made = pretrain(
            store,
            config,
            run,
            start=start,
            observers=(Bar(advance), *observers),
            measure=held,
            facts=facts,
        )
    after = held(made)
    table = Table("features", "before", "after", title=held.what)
    for name, value in after.items():
        table.add_row(name.removeprefix("held/"), f"{before[name]:.1f}", f"{value:.1f}")
    console.print(table if after else held.what)
    report = {
        "pictures": len(store),
        "modalities": list(store.modalities),
        "measure": held.what,
        "before": before,
        "after": after,
        "recipe": asdict(config),
        **facts,
    }
    report["curve"] = {
        line["step"]: at
        for line in read_history(run / HISTORY)
        if (at := {k: v for k, v in line.get("scalars", {}).items() if k.startswith("held/")})
    }
    made.save(out, report)
    write_atomically(out.with_suffix(".md"), card(out, report, licence).encode())
    return report


def card(weights: Path, report: Mapping[str, Any], licence: str) -> str:
    """What a person should know of the weights, Markdown."""
    steps = {"before": report["before"], **report["curve"], "after": report["after"]}
    head = " | ".join(f"step {step}" if isinstance(step, int) else step for step in steps)
    table = [f"| features | {head} |", f"|---|{'---|' * len(steps)}"]
    for name in report["after"]:
        figures = " | ".join(f"{at[name]:.1f}" for at in steps.values())
        table.append(f"| {name.removeprefix('held/')} | {figures} |")
    measured = report["measure"]
    if report["after"]:
        measured = "\n".join([f"{measured}:", "", *table])
    recipe = json.dumps(report["recipe"], sort_keys=True)
    return f"""# {weights.name}

A small backbone for `unim2`: colour and texture in four windows of 8 to 120 pixels, and beside
them a vision transformer (192 wide, 6 deep, patches of 8 pixels), as one network.

- **For** trying, tests, and a first look at a drive. Not for a robot: use DINOv3 there.
- **Data**: {report["data"]}; {report["pictures"]} pictures of {", ".join(report["modalities"])}.
  No label had a part in it.
- **Recipe**: `unim2 pretrain`; `{recipe}`
- **Limits**: it has seen no more than that data. What looks otherwise, it tells apart by colour
  and texture at best. What a linear layer finds in the features, clusters need not find.
- **Licence**: {licence}
- **sha256**: `{sha256(weights)}`

{measured}
"""
