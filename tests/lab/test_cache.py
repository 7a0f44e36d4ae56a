"""Stored teacher outputs: the right numbers, whole shards, and refusal of the wrong ones."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from kdlaws import cli
from kdlaws.config import Study
from kdlaws.errors import ArtefactError, ConfigError
from kdlaws.lab import cache_build, heads, students, sweep
from kdlaws.lab.cache import SHARD_WINDOWS, CacheSpec, Kind, TeacherCache, is_complete
from kdlaws.lab.cache_verify import verify
from kdlaws.lab.components import BASIS_WINDOWS
from kdlaws.lab.sampling import as_whole
from kdlaws.lab.streams import TokenStream
from kdlaws.lab.targets import Dense, Sampled, TopK
from kdlaws.lab.teachers import load_teacher
from kdlaws.lab.tokens import Text
from kdlaws.records import WEIGHTS, file_digest, read_json, write_json
from kdlaws.shapes import shape
from kdlaws.study import TeacherFacts

N_VOCAB, N_CTX, ALL_WINDOWS = 300, 32, 211


def write_teacher(folder: Path, seed: int) -> None:
    """A teacher that was not trained, but is as sure of itself as one that was."""
    model = students.build(shape("64/2", n_vocab=N_VOCAB, n_ctx=N_CTX), seed=seed)
    with torch.no_grad():
        heads.head(model).weight_vd.mul_(10)
    model.save_pretrained(folder / "model")
    sha256 = file_digest(folder / WEIGHTS)
    write_json(folder / "record.json", {"run_id": "teacher", "weights_sha256": sha256})


@pytest.fixture
def spec(tiny_study: Study, tmp_path: Path) -> CacheSpec:
    text = Text(tiny_study)
    folder = tmp_path / "teacher"
    write_teacher(folder, seed=1)
    size = shape("64/2", n_vocab=N_VOCAB, n_ctx=N_CTX)
    stream = text.stream("student")
    assert stream.n_windows(N_CTX) == ALL_WINDOWS
    return CacheSpec(
        teacher=TeacherFacts("teacher", "teacher", size, 1, text.tokenizer_sha256, folder),
        stream=stream,
        validation=text.stream("validation"),
        tokenizer_sha256=text.tokenizer_sha256,
        n_windows=40,
        n_validation_windows=8,
        n_ctx=N_CTX,
        temperatures=(1.0, 2.0),
        with_hidden=True,
        outputs="sampled",
        draws=16,
        slices=3,
        k=8,
        hidden_variance=0.9,
    )


def build(spec: CacheSpec, parent: Path) -> TeacherCache:
    cache_build.build(spec, parent, lambda _: None)
    return TeacherCache(parent, spec)


@pytest.fixture
def built(spec: CacheSpec, tmp_path: Path) -> TeacherCache:
    return build(spec, tmp_path / "cache")


def teacher_outputs(
    spec: CacheSpec, rows: np.ndarray, stream: TokenStream | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [b, t, d], logits [n, v] and labels [n] of windows."""
    batch, model = (stream or spec.stream).batch(rows, spec.n_ctx), load_teacher(spec.teacher)
    with torch.inference_mode():
        hidden, _ = heads.states(model, batch)
        logits = heads.logits(model, batch)
    return hidden, logits.flatten(0, 1), batch.labels_bm.flatten()


def hidden(built: TeacherCache, rows: np.ndarray, kind: Kind = "shard") -> Tensor:
    return torch.from_numpy(np.stack([built.hidden(kind, w) for w in rows.tolist()])).float()


def stored(built: TeacherCache, rows: np.ndarray, name: str, group: str = "") -> Tensor:
    arrays = [built.shard("shard", w)[group][name][w % SHARD_WINDOWS] for w in rows.tolist()]
    return torch.from_numpy(np.concatenate(arrays).astype(np.float64)).float()


ROWS = np.array([33, 2])  # of two different batches
FIRST = np.zeros(2, dtype=np.int64)  # the epoch


# -- numbers --------------------------------------------------------------------------------


