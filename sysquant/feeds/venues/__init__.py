"""Exchanges that tell their trades over a WebSocket: what they say, and what they can be asked.

One module each. A venue opens no socket: it names the address, the words of greeting, what a frame
means and how missing trades are asked for over REST; `feeds/socket.py` does the rest.
"""
