"""What runs between configuration and records: the code that serves, and owns no tables."""

import os

# Before NumPy is imported: its threads are for matrices of a size that nothing here has, and hinder each other and the
# event loop on busy cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
