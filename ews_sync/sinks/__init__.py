"""Where mail goes: files on disk, and (elsewhere in this room) the platform. See `ews_sync.model.Sink`."""
