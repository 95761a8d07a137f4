"""A stand-in for the platform: buckets, emails, sync states and configs over HTTP, as strict as a real one would be.

store = PlatformStore()  # or PlatformStore(Path("platform.sqlite"))
store.create_bucket("owner", "name")
async with PlatformServer(store, [Token("secret")]) as server:
    ...  # server.url is the API's endpoint; server.log has what was asked for

What it knows of the API is published: the documentation of the Exchange integration, and the platform's command line
client (crate reinfer-cli 0.43.0). Only the PUT of a keyed sync state and its `cursor` are ews-sync's own.
"""
