"""The database: studies, trials, attempts, paid scores and the outbox to MLflow."""

from controller.storage.engine import StorageError as StorageError
from controller.storage.engine import open_database as open_database
from controller.storage.engine import upgrade_database as upgrade_database
from controller.storage.holder import Holder as Holder
from controller.storage.lease import StudyHeldError as StudyHeldError
from controller.storage.outbox import DatabaseOutbox as DatabaseOutbox
from controller.storage.patience import DatabaseGoneError as DatabaseGoneError
from controller.storage.patience import Patience as Patience
from controller.storage.records import AttemptOutcome as AttemptOutcome
from controller.storage.records import AttemptRecord as AttemptRecord
from controller.storage.records import Controls as Controls
from controller.storage.records import StudyRecord as StudyRecord
from controller.storage.records import StudyState as StudyState
from controller.storage.records import TellOutcome as TellOutcome
from controller.storage.records import TrialRecord as TrialRecord
from controller.storage.records import TrialRole as TrialRole
from controller.storage.records import TrialState as TrialState
from controller.storage.repository import Repository as Repository
from controller.storage.repository import StudyLostError as StudyLostError
