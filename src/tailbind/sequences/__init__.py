"""Protein sequences: their letters, how alike they are, and where an antibody's domains lie."""
