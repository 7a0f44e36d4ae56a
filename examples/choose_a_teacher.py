"""Which teacher, and is it worth it: plans by a published law, for budgets and for who pays.

Three teachers of 20 tokens per parameter are at hand. For each budget the best student, from the
best of them, stands beside the best that is trained directly. Needs no torch.

    python examples/choose_a_teacher.py
"""

from kdlaws import advice, laws
from kdlaws.quantities import human

PAPER = laws.published("busbridge2025")  # arXiv:2502.08606
TEACHERS = [
    advice.TeacherOption(n_params=n, n_tokens=20 * n, name=human(n)) for n in (1e9, 3e9, 10e9)
]
HEADINGS = ("FLOPs", "pays for", "N", "tokens", "teacher", "nats", "directly")


def main() -> None:
    print(*(f"{heading:>12}" for heading in HEADINGS))
    for flops in (1e21, 1e22, 1e23):
        for scenario in ("inference", "both"):
            plan = advice.plan(PAPER, flops, scenario=scenario, teachers=TEACHERS)
            best, direct = plan.best, plan.comparison.direct_cross_entropy
            size = human(best.n_params_non_embedding)
            losses = (f"{best.cross_entropy:.4f}", f"{direct:.4f}")
            cells = (f"{flops:.0e}", scenario, size, human(best.n_tokens), best.teacher, *losses)
            print(*(f"{cell:>12}" for cell in cells))


if __name__ == "__main__":
    main()
