"""Opens a study in whatever process it is to live in."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from controller.sealed_url import SealedUrl
from controller.storage.engine import open_database
from controller.storage.holder import Holder
from controller.storage.patience import Patience
from controller.storage.records import TrialRecord
from controller.storage.repository import Repository
from controller.study import Study
from controller.study_config import StudyConfig
from evaluators.scores import Costs
from search_spaces.policy import Policy

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFactory:
    """Opens one study; pickles if its callables do.

    Attributes:
        config: What to search.
        storage: URL of the database; sealed where it holds a password, so that none is pickled.
        cost_of: Exact costs of a policy.
        first: Policies that a new study scores before its sampler proposes any.
        on_finished: Called with the study and each trial that has come to its end.
        holder: The process that the study belongs to: that which makes the factory, wherever it is called.
    """

    config: StudyConfig
    storage: str | SealedUrl = field(repr=False)
    cost_of: Callable[[Policy], Costs]
    first: Sequence[Policy] = ()
    on_finished: Callable[[Study, TrialRecord], None] | None = None
    holder: Holder = field(default_factory=Holder.current)

    def __call__(self, say: Callable[[str], None] = _logger.warning) -> Study:
        """Create the study, or continue it (see `Study.open`).

        Args:
            say: Told once that another controller must be waited for.
        """
        url = self.storage if isinstance(self.storage, str) else self.storage.open()
        repository = Repository(open_database(url), Patience())
        return Study.open(
            self.config, repository, self.cost_of, self.on_finished, self.first, holder=self.holder, say=say
        )
