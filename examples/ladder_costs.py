"""What a ladder of students costs, run by run, before anything is trained.

Each student reads 500k tokens of text four times and learns from one teacher. FLOPs are those of
the run alone: the teacher's training stands in full in every row. Needs no torch.

    python examples/ladder_costs.py
"""

from kdlaws.shapes import MICRO_SIZES, run_flops, shape

N_UNIQUE_TOKENS, EPOCHS = 500_000, 4
TEACHER, TEACHER_N_TOKENS = shape("192/6"), 8_000_000

HEADINGS = ("size", "N", "N non-emb.", "student", "teacher inf.", "teacher train.", "saved")


def main() -> None:
    print(*(f"{heading:>14}" for heading in HEADINGS))
    for size in MICRO_SIZES:
        student = shape(size)
        flops = run_flops(
            student,
            EPOCHS * N_UNIQUE_TOKENS,
            N_UNIQUE_TOKENS,
            teacher=TEACHER,
            teacher_n_tokens=TEACHER_N_TOKENS,
        )
        buckets = (
            flops.student,
            flops.teacher_inference,
            flops.teacher_training,
            flops.cache_saved,
        )
        counts = (student.n_params, student.n_params_non_embedding)
        cells = (size, *(f"{n:,}" for n in counts), *(f"{each:.3g}" for each in buckets))
        print(*(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    main()
