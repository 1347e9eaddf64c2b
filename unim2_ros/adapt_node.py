#!/usr/bin/env python3
"""Learns from what arrives now, beside the node that segments it: ``unim2 adapt``, but live."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unim2_core.cli.adapt import STATUS, print_adaptation
from unim2_core.cli.console import console, write_json
from unim2_core.cli.learning_data import Device, torch_is_here
from unim2_core.cli.main import INTERRUPTED, reported
from unim2_core.cli.options import MAX_SEED, BackendName, JsonFile, RigFile, Topics, rig_from
from unim2_core.inference.pipeline import check_reference
from unim2_core.model.bundle import SUFFIX, Bundle
from unim2_core.model.versions import KEPT
from unim2_core.sensing.registrar import with_depth
from unim2_ros.adaptation_reports import AdaptationReports
from unim2_ros.lifetime import ros, spinning
from unim2_ros.live_pictures import LivePictures, LiveSets, with_rate

if TYPE_CHECKING:
    from unim2_core.cli.adapting import Adaptation

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@reported
def adapt(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help=f"Model bundle, NAME{SUFFIX}.")],
    rig: RigFile = None,
    topic: Topics = None,
    frames: Annotated[int, typer.Option(min=1, help="Pictures of a round.")] = 200,
    max_rate: Annotated[
        float, typer.Option(min=0.01, help="Pictures a second, at most: so much work is done.")
    ] = 1.0,
    wait: Annotated[
        float, typer.Option(min=0.1, help="A round ends when nothing came for so many seconds.")
    ] = 30.0,
    rounds: Annotated[
        int, typer.Option(min=0, help="Adaptations, one after the other; 0: until stopped.")
    ] = 1,
    if_shifted: Annotated[
        bool, typer.Option("--if-shifted", help="Only where the topics are unlike the old drives.")
    ] = False,
    steps: Annotated[
        int, typer.Option(min=1, help="Gradient steps that each picture pays for.")
    ] = 4,
    rate: Annotated[float, typer.Option(help="Learning rate of the network.")] = 5e-4,
    new_classes: Annotated[
        int, typer.Option(min=0, help="Classes that may be added where many places fit none.")
    ] = 0,
    keep: Annotated[int, typer.Option(min=1, help="Versions whose weights are kept.")] = KEPT,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of what is drawn.")] = 0,
    backend: BackendName = "auto",
    device: Device = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Cores for it; the node has the rest.")] = 1,
    json_file: JsonFile = None,
) -> None:
    """Adapt a model to the topics as they come; only what is no worse is served.

    The learner is that of unim2 adapt. A node with watch_model above 0 takes an accepted version
    by itself, another with ~/reload_model. Exit status as unim2 adapt, of the last round: 0
    accepted or not needed, 3 rejected, 4 for review. Other arguments go to ROS.

    Example: unim2 ros adapt site.unim2 --rig rig.yaml --frames 200 --max-rate 1
    """
    torch_is_here()
    import rclpy
    import torch

    from unim2_core.cli.adapting import Plan, adapt_model
    from unim2_core.learning.adapter import AdapterConfig

    sensors = rig_from(rig, topic, root="")
    bundle = Bundle(model)
    check_reference(bundle, sensors)
    # What segments comes first: of the cores, learning takes what nobody else wants.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    torch.set_num_threads(threads)
    made: Adaptation | None = None
    done = 0
    with ros(["--ros-args", *(word for word in context.args if word != "--ros-args")]):
        node = rclpy.create_node("adapt")
        looked_at = {entry.sensor for entry in bundle.manifest.modalities}
        needed = with_rate(with_depth(sensors, looked_at), max_rate)
        sets = LiveSets(node, needed)

        def live(bundle: Bundle, limit: int) -> LivePictures:
            source = LivePictures(sets, bundle.manifest, limit, wait, patient=not rounds)
            reports.source = source
            return source

        plan = Plan(
            *((), needed, model.with_name(f"{model.name.removesuffix(SUFFIX)}.adapt")),
            frames=frames,
            config=AdapterConfig(steps_per_picture=steps, rate=rate, seed=seed, device=device),
            backend=backend,
            new_classes=new_classes,
            kept=keep,
            if_shifted=if_shifted,
            checkpoint_every=0,
            live=live,
            threads=threads,
        )
        reports = AdaptationReports(node, sets, bundle)
        with spinning(node):
            while not rounds or done < rounds:
                made = adapt_model(model, plan, observers=[reports])
                reports.judged(made)
                print_adaptation(made)
                if json_file:
                    write_json(json_file, made.as_json())
                done += 1
        sets.streams.close()
        node.destroy_node()
    if not rounds or done < rounds:
        console.print(f"stopped after {done} rounds; what was accepted stays")
        raise typer.Exit(INTERRUPTED)
    if made is not None and made.judgement is not None and STATUS[made.judgement.verdict]:
        raise typer.Exit(STATUS[made.judgement.verdict])


def main(args: list[str] | None = None) -> None:
    """Run until it is done; ends the process with the exit status of the command."""
    app(args, prog_name="unim2 ros adapt")


if __name__ == "__main__":
    sys.exit(main())
