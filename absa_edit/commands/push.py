"""Put what a run exported on the Hugging Face hub; private unless --public. Nothing else ever uploads an export there.

absa-edit push outputs/laptop14/reviewlm/seed0 me/laptop14-edit
absa-edit push outputs/laptop14/reviewlm/seed0 me/laptop14-merged --merged --public
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str], _: Path) -> None:
    parser = argparse.ArgumentParser(
        "absa-edit push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="run folder, adapter or merged checkpoint")
    parser.add_argument("repo", help="user/name on the hub; made where it does not exist")
    parser.add_argument("--merged", action="store_true", help="of a run folder, the merged checkpoint")
    parser.add_argument("--public", action="store_true", help="let everybody read it")
    chosen = parser.parse_args(arguments)
    from absa_edit.export.hub import push

    sys.stdout.write(push(chosen.folder, chosen.repo, merged=chosen.merged, public=chosen.public) + "\n")
