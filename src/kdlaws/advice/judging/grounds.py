"""What every claim is judged on."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from kdlaws.advice.evidence import Evidence
from kdlaws.advice.judging.joint import Joint, joints
from kdlaws.advice.judging.planned import Planned, planned
from kdlaws.advice.judging.verdicts import N_NAMES


@dataclass(frozen=True)
class Grounds:
    """The study, and the joint fits by N column."""

    evidence: Evidence
    joints: Mapping[str, Joint]

    @classmethod
    def of(cls, evidence: Evidence) -> "Grounds":
        return cls(evidence, joints(evidence))

    @property
    def fitted(self) -> tuple[Joint, ...]:
        return tuple(each for each in self.joints.values() if each.fit)

    def knowing(self, method: str) -> tuple[Joint, ...]:
        """Those whose fit has runs of a method."""
        return tuple(each for each in self.fitted if each.fit and method in each.fit.methods)

    @property
    def why_not_fitted(self) -> str:
        """Of the first convention that has no fit."""
        return next((each.reason for each in self.joints.values() if not each.fit), "")

    def lacking(self, n_columns: Collection[str]) -> str:
        """``Read by one way to count N only: by total N ...``, where only one has readings.

        Empty where both have any, or none.
        """
        missing = [n for n in N_NAMES if n not in n_columns]
        if not n_columns or not missing:
            return ""
        [n_column] = missing
        joint = self.joints.get(n_column)
        why = "there is no joint law" if joint is None or not joint.fit else "the law has no runs"
        because = f" ({joint.reason})" if joint and joint.reason else ""
        return f"Read by one way to count N only: by {N_NAMES[n_column]} {why}{because}."

    @cached_property
    def plans(self) -> dict[tuple[str, str], Planned]:
        """The best plans by method and N column, where a fit has runs of the method."""
        methods = self.evidence.distilled
        return {(m, j.n_column): planned(j, m) for m in methods for j in self.knowing(m)}
