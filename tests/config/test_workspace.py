"""The config of a workspace: its sources in order, its mistakes in one line, its schema complete."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentart.config.presets import PRESETS
from latentart.config.workspace import Config, find_config, load_config, preset_tree, resolve, schema
from latentart.errors import ConfigError


def write(folder: Path, values: Any) -> Path:
    """Write a config file and return its path."""
    path = folder / "latentart.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_later_sources_win(tmp_path: Path) -> None:
    """Defaults < preset < file < key=value."""
    path = write(tmp_path, {"preset": "demo", "sample": {"steps": 40}, "seed": 3})

    config = load_config(path, ["seed=4", "seed=5"])

    assert config.sample.sampler == "ddim"  # default
    assert config.sample.guidance == resolve({"preset": "demo"}).sample.guidance  # preset
    assert config.sample.steps == 40  # file
    assert config.seed == 5  # the last argument


def test_each_legacy_resampler_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """By its path, in both networks; the recommended kinds say nothing, nor does a network without resamplers."""
    resolve({"preset": "demo"}, ["vae.model.downsampling=max", "vae.model.upsampling=bicubic"])
    resolve({"preset": "demo"}, ["ldm.model.kind=dit"])
    assert not caplog.messages

    resolve({"preset": "demo"}, ["vae.model.downsampling=strided", "vae.model.upsampling=transposed"])
    resolve({"preset": "demo"}, ["ldm.model.upsampling=transposed"])

    words = [message.split(" is kept for old recipes: it tends to leave checkerboard") for message in caplog.messages]
    assert [found for found, _ in words] == [
        "vae.model.downsampling 'strided'",
        "vae.model.upsampling 'transposed'",
        "ldm.model.upsampling 'transposed'",
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_its_file(tmp_path: Path, name: str) -> None:
    """Written and read again, a config is the same."""
    config = resolve({"preset": name}, ["seed=7", "vae.stages.l1.lr=1e-3"])
    path = tmp_path / "latentart.json"
    path.write_text(config.to_text(), encoding="utf-8")

    assert load_config(path) == config
    assert load_config(path).to_text() == config.to_text()


def test_a_stage_goes_by_its_name() -> None:
    """`vae.stages.l1.steps=5` changes that stage alone."""
    changed = resolve({"preset": "demo"}, ["vae.stages.l1.steps=5"])

    assert [stage.steps for stage in changed.vae.stages] == [
        5,
        *(s.steps for s in resolve({"preset": "demo"}).vae.stages[1:]),
    ]


def test_steps_can_take_the_place_of_epochs() -> None:
    """Rules about two fields are checked when every argument is in."""
    changed = resolve({}, ["vae.stages.hires.epochs=null", "vae.stages.hires.steps=5"])

    assert (changed.vae.stages[3].steps, changed.vae.stages[3].epochs) == (5, None)


@pytest.mark.parametrize("kind", ["linear", "quadratic", "sigmoid"])
def test_a_schedule_of_another_kind_takes_its_own_settings(kind: str) -> None:
    """A change of kind, in the file or by arguments, leaves nothing of the old kind behind."""
    by_arguments = resolve({}, [f"ldm.diffusion.schedule.kind={kind}", "ldm.diffusion.schedule.beta_end=0.03"])
    by_file = resolve({"ldm": {"diffusion": {"schedule": {"kind": kind, "beta_end": 0.03}}}})

    assert by_arguments == by_file
    assert by_file.to_json()["ldm"]["diffusion"]["schedule"].keys() >= {"kind", "beta_start", "beta_end"}
    assert by_file.ldm.diffusion.schedule.kind == kind


DEEP: dict[str, Any] = functools.reduce(lambda inner, _: {"a": inner}, range(600), {})
TUNED = {"name": "a", "resolution": 64, "steps": 1, "trainable": "decoder", "keep_optimizer": True}
MISTAKES: list[tuple[Any, str]] = [
    ({"sede": 1}, "unknown setting sede. Did you mean 'seed'?"),
    ({"ldm": {"training": {"batchsize": 1}}}, "unknown setting ldm.training.batchsize. Did you mean 'batch_size'?"),
    ({"ldm": {"diffusion": {"schedule": {"ofset": 1}}}}, "diffusion.schedule.ofset. Did you mean 'offset'?"),
    ({"ldm": {"diffusion": {"schedule": {"kind": "linear", "beta": 1}}}}, "schedule.beta. Did you mean 'beta_end'?"),
    (
        {"ldm": {"diffusion": {"schedule": {"kind": "cosin"}}}},
        "sigmoid, straight (got \"cosin\"). Did you mean 'cosine'?",
    ),
    ({"ldm": {"diffusion": {"schedule": {"kind": 5}}}}, "ldm.diffusion.schedule: "),
    ({"ldm": {"diffusion": {"target": "epsilon"}}}, "(got \"epsilon\"). Did you mean 'eps'?"),
    ({"kind": "x"}, "unknown setting kind."),
    ({"vae": {"stages": [{"name": "a", "resolution": 64, "steps": 1, "step": 2}]}}, "vae.stages.0.step. Did you mean"),
    ({"vae": {"stages": [{"name": "a", "steps": 1}]}}, "vae.stages.0.resolution: is missing."),
    ({"vae": {"stages": []}}, "vae.stages: "),
    ({"vae": {"model": {"kind": "vq"}, "stages": [TUNED]}}, "trainable decoder is for kl"),
    ({"vae": {"stages": [{**TUNED, "name": "b", "trainable": "all"}, TUNED]}}, "a: keep_optimizer, but b trains other"),
    ({"vae": None}, "vae: must be a group of settings (got null)."),
    ({"vae": {"stages": {"l1": {}}}}, "vae.stages: must be a list."),
    ({"preset": "dem"}, "there is no preset 'dem'. Did you mean 'demo'?"),
    ({"preset": ["demo"]}, "preset must be a name"),
    ({"seed": "1"}, 'seed: must be a whole number (got "1").'),
    ({"seed": True}, "seed: must be a whole number (got true)."),
    ({"seed": 1.5}, "seed: must be a whole number (got 1.5)."),
    ({"seed": 10**30}, "seed: must be less than"),
    ({"seed": -1}, "seed: must be at least 0 (got -1)."),
    ({"seed": None}, "seed: must be a whole number (got null)."),
    ({"data": {"flip": "yes"}}, 'data.flip: must be true or false (got "yes").'),
    ({"data": {"flip": 1}}, "data.flip: must be true or false (got 1)."),
    ({"data": {"raw": 5}}, "data.raw: must be text (got 5)."),
    ({"data": {"raw": "\ud800"}}, "holds text that is no Unicode"),
    ({"data": {"background": [0, 0, 256]}}, "data.background.2: "),
    ({"data": {"min_bytes": "x" * 10_000}}, "xxx…)."),
    ({"ldm": {"training": {"optimizer": {"lr": float("nan")}}}}, "optimizer.lr: must be a finite number"),
    ({"ldm": {"training": {"optimizer": {"lr": float("inf")}}}}, "optimizer.lr: must be a finite number"),
    ({"ldm": {"training": {"batch_size": 10**18}}}, "ldm.training.batch_size: must be at most 65536"),
    ({"ldm": {"training": {"steps": 5, "epochs": 1}}}, "ldm.training: give either steps or epochs"),
    ({"ldm": {"training": {"resolution": 250}}}, "ldm.training.resolution 250 is no multiple of 32"),
    ({"ldm": {"model": {"widths": [65521] * 3}}}, "ldm.model: groups 8 does not divide width 65521: 1 would"),
    ({"ldm": {"model": {"widths": [104] * 3}}}, "head_channels 32 does not divide the width 104: 1, 2, 4, 8, 13, 26, "),
    ({"ldm": {"model": {"widths": [64]}}}, "ldm.model: attention has 3 entries, widths has 1"),
    ({"sample": {"guidance_interval": [0.8, 0.2]}}, "sample.guidance_interval: the interval begins at 0.8, beyond"),
    ({"sample": {"guidance_interval": [0, 1.5]}}, "sample.guidance_interval.1: must be at most"),
    ({"sample": {"guidance_rescale": -0.1}}, "sample.guidance_rescale: must be at least 0"),
    ({"sample": {"steps": 1001}}, "sample.steps 1001 exceeds ldm.diffusion.num_steps 1000"),
    ({"data": DEEP}, "is nested too deep."),
]


@pytest.mark.parametrize(("values", "message"), MISTAKES)
def test_a_mistake_is_one_short_line_with_its_path(tmp_path: Path, values: Any, message: str) -> None:
    """Whatever is wrong in the file: the setting's path, what is wrong, and the nearest name."""
    path = write(tmp_path, values)

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "9" * 5000])
def test_numbers_that_are_none_are_refused_with_their_path(tmp_path: Path, number: str) -> None:
    """NaN, infinity and what overflows is refused in the file and in arguments, as fraction and as whole number."""
    path = tmp_path / "latentart.json"
    path.write_text(f'{{"sample": {{"guidance": {number}}}}}', encoding="utf-8")

    with pytest.raises(ConfigError, match=r"sample\.guidance: must be a finite number"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"sample\.guidance: must be a finite number"):
        resolve({}, [f"sample.guidance={number}"])
    with pytest.raises(ConfigError, match=r"sample\.steps: must be a whole number"):
        resolve({}, [f"sample.steps={number}"])


