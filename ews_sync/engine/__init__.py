"""Keeping mailboxes in step: what to read next, what is confirmed, and where a restart begins.

Decisions are plain functions and small classes without I/O (`listing`, `feed`, `progress`, `ledger`, `watch`,
`search`, `troubles`); the shell around them (`engine`, `mailbox`, `storing`, `fetching`, `pipeline`, `checkpoints`)
talks to a source and a sink. Knows no protocol and no file format.
"""
