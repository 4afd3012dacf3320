"""Generator files: which generator a file holds, read without running any of it."""