def test_each_position_has_the_teachers_numbers(spec: CacheSpec, tmp_path: Path) -> None:
    spec = replace(spec, n_windows=ALL_WINDOWS)
    built, rows = build(spec, tmp_path), np.array([200, 5, 128])
    _, logits, labels = teacher_outputs(spec, rows)
    label_log_p = -F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(
        stored(built, rows, "label_log_p"), label_log_p, rtol=1e-4, atol=1e-4
    )
    assert torch.equal(stored(built, rows, "argmax").long(), logits.argmax(dim=-1))
    for temperature in (1.0, 2.0):
        p = (logits / temperature).softmax(dim=-1)
        entropy = -torch.xlogy(p, p).sum(dim=-1)
        assert 2 < float(entropy.mean()) < 5.5  # neither certain nor uniform
        read = built.token(temperature, rows, rows * 0)
        assert isinstance(read, Sampled)
        torch.testing.assert_close(read.entropy_n, entropy, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_counts_are_the_teachers_probabilities_times_draws_rounded(
    spec: CacheSpec, built: TeacherCache, temperature: float
) -> None:
    _, logits, _ = teacher_outputs(spec, ROWS)
    expected = spec.draws * (logits / temperature).softmax(dim=-1)
    for epoch in range(spec.slices):
        counts = spec.draws * as_whole(built.token(temperature, ROWS, FIRST + epoch), N_VOCAB)
        assert torch.equal(counts.sum(dim=-1), torch.full((len(counts),), 16.0))
        assert bool((counts >= (expected - 1e-3).floor()).all())
        assert bool((counts <= (expected + 1e-3).ceil()).all())


def test_epochs_have_draws_of_their_own_and_come_round(built: TeacherCache) -> None:
    read = [as_whole(built.token(1.0, ROWS, FIRST + epoch), N_VOCAB) for epoch in (0, 1, 2, 3)]
    assert not torch.equal(read[0], read[1])
    assert not torch.equal(read[1], read[2])
    assert torch.equal(read[0], read[3])


def test_windows_of_a_batch_may_be_of_different_epochs(built: TeacherCache) -> None:
    mixed = as_whole(built.token(1.0, ROWS, np.array([1, 2])), N_VOCAB)
    apart = [built.token(1.0, ROWS[i : i + 1], np.array([i + 1])) for i in range(2)]
    assert torch.equal(mixed, torch.cat([as_whole(each, N_VOCAB) for each in apart]))


def test_the_whole_distribution_is_stored_where_that_is_smaller(
    spec: CacheSpec, tmp_path: Path
) -> None:
    spec = replace(spec, draws=200, slices=1)  # 601 bytes a position, against 600
    built = build(spec, tmp_path)
    read = built.token(2.0, ROWS, FIRST)
    assert built.manifest["form"] == "dense"
    assert isinstance(read, Dense)
    _, logits, _ = teacher_outputs(spec, ROWS)
    torch.testing.assert_close(read.p_nv, (logits / 2).softmax(dim=-1), rtol=2e-3, atol=1e-6)


def test_the_likeliest_ids_and_their_bias(spec: CacheSpec, tmp_path: Path) -> None:
    spec = replace(spec, outputs="top_k", temperatures=(2.0,))
    built = build(spec, tmp_path)
    _, logits, _ = teacher_outputs(spec, ROWS)
    top = (logits / 2).softmax(dim=-1).topk(8)
    read = built.token(2.0, ROWS, FIRST)
    assert isinstance(read, TopK)
    assert torch.equal(read.ids_nk, top.indices)
    torch.testing.assert_close(read.p_nk, top.values, rtol=2e-3, atol=1e-6)

    _, logits, _ = teacher_outputs(spec, np.arange(SHARD_WINDOWS))
    p = (logits / 2).double().softmax(dim=-1)
    rest = p.sort(dim=-1).values[:, :-8]
    mass = rest.sum(dim=-1)
    [bias] = built.manifest["bias"]
    assert bias["kept_mass"] == pytest.approx(1 - float(mass.mean()), abs=1e-4)
    uniform = torch.full((N_VOCAB - 8,), 1 / (N_VOCAB - 8), dtype=torch.float64)
    hidden = mass * F.kl_div(uniform.log(), rest / mass[:, None], reduction="none").sum(dim=-1)
    assert bias["hidden_divergence"] == pytest.approx(float(hidden.mean()), rel=1e-3)


def test_the_teachers_cross_entropy_is_that_of_the_windows_asked_for(
    spec: CacheSpec, tmp_path: Path
) -> None:
    spec = replace(spec, n_windows=ALL_WINDOWS, with_hidden=False, temperatures=())
    built = build(spec, tmp_path)
    for n_windows in (10, 150, ALL_WINDOWS):
        _, logits, labels = teacher_outputs(spec, np.arange(n_windows))
        expected = float(F.cross_entropy(logits, labels))
        assert built.cross_entropy(n_windows) == pytest.approx(expected, rel=1e-5)
    assert built.manifest["teacher_cross_entropy"] == pytest.approx(expected, rel=1e-5)


def test_numbers_do_not_depend_on_what_other_runs_need(
    spec: CacheSpec, built: TeacherCache, tmp_path: Path
) -> None:
    """A run's numbers are its own: its identity does not name the runs it shares a cache with."""
    lone = build(
        replace(spec, n_windows=150, temperatures=(1.0,), with_hidden=False), tmp_path / "a"
    )
    other = build(replace(spec, temperatures=(), draws=1, n_windows=150), tmp_path / "b")
    one, two = (as_whole(each.token(1.0, ROWS, FIRST), N_VOCAB) for each in (lone, built))
    assert torch.equal(one, two)
    assert torch.equal(hidden(other, ROWS), hidden(built, ROWS))
    assert other.components.rank_floor(8) == built.components.rank_floor(8)


# -- hidden states --------------------------------------------------------------------------


def all_states(spec: CacheSpec) -> Tensor:
    """Of the whole stream, which is shorter than what hidden states are standardised on."""
    assert BASIS_WINDOWS > ALL_WINDOWS
    return teacher_outputs(spec, np.arange(ALL_WINDOWS))[0].flatten(0, 1).double()


def test_hidden_states_are_the_teachers_up_to_shift_scale_and_rotation(
    spec: CacheSpec, tmp_path: Path
) -> None:
    """All inner products are the same, also on validation; the mean square is 1."""
    spec = replace(spec, n_windows=ALL_WINDOWS, hidden_variance=1.0)
    built, states = build(spec, tmp_path), all_states(spec)
    mean = states.mean(dim=0)
    scale = (states - mean).square().mean().sqrt()
    everywhere = hidden(built, np.arange(ALL_WINDOWS))
    assert built.components.n == 64
    assert built.components.dropped == pytest.approx(0, abs=1e-12)
    assert float(everywhere.square().sum(dim=-1).mean()) / 64 == pytest.approx(1, rel=1e-3)
    places: list[tuple[np.ndarray, TokenStream, Kind]] = [
        (ROWS, spec.stream, "shard"),
        (np.array([0, 7]), spec.validation, "validation"),
    ]
    for rows, stream, kind in places:
        raw = (teacher_outputs(spec, rows, stream)[0].flatten(0, 1).double() - mean) / scale
        read = hidden(built, rows, kind).flatten(0, 1).double()
        torch.testing.assert_close(read @ read.T, raw @ raw.T, rtol=1e-2, atol=0.1)


def test_the_fewest_components_keep_the_variance_asked_for(
    spec: CacheSpec, built: TeacherCache
) -> None:
    states = all_states(spec)
    variances = torch.linalg.svdvals(states - states.mean(dim=0)).square()
    kept = (variances.cumsum(dim=0) / variances.sum()).tolist()
    n = built.components.n
    assert kept[n - 2] < 0.9 <= kept[n - 1]
    assert built.components.dropped == pytest.approx(1 - kept[n - 1], rel=1e-3)


def test_the_rank_floor_is_what_the_best_projection_leaves(
    spec: CacheSpec, built: TeacherCache
) -> None:
    """Eckart and Young: the residual of the rank-k truncated singular value decomposition."""
    states = all_states(spec)
    variances = torch.linalg.svdvals(states - states.mean(dim=0)).square()
    for k in (1, 8, 32):
        expected = float(variances[k:].sum() / variances.sum())
        assert built.components.rank_floor(k) == pytest.approx(expected, rel=1e-3)
    assert built.components.rank_floor(64) == 0


# -- shards ---------------------------------------------------------------------------------


def files(built: TeacherCache) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in built.folder.glob("*.safetensors")}


