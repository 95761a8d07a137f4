"""Exchange Web Services: SOAP over HTTP, read and written by hand."""
