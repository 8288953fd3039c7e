"""Bring public data sets into a data folder, counted and checked.

    python scripts/fetch_data.py laptop14 restaurant14                       # from the hub, into data/
    python scripts/fetch_data.py mams                                        # from its authors' site
    python scripts/fetch_data.py laptop14 --from Train_v2.zip Gold_Test.zip  # from what you downloaded
    python scripts/fetch_data.py me_absc_device --from ME-ABSC/data --out ~/absa

Runs find the sets in data/ by themselves; for another folder set data.path or ABSA_EDIT_DATA.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from absa_edit.data.fetch import fetch
from absa_edit.data.public_sets import PUBLIC, public_set
from absa_edit.errors import AbsaEditError

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="name", help=", ".join(PUBLIC))
    parser.add_argument("--from", nargs="+", type=Path, default=[], dest="sources", help="folders or zip files")
    parser.add_argument("--out", type=Path, default=ROOT / "data", help="data folder (default: data/)")
    arguments = parser.parse_args()
    try:
        for public in [public_set(name, "name") for name in arguments.names]:
            for file in fetch(public, arguments.out.expanduser(), arguments.sources):
                positive, negative, neutral = file.counts
                print(f"{file.path}: {sum(file.counts)} aspects, {positive} positive, {negative} negative, ", end="")
                print(f"{neutral} neutral; sha256 {file.sha256}; from {file.origin}")
                if file.known is False:
                    print("  counts are right; the bytes differ from the copy that this project was tested with")
            print(f"licence of {public.name}: {public.licence}")
    except AbsaEditError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