def untimed(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: untimed(value) for key, value in document.items() if key != "cpu_s"}
    return document


def stop_after(n_tokens: int) -> Callable[[int], None]:
    told = 0

    def on_tokens(n: int) -> None:
        nonlocal told
        told += n
        if told > n_tokens:
            raise KeyboardInterrupt

    return on_tokens


def test_a_cache_that_was_stopped_and_grew_is_that_made_at_once(
    spec: CacheSpec, tmp_path: Path
) -> None:
    larger = replace(spec, n_windows=ALL_WINDOWS, n_validation_windows=70)
    at_once = build(larger, tmp_path / "at-once")
    assert set(files(at_once)) == {
        "hidden-basis.safetensors",
        *("shard-00000.safetensors", "shard-00001.safetensors", "validation-00000.safetensors"),
    }
    in_parts = build(spec, tmp_path / "in-parts")
    first = (in_parts.folder / "shard-00000.safetensors").stat()
    with pytest.raises(KeyboardInterrupt):
        cache_build.build(larger, tmp_path / "in-parts", stop_after(150 * N_CTX))
    in_parts = build(larger, tmp_path / "in-parts")
    after = (in_parts.folder / "shard-00000.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert files(in_parts) == files(at_once)
    assert untimed(in_parts.manifest) == untimed(at_once.manifest)


def test_stopping_in_the_middle_keeps_the_finished_shards(spec: CacheSpec, tmp_path: Path) -> None:
    spec = replace(spec, n_windows=ALL_WINDOWS)
    with pytest.raises(KeyboardInterrupt):
        cache_build.build(spec, tmp_path, stop_after((SHARD_WINDOWS + 40) * N_CTX))
    assert not is_complete(spec, tmp_path)
    assert TeacherCache(tmp_path, replace(spec, n_windows=9, n_validation_windows=0)).components.n
    told: list[int] = []
    cache_build.build(spec, tmp_path, told.append)
    assert told[0] == SHARD_WINDOWS * N_CTX  # what was there
    assert sum(told) == spec.n_tokens == (ALL_WINDOWS + 70) * N_CTX  # validation has 70 windows
    assert is_complete(spec, tmp_path)


@pytest.mark.parametrize("name", ["shard-00000", "validation-00000", "hidden-basis"])
def test_a_file_that_is_lost_is_made_again_to_the_byte(
    spec: CacheSpec, built: TeacherCache, name: str
) -> None:
    before = files(built)
    (built.folder / f"{name}.safetensors").unlink()
    assert not is_complete(spec, built.folder.parent)
    with pytest.raises(ArtefactError, match=f"{name}.*not stored"):
        TeacherCache(built.folder.parent, spec)
    assert files(build(spec, built.folder.parent)) == before


def test_the_manifest_counts_what_was_read_and_written(
    spec: CacheSpec, built: TeacherCache
) -> None:
    """Two layers, 64 wide: 2 N + 2 layers n_ctx d and, where there are logits, 2 V d a token."""
    body = 2 * spec.teacher.shape.n_params_non_embedding + 2 * 2 * N_CTX * 64
    read = (SHARD_WINDOWS + 70 + ALL_WINDOWS) * body + SHARD_WINDOWS * 2 * N_VOCAB * 64
    assert built.manifest["flops"] == read * N_CTX
    sizes = {name: len(content) for name, content in files(built).items()}
    assert built.manifest["bytes"] == sum(sizes.values())
    per_token = sizes["shard-00000.safetensors"] / (SHARD_WINDOWS * N_CTX)
    assert built.manifest["bytes_per_token"] == pytest.approx(per_token)
    assert built.manifest["n_windows"] == SHARD_WINDOWS


# -- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["teacher", "stream", "temperatures", "draws", "hidden_variance"])
def test_outputs_of_anything_else_are_refused(
    built: TeacherCache, spec: CacheSpec, key: str
) -> None:
    identity = {**built.manifest["identity"], key: "another"}
    write_json(built.folder / "manifest.json", {**built.manifest, "identity": identity})
    with pytest.raises(
        ArtefactError, match=f"have {key} 'another'; the study needs {wanted(spec, key)}"
    ):
        TeacherCache(built.folder.parent, spec)


def wanted(spec: CacheSpec, key: str) -> str:
    return repr(spec.identity[key]).replace("[", r"\[")


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        ({"n_windows": 150}, False),
        ({"n_validation_windows": 3}, False),
        ({"k": 9}, False),  # a sample has none
        ({"draws": 17}, True),
        ({"temperatures": (1.0,)}, True),
        ({"hidden_variance": 0.95}, True),
        ({"tokenizer_sha256": "another"}, True),
        ({"outputs": "top_k"}, True),
    ],
)
def test_a_cache_is_named_for_what_changes_its_numbers(
    spec: CacheSpec, change: dict[str, Any], is_another: bool
) -> None:
    assert (replace(spec, **change).name != spec.name) is is_another


