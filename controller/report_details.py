"""What a report shows of a study beside its trials: the time of every unit, and what each one loses when changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.preparation import PricedSpace
    from controller.sensitivity.report import SensitivityReport
    from controller.storage.repository import Repository
    from controller.study_summary import StudySummary


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDetails:
    """Details that cannot be read from the trials alone; both may be missing.

    Attributes:
        units: Names of the model's units in the order in which data flows.
        unit_times: Predicted times in ms by policy digest: of these units, then of all else.
        sensitivity: What units lose when they alone are changed, as far as the search probed it.
    """

    units: tuple[str, ...] = ()
    unit_times: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    sensitivity: SensitivityReport | None = None


def details_of(summary: StudySummary, priced: PricedSpace, repository: Repository) -> ReportDetails:
    """Work out the details of a study from its table and its probes; nothing is measured or scored.

    Args:
        summary: The study.
        priced: Its space, with costs.
        repository: Its database.
    """
    from controller.sensitivity.sensitivity import report_of_search

    structure, predictor = priced.description.structure, priced.costs.predictor
    policies = {trial.policy.digest: trial.policy for trial in summary.trials}
    sensitivity = report_of_search(summary.job, summary.record, priced, repository)
    return ReportDetails(
        units=tuple(unit.name for unit in structure.units),
        unit_times={
            digest: (
                *predictor.units_ms(structure, policy),
                predictor.for_policy(structure, policy).fixed_ms(structure, policy),
            )
            for digest, policy in policies.items()
        },
        sensitivity=sensitivity if sensitivity.scored else None,
    )
