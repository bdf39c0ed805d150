"""Where the results of a job are kept that does not say so itself: what the environment names, as on a cluster."""

from collections.abc import Mapping

from controller.job import JobSpec

STORAGE_VARIABLE = "PARETRIM_STORAGE"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"


def where_kept(job: JobSpec, environment: Mapping[str, str]) -> JobSpec:
    """Return the job with database and MLflow store from the environment, where the job names none.

    Args:
        job: The job.
        environment: Variables; PARETRIM_STORAGE and MLFLOW_TRACKING_URI count.
    """
    storage, tracking = environment.get(STORAGE_VARIABLE), environment.get(TRACKING_VARIABLE)
    if storage and "storage" not in job.model_fields_set:
        job = job.model_copy(update={"storage": storage})
    if tracking and "tracking_uri" not in job.mlflow.model_fields_set:
        job = job.model_copy(update={"mlflow": job.mlflow.model_copy(update={"tracking_uri": tracking})})
    return job