def test_a_temperature_that_is_not_stored_is_refused(built: TeacherCache) -> None:
    with pytest.raises(ConfigError, match=r"1\.5 is not among .*: 1, 2"):
        built.token(1.5, ROWS, FIRST)


def test_windows_that_are_not_stored_are_refused(spec: CacheSpec, built: TeacherCache) -> None:
    with pytest.raises(ArtefactError, match=r"shard-00001.*not stored"):
        TeacherCache(built.folder.parent, replace(spec, n_windows=SHARD_WINDOWS + 1))


def test_a_shard_that_is_cut_short_is_refused(built: TeacherCache) -> None:
    path = built.folder / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtefactError, match=r"shard-00000.*cannot be read"):
        built.token(1.0, ROWS, FIRST)


def test_outputs_of_other_weights_are_neither_read_nor_added_to(
    spec: CacheSpec, built: TeacherCache
) -> None:
    """A teacher that was trained again has the same name."""
    write_teacher(spec.teacher.folder, seed=2)
    with pytest.raises(ArtefactError, match="outputs of other weights"):
        TeacherCache(built.folder.parent, spec)
    with pytest.raises(ArtefactError, match="outputs of other weights"):
        build(replace(spec, n_windows=SHARD_WINDOWS + 1), built.folder.parent)


