"""The main job from a clone: `python train.py +experiment=laptop14` is `absa-edit train +experiment=laptop14`.

`data/` is looked for beside this file, from wherever it is run.
"""

import sys
from pathlib import Path

from absa_edit.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]], root=Path(__file__).resolve().parent)
