"""To whom it goes: the HTTP server that hands the page to scrapers.

Importing this package loads neither asyncio nor an HTTP library; they are loaded when a server
starts.
"""