def test_a_teacher_whose_weights_changed_is_refused(spec: CacheSpec) -> None:
    changed = replace(spec.teacher, identity="0" * 64)
    with pytest.raises(ArtefactError, match="have changed since the study was planned"):
        load_teacher(changed)


# -- verifying ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{}, {"outputs": "top_k"}, {"draws": 200, "slices": 1}, {"temperatures": ()}],
    ids=["sampled", "top_k", "dense", "hidden"],
)
def test_a_sound_cache_has_no_problems(
    spec: CacheSpec, tmp_path: Path, change: dict[str, Any]
) -> None:
    spec = replace(spec, n_windows=ALL_WINDOWS, **change)
    built = build(spec, tmp_path)
    found = verify(built.folder, spec)
    assert (found.problems, found.n_files, found.n_windows_read_again) == ((), 4, 64)


@pytest.mark.parametrize("name", ["shard-00000", "validation-00000", "hidden-basis"])
def test_a_flipped_bit_is_found(spec: CacheSpec, built: TeacherCache, name: str) -> None:
    path = built.folder / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    [problem] = verify(built.folder, spec).problems
    assert problem.startswith(f"{path}: is not what was written")


def test_sources_that_changed_are_found(spec: CacheSpec, built: TeacherCache) -> None:
    write_teacher(spec.teacher.folder, seed=2)
    ids = np.load(spec.stream.path)
    np.save(spec.stream.path, ids[::-1])
    tokenizer = spec.stream.path.with_name("tokenizer.json")
    document = json.loads(tokenizer.read_text())
    document["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst"}
    document["truncation"]["stride"] = 0
    tokenizer.write_text(json.dumps(document))
    problems = verify(built.folder, spec).problems
    assert [Path(each.partition(": ")[0]).name for each in problems] == [
        "model",
        spec.stream.path.name,
        "tokenizer.json",
    ]


