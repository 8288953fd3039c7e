"""Put what a run exported on the Hugging Face hub; private unless --public. Nothing else ever uploads an export there.

python scripts/push.py outputs/laptop14/reviewlm/seed0 me/laptop14-edit
python scripts/push.py outputs/laptop14/reviewlm/seed0 me/laptop14-merged --merged --public
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from absa_edit.errors import AbsaEditError
from absa_edit.export.hub import push


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="run folder, adapter or merged checkpoint")
    parser.add_argument("repo", help="user/name on the hub; made where it does not exist")
    parser.add_argument("--merged", action="store_true", help="of a run folder, the merged checkpoint")
    parser.add_argument("--public", action="store_true", help="let everybody read it")
    arguments = parser.parse_args()
    try:
        print(push(arguments.folder, arguments.repo, merged=arguments.merged, public=arguments.public))
    except AbsaEditError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
