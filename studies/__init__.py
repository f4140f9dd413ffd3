"""The article's and the papers' figures and tables, made again: one program each."""
