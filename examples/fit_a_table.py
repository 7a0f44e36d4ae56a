"""Fit a law to somebody's table of runs, and predict a model that nobody has trained.

The runs are made up: L = 1.8 + 480/N^.35 + 2100/D^.37, disturbed by .2 %. The table is written to
the working folder, so that `kdlaws fit made-up.csv` can read it as well. Needs no torch.

    python examples/fit_a_table.py
"""

from pathlib import Path

from kdlaws import laws, selection, tables

RUNS = """\
corpus,N,D,loss
web,25M,1B,4.013
web,25M,3B,3.689
web,25M,9B,3.483
web,25M,27B,3.330
web,70M,1B,3.632
web,70M,3B,3.316
web,70M,9B,3.094
web,70M,27B,2.953
web,200M,1B,3.368
web,200M,3B,3.053
web,200M,9B,2.834
web,200M,27B,2.695
web,560M,1B,3.201
web,560M,3B,2.873
web,560M,9B,2.644
web,560M,27B,2.518
web,1.5B,1B,3.065
web,1.5B,3B,2.755
web,1.5B,9B,2.529
web,1.5B,27B,2.381
books,70M,3B,3.622
books,200M,3B,3.357
books,560M,3B,3.183
"""
MODEL = {"n_params": 300e6, "n_tokens": 20e9}


def main() -> None:
    path = Path("made-up.csv")
    path.write_text(RUNS, encoding="utf-8")
    table = tables.read_table(path, columns="n_params=N,n_tokens=D,cross_entropy=loss")
    # A loss on books is not a loss on the web: the two together are refused.
    web = selection.select(table, "corpus=web")
    runs = selection.law_columns(web, laws.find("chinchilla").reads)
    fit = laws.fit(runs.columns, "chinchilla", **runs.arguments())
    print(fit)
    model = laws.predict(fit, MODEL)
    print(
        f"N = {MODEL['n_params']:.3g}, D = {MODEL['n_tokens']:.3g}: "
        f"{model.cross_entropy:.3f} nats per token, "
        f"{model.level:.0%} interval {model.lo:.3f} to {model.hi:.3f}"
    )


if __name__ == "__main__":
    main()