@pytest.mark.parametrize("depth", [100, 300, 900, 950, 980, 5000])
def test_no_depth_is_an_error_of_ours(depth: int) -> None:
    """However deep a value is nested, reading and validating it ends in a known error."""
    with pytest.raises(ConfigError):
        resolve({}, ["seed=" + "[" * depth + "]" * depth])


def test_a_preset_is_not_changed_by_an_argument() -> None:
    """`preset=demo` would change a label and none of the values below the file, so it is refused."""
    with pytest.raises(ConfigError, match="--preset"):
        resolve({}, ["preset=demo"])


def test_a_folder_without_a_config_is_no_workspace(tmp_path: Path) -> None:
    """The line says what to do next; a folder of the config's name does not count."""
    (tmp_path / "latentart.json").mkdir()

    with pytest.raises(ConfigError, match=r"is not a workspace.*latentart init"):
        find_config(tmp_path)


def objects(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of the schema with its name."""
    yield "Config", found
    yield from found["$defs"].items()


def test_every_setting_is_described() -> None:
    """The docstring below each field reaches the schema, for editors."""
    found = schema()
    silent = [
        f"{name}.{key}"
        for name, node in objects(found)
        for key, setting in node["properties"].items()
        if len(setting.get("description", "")) < 5
    ]

    assert not silent
    assert all(node.get("description") for _, node in objects(found))


def unknown_keys(value: Any, node: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return the keys in a value that the schema does not have, and those it demands and the value has not."""
    if "discriminator" in node:
        node = {"$ref": node["discriminator"]["mapping"][value["kind"]]}
    if "$ref" in node:
        node = found["$defs"][node["$ref"].removeprefix("#/$defs/")]
    if isinstance(value, list):
        return [key for item in value for key in unknown_keys(item, node.get("items", {}), found)]
    if not isinstance(value, dict):
        return []
    settings = node["properties"]
    wrong = [key for key in value if key not in settings] + [
        key for key in node.get("required", []) if key not in value
    ]
    return wrong + [
        key for name in value if name in settings for key in unknown_keys(value[name], settings[name], found)
    ]


@pytest.mark.parametrize(
    "values", [*(preset_tree(name) for name in PRESETS), {}, {"vae": {"run": {}}}, {"preset": "x"}]
)
def test_the_schema_knows_every_key(values: dict[str, Any]) -> None:
    """A complete config fits the schema, and so does one that leaves to the preset what the preset gives."""
    found = schema()

    assert unknown_keys(values, found, found) == []
    assert all(node["additionalProperties"] is False for _, node in objects(found))


def test_a_config_cannot_be_changed() -> None:
    """A resolved config stays as it was validated."""
    config: Config = resolve({})

    with pytest.raises(ValueError, match="frozen"):
        config.seed = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "offered"),
    [
        ("max_skipped=3", "vae.run.max_skipped or ldm.training.run.max_skipped"),
        ("weighting=min_snr", "ldm.diffusion.weighting"),
        ("weightng=min_snr", "ldm.diffusion.weighting"),
        ("ldm.training.weighting=min_snr", "ldm.diffusion.weighting"),
        ("batch_size=8", "vae.stages.l1.batch_size or ldm.training.batch_size or sample.batch_size"),
    ],
)
def test_a_name_that_is_no_path_gets_its_whole_path_offered(setting: str, offered: str) -> None:
    """A setting goes by its path; who knows its name alone is told where it stands."""
    with pytest.raises(ConfigError, match=rf"unknown setting .*\. Its whole path is {re.escape(offered)}\."):
        resolve({"preset": "demo"}, [setting])


