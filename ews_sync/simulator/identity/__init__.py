"""A stand-in identity provider in Entra ID's layout: OAuth 2 client credentials with secrets and certificates.

    provider = IdentityProvider("contoso.com", [App("app-1", secrets=[Secret("s3cret")])])
    async with IdentityServer(provider, ssl_context) as server:
        ...  # server.authority is what a client is told; provider.revoke_all() takes all tokens back

It checks what it is given for real: the secret, or the assertion's signature, certificate, audience and times.
"""
