"""The helpers beside this file (comparing, check_*) are importable by name; README.md explains the four suites."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
