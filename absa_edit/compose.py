"""From Hydra's YAML to typed settings, and back from the file that Hydra keeps of them; where that YAML lies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from absa_edit.analyses.settings import ANALYSES
from absa_edit.errors import SettingsError
from absa_edit.localizers.settings import LOCALIZERS
from absa_edit.methods.settings import METHODS
from absa_edit.settings import Settings

PACKAGE = Path(__file__).resolve().parent


def source_folder() -> Path | None:
    """The clone that the package is run from; None where it is installed from a wheel."""
    return PACKAGE.parent if (PACKAGE.parent / "conf" / "train.yaml").is_file() else None


def conf_folder() -> Path:
    """Hydra's groups: at the top of a clone, inside the package where that is installed from a wheel."""
    source = source_folder()
    return source / "conf" if source else PACKAGE / "conf"


def register() -> None:
    """Store the schemas that `conf/` is checked against, and an option for each plug-in that has no file there."""
    store = ConfigStore.instance()
    store.store(name="settings_schema", node=Settings)
    for group, plugins in (("method", METHODS), ("analysis", ANALYSES), ("locate", LOCALIZERS)):
        has_file = {path.stem for path in (conf_folder() / group).glob("*.yaml")}
        for name in plugins:
            node = OmegaConf.structured(plugins[name].settings)
            place = f"{group}.{name}"
            if group == "locate":  # a single one, which says itself what it is
                node.kind, place = name, group
            store.store(group=f"schema/{group}", name=name, node=node)
            if name not in has_file:
                store.store(group=group, name=name, node=node, package=place)


def settings_from(config: DictConfig) -> Settings:
    """The typed settings of a composed Hydra config.

    Raises `SettingsError` naming the key for anything unknown, missing or out of range.
    """
    _refuse_unknown(config)
    try:
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise SettingsError(f"{missing[0]} has no value; give it on the command line: {missing[0]}=...")
        return cast(Settings, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        why = str(error).splitlines()[0]
        raise SettingsError(f"{error.full_key or 'settings'}: {why}") from None


def told(error: HydraException) -> str:
    """What Hydra says of a command line that it cannot compose, in one line; of an unknown key, the nearest ones."""
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return _unknown(cause.full_key, [key for key, _ in _keys(compose("train"))])
    lines = re.split(r"\n(?:Config search path|See https)", str(error))[0].splitlines()
    if isinstance(cause, OmegaConfBaseException):
        lines.append(str(cause).splitlines()[0])
    options = [line.strip() for line in lines if line.startswith("\t")]
    return " ".join([*(line for line in lines if line and not line.startswith("\t")), ", ".join(options)]).strip()


def _refuse_unknown(config: DictConfig) -> None:
    """Raise `SettingsError` for a key that nobody reads: Hydra's `+` adds any, at any depth."""
    all_keys = list(_keys(config))
    for key, is_known in all_keys:
        if not is_known:
            raise SettingsError(_unknown(key, [known for known, is_known in all_keys if is_known]))


def _unknown(key: str, known: Sequence[str]) -> str:
    """That `key` is none, and the keys that are meant perhaps: in its own group, else in any."""
    group, _, name = key.rpartition(".")
    siblings = [k for k in known if k.rpartition(".")[0] == group]
    advice = f"Expected one of {', '.join(siblings)}."
    for choices, alike in ((siblings, 0.6), (known, 0.7)):
        if near := get_close_matches(name, {k.rpartition(".")[2] for k in choices}, 1, alike):
            likely = [k for k in choices if k.rpartition(".")[2] == near[0]]
            advice = f"Did you mean {' or '.join(likely)}?"
            break
    return f"{key}: unknown setting. {advice} `absa-edit train --cfg job` shows all of them"


def _keys(config: DictConfig, group: str = "") -> Iterator[tuple[str, bool]]:
    """Every dotted key, and whether the schema has it; what lies below an unknown key is left out."""
    kind = OmegaConf.get_type(config)
    known = {f.name for f in fields(kind)} if is_dataclass(kind) else set(map(str, config))
    for name in map(str, config):
        yield f"{group}{name}", name in known
        has_value = not OmegaConf.is_missing(config, name) and not OmegaConf.is_interpolation(config, name)
        if name in known and has_value and isinstance(config[name], DictConfig):
            yield from _keys(config[name], f"{group}{name}.")


def kept_settings(path: Path) -> dict[str, str]:
    """The settings in a `config.yaml` that Hydra kept, by dotted key; none where there is no such file."""
    if not path.is_file():
        return {}

    def flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
        if not isinstance(value, dict):
            yield key, str(value)
            return
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else str(name))

    return dict(flat(OmegaConf.to_container(OmegaConf.load(path)), ""))
