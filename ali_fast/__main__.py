"""`python -m ali_fast` is `ali-fast`."""

import sys

from ali_fast.cli import main

sys.exit(main())
