"""`python -m quantai_tui.exchange`."""

from __future__ import annotations

import sys

from .process import main

sys.exit(main())
