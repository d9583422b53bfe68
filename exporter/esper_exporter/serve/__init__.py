"""The HTTP server that answers scrapes and the browser page.

Importing this package loads neither asyncio nor an HTTP library; starting a server does.
"""
