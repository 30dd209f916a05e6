"""``python -m parallel_facade``."""

import sys

from parallel_facade._cli import main

sys.exit(main())
