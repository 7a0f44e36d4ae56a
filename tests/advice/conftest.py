"""A synthetic study folder with a known law, known gains and known standard errors."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kdlaws.records import write_losses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdlaws.advice.evidence import Evidence

SIZES = (12_576, 98_112, 332_448, 791_680, 1_532_160)
E, A, B, ALPHA, BETA = 1.8, 25.0, 55.0, 0.30, 0.35
GAINS = {
    "scratch": (0.0,) * 5,
    "token": (0.10, 0.15, 0.20, 0.25, 0.30),
    "embedding": (0.06, 0.04, 0.02, 0.01, -0.03),
}
ONE_PASS_TOKENS = (231_000, 406_000, 700_000)
UNIQUE_TOKENS = {0.1: 70_000, 0.01: 7_000}
EPOCHS = {0.1: (2, 4, 8), 0.01: (8, 16, 32)}
BEST_EPOCHS = {0.1: 4, 0.01: 16}
REPEATED_GAINS = {0.1: 0.35, 0.01: 0.45}
TEACHER = {"run_id": "teacher-192x6", "n": 2_654_208, "cross_entropy": 2.35, "stream": 2.31}
WEAK_TEACHER = {"run_id": "teacher-96x3", "n": 332_448, "cross_entropy": 2.52, "stream": 2.50}
# 58 % of 700k tokens are the branch at 406k: the noisy run is .05 nats worse than its null.
NOISE, BEYOND_NULL = 0.42, 0.05
N_SEQUENCES = 384
RUN_SE, OWN_SE = 0.008, 0.002
"""Standard errors over test sequences, nats: of one run, and of what no other run shares."""

Row = dict[str, Any]


def law(n_params: float, n_tokens: float) -> float:
    return E + A / n_params**ALPHA + B / n_tokens**BETA


def jitter(size: int, seed: int, n_tokens: float) -> float:
    """The same for all methods, so that paired differences are exact; about .1 %."""
    return 1 + 0.001 * math.sin(37 * size + 11 * seed + n_tokens / 97_000)


def row(size: int, method: str, seed: int, by: Row = TEACHER, **columns: Any) -> Row:
    n, teacher = SIZES[size], {} if method == "scratch" else by
    trunk = f"{method}-{size}-{columns['fraction']:g}-{seed}-{teacher.get('run_id')}"
    return {
        "run_id": f"{trunk}-{columns['n_tokens']}-{columns.get('noise', 0)}",
        "study": "synthetic",
        "role": "student",
        "objective": "causal",
        "method": method,
        "kd_weight": 1.0 if method == "token" else None,
        "init": "random",
        "corpus": "made-up",
        "tokenizer": "bpe",
        "quality": "raw",
        "kept": 1.0,
        "noise": 0.0,
        "seed": seed,
        "trunk": trunk,
        "teacher": teacher.get("run_id"),
        "teacher_n_params_non_embedding": teacher.get("n"),
        "teacher_cross_entropy": teacher.get("cross_entropy"),
        "teacher_stream_cross_entropy": teacher.get("stream"),
        "teacher_overlap": 0.0 if teacher else None,
        "n_params": n + 32_768,
        "n_params_non_embedding": n,
        "n_targets": None,
        "selected": True,
        "cross_entropy_se": RUN_SE,
        "student_flops": 6 * n * columns["n_tokens"],
        "forward_flops_per_token": 2 * n + 65_536,
        "prefill_ms_p50": 1.4 + n / 1e6,
        "decode_ms_p50": 0.4 + n / 4e6,
        "device": "cpu",
        "wall_s": 20.0,
        "status": "done",
        **columns,
    }


def once(n_tokens: int) -> Row:
    return {"fraction": 1.0, "n_tokens": n_tokens, "n_unique_tokens": n_tokens, "epochs": 1.0}


def one_pass(size: int, method: str, seed: int, gain: float, by: Row = TEACHER) -> Iterator[Row]:
    for tokens in ONE_PASS_TOKENS:
        cross_entropy = law(SIZES[size], tokens) * jitter(size, seed, tokens) - gain
        yield row(size, method, seed, by, cross_entropy=cross_entropy, **once(tokens))


def repeated(size: int, method: str, seed: int, fraction: float) -> Iterator[Row]:
    unique, best = UNIQUE_TOKENS[fraction], BEST_EPOCHS[fraction]
    gain = 0.0 if method == "scratch" else REPEATED_GAINS[fraction]
    for epochs in EPOCHS[fraction]:
        too_few_or_many = 0.05 * abs(math.log2(epochs / best))
        cross_entropy = law(SIZES[size], unique * 3) * jitter(size, seed, unique)
        yield row(
            size,
            method,
            seed,
            fraction=fraction,
            n_tokens=unique * epochs,
            n_unique_tokens=unique,
            epochs=float(epochs),
            selected=epochs == best,
            cross_entropy=cross_entropy - gain + too_few_or_many,
        )


def usual_rows(methods: Iterable[str], sizes: int, seeds: int) -> Iterator[Row]:
    for method in methods:
        for size in range(sizes):
            for seed in range(seeds if size == 0 else 1):
                yield from one_pass(size, method, seed, GAINS[method][size])
                for fraction in UNIQUE_TOKENS:
                    yield from repeated(size, method, seed, fraction)


def unusual_rows() -> Iterator[Row]:
    """A weaker teacher at two sizes, another weight, noise, and runs that no law may read."""
    for size in (0, 1):
        yield from one_pass(size, "token", 0, GAINS["token"][size] - 0.04, by=WEAK_TEACHER)
    half = {"kd_weight": 0.5, "run_id": "token-2-half-weight", "cross_entropy": 2.0}
    yield row(2, "token", 0, **half, **once(700_000))
    null = law(SIZES[1], 406_000) * jitter(1, 0, 406_000)
    noisy = {"noise": NOISE, "cross_entropy": null + BEYOND_NULL}
    yield row(1, "scratch", 0, **noisy, **once(700_000))
    yield row(4, "scratch", 0, cross_entropy=4.6, status="undertrained", **once(100_000))
    yield row(3, "token", 7, cross_entropy=None, status="diverged", **once(700_000))


def masked(row: Row) -> Row:
    """The same run of a masked study: 15 % of its input tokens have a loss, and none is decoded."""
    n_targets = round(0.15 * row["n_tokens"]) if row["n_tokens"] else None
    return {**row, "objective": "masked", "n_targets": n_targets, "decode_ms_p50": None}


def given_teacher(heldout: str) -> Row:
    """The teacher's own row, as of a model that others trained."""
    known = {name: TEACHER[name] for name in ("run_id", "cross_entropy")}
    return dict.fromkeys(row(0, "scratch", 0, **once(1)), None) | {
        **known,
        "study": "synthetic",
        "role": "teacher",
        "objective": "causal",
        "init": "given",
        "corpus": "made-up",
        "tokenizer": "bpe",
        "n_params": TEACHER["n"] + 32_768,
        "n_params_non_embedding": TEACHER["n"],
        "cross_entropy_se": RUN_SE,
        "n_tokens": None,
        "teacher_heldout": heldout,
        "forward_flops_per_token": 2 * TEACHER["n"] + 65_536,
        "prefill_ms_p50": 4.0,
        "decode_ms_p50": 1.1,
        "device": "cpu",
        "status": "done",
    }