@pytest.mark.parametrize("name", ["label_log_p", "hidden", "2.0/entropy", "1.0/ids"])
def test_numbers_that_are_not_the_teachers_are_found(
    spec: CacheSpec, built: TeacherCache, name: str
) -> None:
    """With hashes that fit them: only the teacher itself can tell."""
    path = built.folder / "shard-00000.safetensors"
    arrays = load_file(path)
    arrays[name] = arrays[name] ^ 1 if name == "1.0/ids" else arrays[name] + np.float16(1)
    save_file(arrays, path)
    manifest = read_json(built.folder / "manifest.json")
    manifest["shards"][path.name]["sha256"] = file_digest(path)
    write_json(built.folder / "manifest.json", manifest)
    [problem] = verify(built.folder, spec).problems
    assert problem.startswith(str(path))
    assert problem.endswith("from what the teacher says now")


# -- the commands ---------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def keys_shown(command: str) -> set[str]:
    """The keys that the page names of the command's document."""
    of_command = rf"^`--json` of [^:]*`{command}`: (.*?)\n\n"
    [shown] = re.findall(of_command, PAGE, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`]+)`", shown))


def test_info_tells_of_each_cache_without_torch(
    spec: CacheSpec, tiny_study: Study, tmp_path: Path
) -> None:
    built = build(replace(spec, outputs="top_k"), tiny_study.folder / "cache")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from kdlaws.cli import main; main(['cache', 'info', *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "tiny.yaml")]
    document = json.loads(subprocess.check_output([*command, "--json"], text=True))
    [row] = document["caches"]
    assert row["name"] == built.folder.name
    assert (row["form"], row["n_windows"], row["n_stream_windows"]) == ("top_k", 128, ALL_WINDOWS)
    assert row["teacher_cross_entropy"] == pytest.approx(built.cross_entropy(SHARD_WINDOWS))
    keys = {*document, *row, *row["bias"][0]} - {"schema", "kdlaws"}
    assert keys == keys_shown("info")
    text = subprocess.check_output(command, text=True)
    assert "128 of 211" in text
    assert text.count(f"{built.folder.name}: biased: at temperature") == 2


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["cache", *arguments])
    return ended.value.code, *capsys.readouterr()


def test_verify_fails_and_says_what_is_wrong(
    spec: CacheSpec,
    tiny_study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    built = build(spec, tiny_study.folder / "cache")
    monkeypatch.setattr(sweep, "cache_specs", lambda study: [spec])
    command = ("verify", str(tmp_path / "tiny.yaml"))
    code, out, err = run(capsys, *command)
    assert (code, err) == (0, "")
    assert out.startswith(f"{spec.name}: 3 files are as they were written")
    (built.folder / "shard-00000.safetensors").unlink()
    code, out, err = run(capsys, *command, "--json")
    assert code == 1
    assert "shard-00000.safetensors: is missing" in err
    document = json.loads(out)
    assert {*document, *document["caches"][0]} - {"schema", "kdlaws"} == keys_shown("verify")


def test_a_study_without_stored_outputs_ends_with_2(
    tiny_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("info", "verify"):
        code, out, err = run(capsys, command, str(tmp_path / "tiny.yaml"))
        assert (code, out) == (2, "")
        assert str(tiny_study.folder) in err
