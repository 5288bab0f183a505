"""`python -m quantai_tui.exchange`."""

from __future__ import annotations

import sys

from ..output import guard_streams
from .process import main

guard_streams()
sys.exit(main())
