"""What a new run adds to the curve of a fit."""

from dataclasses import dataclass

import numpy as np

from kdlaws.laws.dual import FloatArray


@dataclass(frozen=True)
class NewRun:
    """Of log cross-entropy: ``variance`` of a run around its curve, ``drift`` per decade beyond.

    The variance is a run's own and its trunk's, which is ``trunk_variance``; the drift is the law's
    own error, None where it was not measured, and the decades begin at ``largest_flops``.
    ``flops_per_6nd`` is the runs' multiple of 6*N*D, None where they have no common one.
    """

    variance: float
    drift: float | None
    largest_flops: float
    flops_per_6nd: float | None
    trunk_variance: float = 0.0

    def at(self, log_flops: FloatArray) -> FloatArray:
        """The variance that a run of this compute adds to the curve's."""
        decades = np.maximum(log_flops - np.log(self.largest_flops), 0) / np.log(10)
        variance: FloatArray = self.variance + ((self.drift or 0.0) * decades) ** 2
        return variance
