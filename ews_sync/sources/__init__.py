"""Where mail comes from, and how to log in there."""
