"""Scoring: new images through the probes that a ranking saved."""
