"""The reference release's options, read as our configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unim2_core.learning.correspondence import CorrespondenceConfig, Shifts
from unim2_core.learning.objective import ModalityLoss, ObjectiveConfig, TermWeights
from unim2_core.model.segmenter import SegmenterConfig

Options = Mapping[str, Any]

UPPER_CLAMP = 0.8
"""Of the code correspondences, where the release's ``stabalize`` is set."""


def options_of(config_json: object) -> Options:
    """Read the 0-d string array of a golden file."""
    options: Options = json.loads(str(config_json))
    return options


def segmenter_config(options: Options) -> SegmenterConfig:
    """The network that the options describe."""
    fusion = options["modality_fusion_method"]
    if fusion == "conv" and options["dataset_name"] == "mcubes":
        fusion = "progressive"
    normalized = options["normalize_before_fusion"]
    return SegmenterConfig(
        modalities=tuple(options["modals"]),
        feature_dim=options["modality_fusion_output_dim"],
        code_dim=options["dim"],
        fusion=fusion,
        normalization=options["normalization_type"] if normalized else "none",
        residual=options["use_modality_residual"],
        projection="nonlinear" if options["projection_type"] == "nonlinear" else "linear",
        harmonizer="shared" if options["use_modal_projection_head"] else "none",
        harmonize_reference=options["rgb_use_soft_alignment"],
        harmonize_others=options["nonrgb_use_soft_alignment"],
        dropout=0.1 if options["dropout"] else 0.0,
    )


def correspondence_config(options: Options) -> CorrespondenceConfig:
    """The correspondence loss that the options describe."""
    return CorrespondenceConfig(
        samples=options["feature_samples"],
        negatives=options["neg_samples"],
        pointwise=options["pointwise"],
        clamp_negative=options["zero_clamp"],
        clamp_above=UPPER_CLAMP if options["stabalize"] else None,
        weighting=options["weight_activation"] if options.get("use_modality_weight") else "none",
        weight_reference=options.get("rgb_use_weight", False),
        salience=options["use_salience"],
    )


def objective_config(options: Options) -> ObjectiveConfig:
    """The objective that the options describe."""
    return ObjectiveConfig(
        modalities={name: _modality_loss(options, name) for name in options["modals"]},
        correspondence=correspondence_config(options),
        reconstruction=options["rec_weight"],
        extra_clusters=options["extra_clusters"],
    )


def _modality_loss(options: Options, name: str) -> ModalityLoss:
    terms = ("pos_intra", "pos_inter", "neg_inter")
    return ModalityLoss(
        weight=options[f"{name}_weight"],
        terms=TermWeights(*(options[f"{name}_{term}_weight"] for term in terms)),
        shifts=Shifts(*(options[f"{name}_{term}_shift"] for term in terms)),
    )
