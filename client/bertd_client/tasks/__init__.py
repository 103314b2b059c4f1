"""What a server can be asked: a module for each task, as in the server."""
