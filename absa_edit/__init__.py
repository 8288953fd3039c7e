"""Trace where a language model decides aspect sentiment, and train only that."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"
__all__ = ["Classifier", "Model", "example", "load", "model_folder", "read", "reviewlm"]

if TYPE_CHECKING:
    from absa_edit.api import Model, example, read
    from absa_edit.inference.classifier import Classifier, load
    from absa_edit.model.sources import model_folder, reviewlm

_HOMES = {
    "Classifier": "absa_edit.inference.classifier",
    "Model": "absa_edit.api",
    "example": "absa_edit.api",
    "load": "absa_edit.inference.classifier",
    "model_folder": "absa_edit.model.sources",
    "read": "absa_edit.api",
    "reviewlm": "absa_edit.model.sources",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for: torch and transformers take seconds."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'absa_edit' has no attribute {name!r}")
