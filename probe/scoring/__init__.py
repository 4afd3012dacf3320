"""Scoring: judge new images with the probes that a ranking saved."""
