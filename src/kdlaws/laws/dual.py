"""Numbers that carry their derivatives, so that a law is written once, as its equation.

Forward-mode differentiation over many fits at once: ``value`` broadcasts to ``[fits, runs]``, and
``slopes`` holds, for each free coordinate that the number depends on, an array or a float that
broadcasts to the same. What a number does not depend on is absent and costs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Union

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Number = Union["Dual", FloatArray, float]


@dataclass(frozen=True, eq=False)
class Dual:
    value: FloatArray
    slopes: Mapping[int, FloatArray | float] = field(default_factory=dict)

    __array_ufunc__ = None  # numpy leaves ``array * dual`` to us

    def __add__(self, other: Number) -> "Dual":
        other = dual(other)
        slopes = dict(self.slopes)
        for k, slope in other.slopes.items():
            slopes[k] = slopes[k] + slope if k in slopes else slope
        return Dual(self.value + other.value, slopes)

    def __mul__(self, other: Number) -> "Dual":
        other = dual(other)
        slopes = {k: slope * other.value for k, slope in self.slopes.items()}
        for k, slope in other.slopes.items():
            term = slope * self.value
            slopes[k] = slopes[k] + term if k in slopes else term
        return Dual(self.value * other.value, slopes)

    def __neg__(self) -> "Dual":
        return Dual(-self.value, {k: -slope for k, slope in self.slopes.items()})

    def __sub__(self, other: Number) -> "Dual":
        return self + (-other)

    def __rsub__(self, other: Number) -> "Dual":
        return (-self) + other

    def __truediv__(self, other: Number) -> "Dual":
        return self * chain(other, 1 / dual(other).value, -1 / dual(other).value ** 2)

    def __rtruediv__(self, other: Number) -> "Dual":
        return dual(other) / self

    __radd__ = __add__
    __rmul__ = __mul__


def dual(number: Number) -> Dual:
    """The number, which depends on nothing where it was none of ours."""
    return number if isinstance(number, Dual) else Dual(np.asarray(number, dtype=np.float64))


def chain(number: Number, value: FloatArray, derivative: FloatArray) -> Dual:
    """A function of ``number``, from its value and its derivative there."""
    return Dual(value, {k: derivative * slope for k, slope in dual(number).slopes.items()})


def log(number: Number) -> Dual:
    x = dual(number).value
    return chain(number, np.log(x), 1 / x)


def exp(number: Number) -> Dual:
    power = np.exp(dual(number).value)
    return chain(number, power, power)


def expm1(number: Number) -> Dual:
    x = dual(number).value
    return chain(number, np.expm1(x), np.exp(x))


def log_sum(*logs: Number) -> Dual:
    """log(sum of exp), stable for terms of any size."""
    terms = [dual(each) for each in logs]
    highest = reduce(np.maximum, [term.value for term in terms])
    powers = [np.exp(term.value - highest) for term in terms]
    total = reduce(np.add, powers)
    slopes: dict[int, FloatArray | float] = {}
    for term, power in zip(terms, powers, strict=True):
        if not term.slopes:  # nothing to weigh: a share would cost a division
            continue
        share = power / total
        for k, slope in term.slopes.items():
            part = share * slope
            slopes[k] = slopes[k] + part if k in slopes else part
    return Dual(highest + np.log(total), slopes)


def where(condition: NDArray[np.bool_], one: Number, other: Number) -> Dual:
    """``one`` where the condition holds, ``other`` elsewhere; neither may be NaN."""
    one, other = dual(one), dual(other)
    zero = np.zeros(())
    slopes = {
        k: np.where(condition, one.slopes.get(k, zero), other.slopes.get(k, zero))
        for k in {**one.slopes, **other.slopes}
    }
    return Dual(np.where(condition, one.value, other.value), slopes)
