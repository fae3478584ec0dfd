"""What was read: content hashes of files and caches, and the note of its inputs that a run is held to."""
