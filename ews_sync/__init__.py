"""ews-sync: keeps the mail of many Exchange mailboxes flowing into buckets, or into files on disk."""

__version__ = "0.1.0"
