"""What the appliance tells of itself: the log and the status."""