def wave(number: int) -> "NDArray[np.float64]":
    """Of mean 0 and mean square 1; any two below ``N_SEQUENCES / 2`` are orthogonal."""
    scale = 1 if number == N_SEQUENCES // 2 else math.sqrt(2)
    return scale * np.cos(2 * math.pi * number * np.arange(N_SEQUENCES) / N_SEQUENCES)


def losses_by_sequence(rows: Iterable[Row]) -> "dict[str, NDArray[np.float64]]":
    """Each run's losses, their mean its cross-entropy.

    One wave is common to all runs and cancels in differences; one is a run's own. A run alone has
    the standard error ``RUN_SE``, the difference of two exactly ``OWN_SE`` times root 2.
    """
    scored = [each for each in rows if each["cross_entropy"] is not None]
    assert len(scored) < N_SEQUENCES / 2
    common = math.sqrt((RUN_SE**2 - OWN_SE**2) * (N_SEQUENCES - 1)) * wave(N_SEQUENCES // 2)
    own = OWN_SE * math.sqrt(N_SEQUENCES - 1)
    return {
        each["run_id"]: each["cross_entropy"] + common + own * wave(number)
        for number, each in enumerate(scored, start=1)
    }


def _write_rows(folder: Path, rows: list[Row], without: Iterable[str], losses: bool) -> None:
    folder.mkdir(parents=True)
    with (folder / "table.csv").open("w", newline="") as file:
        names = dict.fromkeys(name for row in rows for name in row)
        kept = [name for name in names if name not in set(without)]
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    if losses:
        write_losses(folder, losses_by_sequence(rows))


def _write_study(
    folder: Path,
    *,
    methods: Iterable[str] = ("scratch", "token", "embedding"),
    sizes: int = 5,
    seeds: int = 2,
    unusual: bool = True,
    reference: bool = True,
    without: Iterable[str] = (),
    losses: bool = True,
    change: Callable[[Row], Row | None] = lambda row: row,
    more: Iterable[Row] = (),
) -> Path:
    """A study's artefacts; ``without`` names columns that its table lacks.

    ``change`` edits each row, or leaves it out; ``more`` are further rows, edited like the others.
    """
    rows = [*usual_rows(methods, sizes, seeds), *(unusual_rows() if unusual else ()), *more]
    rows = [changed for row in rows if (changed := change(row))]
    _write_rows(folder, rows, without, losses)
    if reference:
        bigram = [
            {"n_unique_tokens": unique, "cross_entropy": 3.1 + 40 / unique**0.35}
            for unique in (*UNIQUE_TOKENS.values(), *ONE_PASS_TOKENS)
        ]
        document = json.dumps({"unigram": 5.31, "bigram": bigram})
        (folder / "reference.json").write_text(document)
        (folder / "study.yaml").write_text("name: synthetic\n")
    return folder


@pytest.fixture(scope="session")
def write_study() -> Callable[..., Path]:
    return _write_study


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
    """Writes a synthetic study; ``_write_study`` says which parts may be missing."""
    return lambda **parts: _write_study(tmp_path / "synthetic", **parts)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole study, fitted and reported once; tests only read it."""
    from kdlaws.advice import build_report

    folder = _write_study(tmp_path_factory.mktemp("study") / "synthetic")
    build_report(folder, bootstrap=60)
    return folder


@pytest.fixture(scope="session")
def evidence(study: Path) -> "Evidence":
    from kdlaws.advice.evidence import load

    return load(study)


@pytest.fixture(scope="session")
def unfitted(tmp_path_factory: pytest.TempPathFactory) -> "Evidence":
    """The whole study as evaluated, without laws or report: what most answers need."""
    from kdlaws.advice.evidence import load

    return load(_write_study(tmp_path_factory.mktemp("unfitted") / "synthetic"))


@pytest.fixture
def study_of(tmp_path: Path) -> "Callable[..., Evidence]":
    """A study of given cells only, read as any study is.

    A cell names ``size`` (an index), ``method``, ``n_tokens`` and ``cross_entropy``, and any other
    column that is not one clean pass of seed 0 with the strong teacher; ``by`` is the weak one.
    """
    from kdlaws.advice.evidence import load

    def build(cells: Iterable[Mapping[str, Any]], *, losses: bool = True) -> "Evidence":
        rows = []
        for cell in cells:
            columns = {"seed": 0, **once(cell["n_tokens"]), **cell}
            by = WEAK_TEACHER if columns.pop("by", None) else TEACHER
            size, method, seed = (columns.pop(name) for name in ("size", "method", "seed"))
            rows.append(row(size, method, seed, by, **columns))
        folder = tmp_path / f"cells-{len(list(tmp_path.iterdir()))}"
        _write_rows(folder, rows, (), losses)
        return load(folder)

    return build
