"""`init` writes a workspace or nothing; `config` shows, checks and compares it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentart.config.presets import PRESETS
from latentart.config.workspace import load_config, resolve

Run = Callable[..., Any]


def files(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder: content of files, nothing for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def one_error(done: Any, code: int) -> str:
    """Return the one line of a known error, after looking at its form."""
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    return str(done.err)


@pytest.mark.parametrize("is_there", [False, True])
def test_init_makes_a_workspace_in_a_new_or_empty_folder(latentart: Run, tmp_path: Path, is_there: bool) -> None:
    """The config is complete and its schema lies beside it; the way on is on stderr."""
    if is_there:
        (tmp_path / "art").mkdir()

    done = latentart("init", "art", "--preset", "demo")
    written = json.loads((tmp_path / "art/latentart.json").read_text())

    assert (done.code, done.out) == (0, "art/latentart.json\n")
    assert "cd art && latentart clean-data" in done.err
    assert load_config(tmp_path / "art/latentart.json") == resolve({"preset": "demo"})
    assert sorted(files(tmp_path / "art")) == ["latentart.json", "latentart.schema.json"]
    assert json.loads((tmp_path / "art" / written["$schema"]).read_text())["properties"].keys() == written.keys()


def test_init_without_a_folder_takes_this_one(latentart: Run, tmp_path: Path) -> None:
    """An empty current folder becomes the workspace."""
    done = latentart("init")

    assert (done.code, done.out) == (0, "latentart.json\n")
    assert "cd " not in done.err
    assert load_config(tmp_path / "latentart.json").preset == "wikiart-256"


def test_init_takes_settings_and_pictures(latentart: Run, tmp_path: Path) -> None:
    """Settings lie over the preset; pictures outside the workspace go by their whole path."""
    (tmp_path / "pictures").mkdir()

    done = latentart("init", "art", "--data", "pictures", "seed=5", "vae.stages.l1.steps=9")
    config = load_config(tmp_path / "art/latentart.json")

    assert done.code == 0
    assert "Put your pictures" not in done.err
    assert (config.seed, config.vae.stages[0].steps) == (5, 9)
    assert config.data.raw == str(tmp_path / "pictures")


def test_init_with_the_same_words_changes_nothing(latentart: Run, tmp_path: Path) -> None:
    """The same command again is safe, and other words do not overwrite."""
    latentart("init", "art", "seed=5")
    before = files(tmp_path)

    again = latentart("init", "art", "seed=5")
    other = latentart("init", "art", "seed=6")

    assert (again.code, again.out) == (0, "art/latentart.json\n")
    assert "art is a workspace already, with another config." in one_error(other, 2)
    assert files(tmp_path) == before

    (tmp_path / "art/latentart.json").write_bytes(b"\xff\xfe{")  # another program's, or another encoding
    assert "art is a workspace already, with another config." in one_error(latentart("init", "art", "seed=5"), 2)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("full",), 2, "full exists and is not a workspace; nothing was written."),
        (("full/file.txt",), 2, "full/file.txt exists and is not a workspace"),
        (("full/file.txt/art",), 5, "full/file.txt/art cannot be written: Not a directory."),
        (("art", "--data", "nowhere"), 4, "there is no folder of pictures at nowhere."),
        (("art", "--data", "full/file.txt"), 4, "there is no folder of pictures at full/file.txt."),
        (("art", "--preset", "wikiart256"), 3, "there is no preset 'wikiart256'. Did you mean 'wikiart-256'?"),
        (("art", "sede=1"), 3, "unknown setting sede. Did you mean 'seed'?"),
        (("art", "seed=x"), 3, 'the command line: seed: must be a whole number (got "x").'),
        (("art", "preset=demo"), 3, "--preset"),
        (("art", "pictures"), 2, "'pictures' is one folder too many. The pictures' folder is named with --data."),
    ],
)
def test_init_refuses_and_writes_nothing(
    latentart: Run, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    """Whatever is wrong, nothing is made and nothing is lost."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file.txt").write_text("mine")
    before = files(tmp_path)

    done = latentart("init", *words)

    assert message in one_error(done, code)
    assert files(tmp_path) == before


def test_ls_names_every_preset(latentart: Run) -> None:
    """One line or one JSON entry for each preset."""
    lines = latentart("config", "ls").out.splitlines()
    entries = json.loads(latentart("config", "ls", "--json").out)

    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert entries == {name: preset.about for name, preset in PRESETS.items()}


def test_show_writes_what_can_be_read_again(latentart: Run, tmp_path: Path) -> None:
    """The output is a config file: the workspace's with the settings on top, or a preset's."""
    latentart("init", "--preset", "demo")

    own = latentart("config", "show", "seed=5")
    preset = latentart("config", "show", "--preset", "wikiart-256-seed", "seed=6")

    assert json.loads(own.out) == resolve({"preset": "demo"}, ["seed=5"]).to_json()
    assert json.loads(preset.out) == resolve({"preset": "wikiart-256-seed"}, ["seed=6"]).to_json()
    assert own.err == preset.err == ""


