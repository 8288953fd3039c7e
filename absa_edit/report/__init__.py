"""What people look at: figures, tables, the terminal, `report.md`, `report.html` and the tracker.

The only package that knows matplotlib, rich and wandb; it reads records and computes nothing new from data.
"""
