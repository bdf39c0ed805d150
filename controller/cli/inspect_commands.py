"""Commands that look at what studies found: compare, policy."""

from typing import Annotated

import typer

from controller.cli.errors import reports_errors
from controller.cli.options import AsJson, StorageUrl, StudyName, storage_or_default
from controller.cli.text import print_json, stdout_console, stdout_for_results


@reports_errors
def compare(
    study: StudyName,
    other: Annotated[str, typer.Argument(metavar="STUDY", help="Name of another study.", show_default=False)],
    other_storage: Annotated[
        str | None,
        typer.Option("--other-storage", metavar="URL", help="Database of the other study.", show_default="the same"),
    ] = None,
    as_json: AsJson = False,
    storage: StorageUrl = None,
) -> None:
    """Put two fronts beside each other: hypervolume, coverage, the best under constraints, who dominates whom."""
    from controller.job import check_study_name

    names = check_study_name(study), check_study_name(other)
    from controller import operations
    from controller.cli.render_inspection import render_comparison

    with stdout_for_results():
        report = operations.compare_studies(*names, storage_or_default(storage), other_storage=other_storage)
    if as_json:
        print_json(report.to_dict())
    else:
        render_comparison(stdout_console(), report)


@reports_errors
def policy(
    study: StudyName,
    trial: Annotated[
        int, typer.Option("--trial", min=0, help="Number of the trial; 0 is the dense model.", show_default=False)
    ],
    as_json: AsJson = False,
    storage: StorageUrl = None,
) -> None:
    """Show a policy as a strip: what each unit keeps, in how many bits, and its share of the latency."""
    from controller.job import check_study_name

    check_study_name(study)
    from controller import operations
    from controller.cli.render_inspection import render_policy

    with stdout_for_results():
        report = operations.load_policy(study, storage_or_default(storage), trial=trial)
    if as_json:
        print_json(report.to_dict())
    else:
        render_policy(stdout_console(), report)
