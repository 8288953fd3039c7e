"""`python -m absa_edit` is `absa-edit`."""

from absa_edit.cli import main

if __name__ == "__main__":
    main()
