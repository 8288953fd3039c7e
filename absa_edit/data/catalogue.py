"""The public data sets that are known by name, and the domains that have a bundled sample."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from absa_edit.errors import DataError

SAMPLE_DOMAINS = ("laptop", "restaurant", "device", "service")
SUFFIX = "-sample"


@dataclass(frozen=True, slots=True)
class PublicSet:
    """Where a public set lies in a data folder, and what it is about."""

    name: str
    domain: str
    train: tuple[str, ...]
    """Paths of the training file under a data folder, the usual one first."""
    test: tuple[str, ...]
    hub: str | None = None
    """Dataset id on the Hugging Face hub."""

    def candidates(self, split: str) -> tuple[str, ...]:
        """The paths to try for `split`, the bare file name in the folder itself last."""
        paths = self.train if split == "train" else self.test
        return (*paths, paths[0].rsplit("/", 1)[-1])


def _semeval14(name: str, domain: str, stem: str, hub: str) -> PublicSet:
    train, test = f"semeval14/{stem}_Train_v2.xml", f"semeval14/{stem}_Test_Gold.xml"
    return PublicSet(name, domain, (train,), (test,), hub)


def _me_absc(stem: str, domain: str) -> PublicSet:
    train, test = f"me_absc/{stem}_train.json", f"me_absc/{stem}_test.json"
    return PublicSet(f"me_absc_{stem}", domain, (train,), (test,))


PUBLIC = {
    public.name: public
    for public in (
        _semeval14("laptop14", "laptop", "Laptops", "tomaarsen/setfit-absa-semeval-laptops"),
        _semeval14("restaurant14", "restaurant", "Restaurants", "tomaarsen/setfit-absa-semeval-restaurants"),
        PublicSet(
            "mams",
            "restaurant",
            ("mams/train.xml", "MAMS-ATSA/raw/train.xml", "data/MAMS-ATSA/raw/train.xml"),
            ("mams/test.xml", "MAMS-ATSA/raw/test.xml", "data/MAMS-ATSA/raw/test.xml"),
        ),
        _me_absc("device", "device"),
        _me_absc("laptop", "laptop"),
        _me_absc("rest", "restaurant"),
        _me_absc("service", "service"),
    )
}
"""Public sets by name."""


def sample_domain(name: str) -> str | None:
    """The domain of the bundled sample that `name` asks for; None for any other name."""
    domain = name.removesuffix(SUFFIX)
    return domain if name.endswith(SUFFIX) and domain in SAMPLE_DOMAINS else None


def public_set(name: str, key: str) -> PublicSet:
    """The public set called `name`; the setting `key` goes into the `DataError` when there is none."""
    if name in PUBLIC:
        return PUBLIC[name]
    known = [*PUBLIC, *(domain + SUFFIX for domain in SAMPLE_DOMAINS)]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise DataError(
        f"{key}={name}: no such data set.{hint} "
        f"Known are {', '.join(known)}; for your own files give data.train and data.test."
    )