@pytest.mark.parametrize("by_option", [False, True])
def test_validate_says_which_file_is_valid(latentart: Run, tmp_path: Path, by_option: bool) -> None:
    """A good config is called good, with or without the option."""
    (tmp_path / "other.json").write_text('{"preset": "demo"}')

    done = latentart("config", "validate", *(["-c"] if by_option else []), "other.json")

    assert (done.code, done.out) == (0, "other.json is valid\n")


def test_validate_takes_the_workspace(latentart: Run) -> None:
    """Without a name it is this folder's config."""
    missing = latentart("config", "validate")
    latentart("init")

    assert "is not a workspace" in one_error(missing, 3)
    assert latentart("config", "validate").out == "latentart.json is valid\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "latentart.json is not valid JSON"),
        (b'{"sede": 1}', "latentart.json: unknown setting sede. Did you mean 'seed'?"),
        (b'{"seed": 1, "seed": 1}', "latentart.json: the key 'seed' stands twice."),
        (b'{"sample": {"guidance": 1e400}}', "latentart.json: sample.guidance: must be a finite number"),
        (b'{"\\u001b[31m": 1}', r"latentart.json: unknown setting \x1b[31m."),
    ],
)
def test_every_command_names_the_mistake(latentart: Run, tmp_path: Path, content: bytes, message: str) -> None:
    """A broken config stops any command with the same line and exit code 3."""
    (tmp_path / "latentart.json").write_bytes(content)

    for words in (("config", "validate"), ("train", "ldm")):
        assert message in one_error(latentart(*words), 3)


def test_the_schema_command_writes_the_file_beside_the_config(latentart: Run, tmp_path: Path) -> None:
    """Editors get the same schema from `init` and from `config schema`."""
    latentart("init")

    assert json.loads(latentart("config", "schema").out) == json.loads((tmp_path / "latentart.schema.json").read_text())


def test_diff_shows_what_differs(latentart: Run) -> None:
    """One line for each value, in JSON, against the own preset or another."""
    latentart("init", "--preset", "demo")

    same = latentart("config", "diff")
    changed = latentart("config", "diff", "vae.stages.l1.tanh=true", "ldm.diffusion.schedule.kind=linear")
    other = latentart("config", "diff", "--preset", "wikiart-256")

    assert (same.out, same.err) == ("", "no difference from preset demo\n")
    assert changed.out.splitlines() == [
        "vae.stages.0.tanh: false -> true",
        'ldm.diffusion.schedule.kind: "cosine" -> "linear"',
        "ldm.diffusion.schedule.offset: 0.008 -> null",
        "ldm.diffusion.schedule.max_beta: 0.999 -> null",
        "ldm.diffusion.schedule.beta_start: null -> 0.0001",
        "ldm.diffusion.schedule.beta_end: null -> 0.02",
    ]
    assert 'preset: "wikiart-256" -> "demo"' in other.out.splitlines()
    assert "data.min_bytes: 5120 -> 0" in other.out.splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "--preset", "demo", "-c", "x.json"), "--preset and --config both say which values to show."),
        (("show", "hires"), "'hires' is not a setting."),
        (("validate", "a.json", "-c", "b.json"), "a config was named twice."),
    ],
)
def test_words_that_contradict_are_a_usage_error(latentart: Run, words: tuple[str, ...], message: str) -> None:
    """Two answers to one question, or a word that is none, is exit code 2."""
    assert message in one_error(latentart("config", *words), 2)


@pytest.mark.parametrize(
    ("count", "said"), [(0, "holds no files"), (3, "warning: fewer than 500 pictures (3): expect"), (500, None)]
)
def test_init_says_what_to_expect_of_few_pictures(latentart: Run, tmp_path: Path, count: int, said: str | None) -> None:
    """An empty folder of pictures, or a small one, is named at once; captions and what is hidden do not count."""
    (tmp_path / "raw/Cubism").mkdir(parents=True)
    for i in range(count):
        (tmp_path / f"raw/Cubism/{i}.png").touch()
    (tmp_path / "raw/.cache").mkdir()
    for name in ("Cubism/0.txt", "Cubism/.1.png", ".cache/2.png"):
        (tmp_path / "raw" / name).touch()

    done = latentart("init", "art", "--data", "raw")

    assert done.code == 0
    assert (said in done.err) if said else ("warning" not in done.err)


def test_init_proposes_another_preset_with_its_reason(
    latentart: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU one line says which may suit better, unless a preset was named; the config stays as it was."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "raw/Cubism").mkdir(parents=True)
    (tmp_path / "raw/Cubism/0.png").touch()

    free, named = latentart("init", "a", "--data", "raw"), latentart("init", "b", "--preset", "demo", "--data", "raw")

    assert load_config(tmp_path / "a/latentart.json").preset == "wikiart-256"
    assert "\n--preset laptop may suit you better: no GPU was found, and in a night a CPU learns 96 px" in free.err
    assert "--preset" not in named.err
