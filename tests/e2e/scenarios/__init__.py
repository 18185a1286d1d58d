"""One agent for each failure type, played through any client, and what the server has to say of it."""
