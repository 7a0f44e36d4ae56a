"""What every claim is judged on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from kdlaws.advice.evidence import Evidence
from kdlaws.advice.judging.joint import Joint, joints
from kdlaws.advice.judging.planned import Planned, planned


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

    @cached_property
    def plans(self) -> dict[tuple[str, str], Planned]:
        """The best plans by method and N column, where a fit has runs of the method."""
        methods = self.evidence.distilled
        return {(m, j.n_column): planned(j, m) for m in methods for j in self.knowing(m)}
