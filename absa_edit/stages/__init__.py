"""What `absa_edit.pipeline` runs in order; each stage finds again what an earlier run left in the folder."""
