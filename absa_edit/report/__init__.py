"""What people look at: figures, tables, the terminal, `report.md` and `report.html`; it computes nothing new from data.

lookup.py         which method a run is about, the order of methods and test sets, scores
conclusions.py    the findings, in sentences; descriptions.py what was run
tables.py         every table, made once; markdown.py, html/, terminal.py show them
plots/            figures
"""
