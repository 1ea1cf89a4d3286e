"""What a rule is: its conditions, its owner, its words. No I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from telemetry.support.conditions import Condition, Value


class Owner(StrEnum):
    """Whose it is: who must act before the next attempt can go better."""

    USER = "user"
    CLIENT = "client"
    NETWORK = "network"
    CAPACITY = "capacity"
    SERVER = "server"
    CONFIGURATION = "configuration"
    TELEMETRY = "telemetry"
    UNDETERMINED = "undetermined"
    """What was recorded does not tell; the verdict names the suspects."""
    NOBODY = "nobody"
    """Nothing failed."""


class Certainty(StrEnum):
    """How far the facts carry the verdict."""

    CERTAIN = "certain"
    LIKELY = "likely"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True, slots=True)
class Rival:
    """Another explanation of the same facts, and what would decide."""

    owner: Owner
    explanation: str
    decided_by: str


@dataclass(frozen=True, slots=True)
class Missing:
    """What was not recorded, and how to record it."""

    what: str
    record: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table."""

    id: str
    owner: Owner
    when: tuple[Condition, ...]
    """All must hold."""
    sentence: str
    """What happened, with the one abnormal number; the names in braces are those of `verdict.wording`."""
    next: str
    """The next question to ask or action to take."""
    because: str
    """Why these facts mean this."""
    source: str
    """Where that is written, or what it follows from."""
    certainty: Certainty = Certainty.CERTAIN
    cites: tuple[str, ...] = ()
    """Facts to show as evidence beside those in `when`."""
    rivals: tuple[Rival, ...] = ()
    missing: tuple[Missing, ...] = ()

    def holds(self, facts: Mapping[str, Value]) -> bool:
        """Whether all conditions hold; every fact must be a key of `facts`."""
        return all(condition.holds(facts) for condition in self.when)

    @property
    def evidence(self) -> tuple[str, ...]:
        """The facts that the rule rests on, each once."""
        tested = [fact for condition in self.when for fact in condition.facts]
        return tuple(dict.fromkeys([*tested, *self.cites]))

    @property
    def suspects(self) -> tuple[Owner, ...]:
        """Everyone whose it may be, the likeliest first."""
        owners = [self.owner] if self.owner not in (Owner.UNDETERMINED, Owner.NOBODY) else []
        return tuple(dict.fromkeys([*owners, *(rival.owner for rival in self.rivals)]))
