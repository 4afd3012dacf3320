"""Calls of other packages, answered by this one: change an import and keep the rest."""
