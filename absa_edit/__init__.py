"""Trace where a language model decides aspect sentiment, and train only that."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Classifier", "load", "reviewlm"]

if TYPE_CHECKING:
    from absa_edit.export.classifier import Classifier, load
    from absa_edit.lm.load import reviewlm


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for: torch and transformers take seconds."""
    if name in ("Classifier", "load"):
        from absa_edit.export import classifier

        return getattr(classifier, name)
    if name == "reviewlm":
        from absa_edit.lm.load import reviewlm

        return reviewlm
    raise AttributeError(f"module 'absa_edit' has no attribute {name!r}")
