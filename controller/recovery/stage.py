"""Recovery as the last stage of a search: some members of the front are trained, and kept for exports."""

from functools import partial

from controller.job import JobSpec
from controller.recovery.training import run_recovery
from controller.stages import Stages
from controller.study_summary import StudySummary
from workers.recovery.layers import RecoveryError
from workers.trial import TrialWorker


def recover_front(job: JobSpec, summary: StudySummary, worker: TrialWorker, stages: Stages, notes: list[str]) -> None:
    """Train as many members of the front as the job says, spread over it, and note what each gained.

    Args:
        job: Says how many, and how.
        summary: The study, finished.
        worker: Holds model, data and variants.
        stages: Told how far each training is.
        notes: Takes a line for each member; one that can't be trained is noted too, and the others go on.
    """
    front, count = summary.front, job.recovery.members
    step = len(front) / max(1, min(count, len(front)))
    for number in range(min(count, len(front))):
        member = front[int(number * step)]
        policy = summary.trial(member.number).policy
        try:
            report = run_recovery(
                worker, policy, job.recovery, on_progress=partial(stages, f"recovering {member.name}")
            ).report
        except RecoveryError as error:
            notes.append(f"{member.name} was not recovered: {error}")
            continue
        notes.append(
            f"{member.name}: {worker.task.metric} on the holdout {report.before['holdout']:.4f} as searched, "
            f"{report.after['holdout']:.4f} recovered; export it with --trial {member.number} --recover"
        )
