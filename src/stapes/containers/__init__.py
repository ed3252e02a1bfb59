"""What the containers of audio promise, against what is there; nothing is decoded here."""