def test_a_name_in_the_wrong_group_of_a_file_gets_its_whole_path_offered() -> None:
    """A file's settings are helped as those of the command line are."""
    with pytest.raises(
        ConfigError, match=r"here: unknown setting ldm\.weighting\. Its whole path is ldm\.diffusion\.w"
    ):
        resolve({"preset": "demo", "ldm": {"weighting": "min_snr"}}, where="here")


@pytest.mark.parametrize(
    ("changes", "settings", "blamed"),
    [
        ({}, ["seed=-1"], "the command line"),
        ({"seed": 4}, ["seed=-1", "sample.steps=5"], "the command line"),
        ({}, ["ldm.training.resolution=33"], "the command line"),
        ({"seed": -1}, [], "latentart.json"),
        ({"seed": -1}, ["sample.steps=5"], "latentart.json"),
    ],
)
def test_a_wrong_value_is_blamed_on_where_it_stands(changes: dict[str, Any], settings: list[str], blamed: str) -> None:
    """Who typed a value is not sent to look for it in a file."""
    with pytest.raises(ConfigError, match=f"^{blamed}: "):
        resolve({"preset": "demo"} | changes, settings, "latentart.json")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("sample.guidance_interval=[0,1,2]", "sample.guidance_interval: must have at most 2 items."),
        ("ldm.model.widths=[]", "ldm.model.widths: must have at least 1 item."),
        ("tracking.project=a/b", 'tracking.project: has a letter that may not stand there (got "a/b").'),
        ("ldm.training.micro_batch=x", "ldm.training.micro_batch: must be a whole number or 'auto' (got \"x\")."),
        ("ldm.labels=5", "ldm.labels: must be a list (got 5)."),
    ],
)
def test_a_mistake_is_said_in_words_for_people(setting: str, said: str) -> None:
    """No words of the library that checks: no tuples, strings, patterns, inputs or names of types."""
    with pytest.raises(ConfigError) as caught:
        resolve({"preset": "demo"}, [setting])

    assert str(caught.value) == f"the command line: {said}"
