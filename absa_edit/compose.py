"""From Hydra's YAML to typed settings, and back from the file that Hydra keeps of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

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
            place = group if group == "locate" else f"{group}.{name}"
            store.store(group=f"schema/{group}", name=name, node=plugins[name].settings)
            if name not in has_file:
                store.store(group=group, name=name, node=plugins[name].settings, package=place)


def settings_from(config: DictConfig) -> Settings:
    """The typed settings of a composed Hydra config.

    Raises `SettingsError` naming the key for anything unknown, missing or out of range.
    """
    unknown = sorted(set(map(str, config)) - {f.name for f in fields(Settings)})
    if unknown:
        raise SettingsError(f"unknown setting {unknown[0]!r}; `python train.py --cfg job` shows all of them")
    try:
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise SettingsError(f"{missing[0]} has no value; give it on the command line: {missing[0]}=...")
        settings: Any = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        told = str(error).splitlines()[0]
        raise SettingsError(f"{error.full_key or 'settings'}: {told}") from None
    return settings


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
