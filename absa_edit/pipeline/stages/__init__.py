"""What `absa_edit.pipeline.execute` runs in order; each stage finds again what an earlier run left in the folder."""
