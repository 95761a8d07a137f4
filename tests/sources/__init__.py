"""The sources room: the EWS client, and logging in."""
