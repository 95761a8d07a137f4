"""What the mail server's client and the platform's client share: HTTP failures in words, and TLS. No protocol."""
