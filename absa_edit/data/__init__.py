"""From files to examples: readers, public sets, splits, and the prompt that an example becomes."""
