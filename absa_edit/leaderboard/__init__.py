"""Many finished runs: gathered by what they have in common, averaged over seeds, compared."""
