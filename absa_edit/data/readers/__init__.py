"""The formats of data files: one file each, found by the decorator `reader`."""
