"""Many short runs, one after the other, and what a worker takes meanwhile: `python -m tests.soak --runs 20000`."""
