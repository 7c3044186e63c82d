"""Commands of the findings under the new rules: plan, power, and running all that is missing."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ablations.protocol import plan_page, registry
from ablations.protocol.designs.text import SMALL, TEXT, recipe
from ablations.protocol.plan import Plan, make_plan
from ablations.protocol.run import RUN_SCALES, run_missing
from ablations.statistics.power import ENOUGH, power, seeds_needed, smallest_visible
from sweeps import results
from sweeps.terminal import console

Scale = Annotated[str, typer.Option(help=", ".join(RUN_SCALES))]
Results = Annotated[Path, typer.Option("--results", help="folder of the records")]


class Form(StrEnum):
    """How a plan is printed."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"


PRINTED = {Form.MARKDOWN: plan_page.as_markdown, Form.JSON: plan_page.as_json}


def plan(
    scale: Scale = "small",
    results_folder: Results = results.LOCAL,
    workers: Annotated[int, typer.Option(min=1, help="workers of one thread each")] = 2,
    measure: Annotated[
        bool, typer.Option(help="measure the speed of this machine, for the hours")
    ] = False,
    form: Annotated[Form, typer.Option("--format", help="how the plan is printed")] = Form.TABLE,
) -> None:
    """Print what the findings under the new rules lack, in the order in which it is run."""
    check_scale(scale)
    made = make_plan(
        registry.FINDINGS,
        scale,
        results_folder,
        flops_per_s=_speed() if measure else None,
        workers=workers,
    )
    if form is Form.TABLE:
        console.print(plan_page.as_rich(made))
    else:
        print(PRINTED[form](made))


def show_power(
    name: Annotated[str, typer.Argument(help="finding under the new rules")],
    deviation: Annotated[
        float, typer.Option(help="standard deviation of one seed's difference, in the test's unit")
    ],
) -> None:
    """Say how often a design says "holds" of the paper's effect, and how many seeds that needs."""
    finding = registry.find(name)
    test = finding.primary
    margin, unit, kind = test.margin.value, test.margin.unit, test.kind
    effect, looks = test.paper_effect, finding.looks
    chance = power(effect, margin=margin, deviation=deviation, kind=kind, looks=looks)
    needed = seeds_needed(effect, margin=margin, deviation=deviation, kind=kind)
    smallest = smallest_visible(margin=margin, deviation=deviation, looks=looks)
    print(
        f"{name}: {test.name}, margin {margin:g} {unit}, paper's effect {effect:.3g} {unit}\n"
        f"looks of {looks[0]} and {looks[1]} seeds: {chance:.0%} power, smallest "
        f"effect seen in {ENOUGH:.0%} of cases {smallest:.3g} {unit}\n"
        f"seeds of a single look with {ENOUGH:.0%} power: {needed or 'more than 64'}"
    )


def run_all(scale: str, device: str, ops: str, folder: Path, storage: str, workers: int) -> None:
    """Run everything that the findings under the new rules lack at `scale`."""
    # Here, since a plan needs neither Optuna nor a device.
    from ablations.execute import executor

    check_scale(scale)
    execute = executor(scale, device, ops, storage=storage, workers=workers, console=console)
    run_missing(
        registry.FINDINGS,
        scale,
        folder,
        execute,
        command=f"python -m ablations run --all --scale {scale}",
        report=_say,
    )


def check_scale(scale: str) -> None:
    """Raise ValueError for a scale that is not run."""
    if scale not in RUN_SCALES:
        raise ValueError(f"--scale {scale}: it must be one of {', '.join(RUN_SCALES)}")


def _say(made: Plan) -> None:
    console.print(plan_page.summary(made), highlight=False)


def _speed() -> float:
    # Here, since a plan without hours needs no torch.
    from ablations.protocol.machine_speed import training_flops_per_s

    arm = next(iter(TEXT.arms))
    rate = TEXT.base_rates["small"][arm][0]
    return training_flops_per_s(TEXT.arms[arm](SMALL), recipe(SMALL, arm, rate, 0))
