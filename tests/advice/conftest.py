"""A synthetic study folder with a known law and known gains."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
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
TEACHER = {"run_id": "teacher-192x6", "n": 2_654_208, "cross_entropy": 2.35}
WEAK_TEACHER = {"run_id": "teacher-96x3", "n": 332_448, "cross_entropy": 2.52}

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
        "noise": 0.0,
        "seed": seed,
        "trunk": trunk,
        "teacher": teacher.get("run_id"),
        "teacher_n_params_non_embedding": teacher.get("n"),
        "teacher_cross_entropy": teacher.get("cross_entropy"),
        "n_params": n + 32_768,
        "n_params_non_embedding": n,
        "selected": True,
        "cross_entropy_se": 0.008,
        "student_flops": 6 * n * columns["n_tokens"],
        "forward_flops_per_token": 2 * n + 65_536,
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
    yield row(2, "token", 0, kd_weight=0.5, cross_entropy=2.0, **once(700_000))
    yield row(1, "scratch", 0, noise=0.2, cross_entropy=3.3, **once(700_000))
    yield row(4, "scratch", 0, cross_entropy=4.6, status="undertrained", **once(100_000))
    yield row(3, "token", 7, cross_entropy=None, status="diverged", **once(700_000))


def _write_study(
    folder: Path,
    *,
    methods: Iterable[str] = ("scratch", "token", "embedding"),
    sizes: int = 5,
    seeds: int = 2,
    unusual: bool = True,
    reference: bool = True,
    without: Iterable[str] = (),
) -> Path:
    """A study's artefacts; ``without`` names columns that its table lacks."""
    rows = [*usual_rows(methods, sizes, seeds), *(unusual_rows() if unusual else ())]
    folder.mkdir(parents=True)
    with (folder / "table.csv").open("w", newline="") as file:
        kept = [name for name in rows[0] if name not in set(without)]
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
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
