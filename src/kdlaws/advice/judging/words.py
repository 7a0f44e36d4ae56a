"""How people read who pays for the teacher, and at equal what a gain is."""

_PAID = {"inference": "inference", "pretraining": "training", "both": "training and inference"}
_EQUAL = {
    ("gain_at_equal_tokens", ""): "at equal tokens",
    ("gain_at_equal_flops", "inference"): "at equal FLOPs, the teacher's inference counted",
    ("gain_at_equal_flops", "both"): "with all of the teacher's FLOPs spent on the student",
    ("gain_at_equal_seconds", ""): "at equal seconds of training",
}


def who_pays(scenario: str, whose: str = "its") -> str:
    """``with its inference paid``, or ``with a free teacher``."""
    paid = _PAID.get(scenario)
    return f"with {whose} {paid} paid" if paid else "with a free teacher"


def at_equal(quantity: str, scenario: str = "") -> str:
    """Of a gain's quantity and scenario, as a ``Reading`` has them."""
    return _EQUAL[quantity, scenario]
