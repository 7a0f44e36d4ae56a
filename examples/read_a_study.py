"""How far distilled students are ahead of equal ones without a teacher, from a study's table.

The two runs of a pair share size, seed and tokens, so what these do to both cancels. Read are runs
of one pass over clean text, and of pure distillation. Needs no torch.

    python examples/read_a_study.py runs/default
"""

import sys
from pathlib import Path

from kdlaws.selection import select
from kdlaws.tables import read_table

COMPARABLE = "status=done,noise=0,epochs<=1"
N, LOSS = "n_params_non_embedding", "cross_entropy"
SHARED = [N, "n_tokens", "seed"]


def main(study: Path) -> None:
    table = read_table(study / "table.csv")
    scratch = select(table, f"role=student,method=scratch,{COMPARABLE}").frame[[*SHARED, LOSS]]
    token = select(table, f"method=token,kd_weight=1,{COMPARABLE}").frame
    pairs = token[["teacher", *SHARED, LOSS]].merge(scratch, on=SHARED, suffixes=("", "_scratch"))
    pairs["gain"] = pairs[f"{LOSS}_scratch"] - pairs[LOSS]
    print("scratch minus token, nats per token; positive where the teacher helps")
    for (teacher, n), gains in pairs.groupby(["teacher", N])["gain"]:
        print(f"{teacher}  N = {n:>9,.0f}: {gains.mean():+.3f}  ({len(gains)} pairs)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the folder of a study: python examples/read_a_study.py runs/default")
    main(Path(sys.argv[1]))
