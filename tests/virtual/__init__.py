"""A day in seconds: an event loop whose time jumps, and a strict venue in memory that breaks by plan."""
