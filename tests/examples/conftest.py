"""With the program as tests/rest starts it, and the code that examples/python/build has generated."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/rest"), str(ROOT / "examples/python")]
