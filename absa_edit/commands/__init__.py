"""The commands of `absa-edit`: one file each, with `main(arguments, root)`.

`arguments` is what stands after the command's name, `root` the folder whose `data/` is looked in. What `main` returns
is the exit code; an `AbsaEditError` that it raises ends the program with one line.
"""
